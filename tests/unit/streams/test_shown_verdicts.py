"""What Redis has to show, told from the tables, against a walk over all rows in judged order."""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson
import pytest

import streams.shown_verdicts
from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore
from sinks.parquet import ParquetSink
from sinks.redis import ShownVerdict
from streams.shown_verdicts import Comparison, JudgedOrder, VerdictRows, compare
from tests.unit.sinks.test_compaction import compacted, expired
from tests.unit.sinks.turns import Made, Row, made_turn

TURNS = 8
PARTITION = 3
Entries = dict[str, ShownVerdict]


def entry_of(row: Row) -> ShownVerdict:
    return ShownVerdict(
        level=row["level"],
        score=row["score"],
        event=row["event"],
        event_id=row["event_id"],
        ts=round(row["ts"].timestamp() * 1000),
        campaign=row["campaign"] or "",
        config_hash=row["config_hash"],
        reasons=tuple(row["reasons"]),
        user=row["user"],
    )


def last_verdicts(made: list[Made], kind: str) -> Entries:
    """The last of each user or device, by a walk in judged order."""
    return {
        row[kind] if kind == "user" else f"{row['device']}/{PARTITION}": entry_of(row)
        for turn in made
        for row in turn.verdicts
        if row[kind]
    }


def held(last: Entries) -> dict[str, ShownVerdict | None]:
    return {key: entry for key, entry in last.items() if entry.level != "pass"}


def written(root: Path, *, per_commit: int = 1, users: int = 6) -> list[Made]:
    made = [made_turn(number, days=3, users=users) for number in range(TURNS)]
    sink = ParquetSink(LocalStore(root), PARTITION, key_fingerprint="key")
    sink.open()
    for first in range(0, TURNS, per_commit):
        sink.write([each.turn for each in made[first : first + per_commit]])
    return made


def compared(root: Path, kind: str, shown: dict[str, ShownVerdict | None], reached: int) -> Comparison:
    store = LocalStore(root)
    accounts = read_accounts(store)
    order = JudgedOrder(accounts.commits, {PARTITION: reached})
    verdicts = VerdictRows(store, accounts.moving)
    flagged = verdicts.flagged()
    newest = verdicts.newest(flagged.users | shown.keys(), flagged.devices | shown.keys(), order)
    rows = newest.of_users if kind == "user" else newest.of_devices
    return compare(kind, shown, rows, expired_folders=newest.expired_folders)


@pytest.mark.parametrize("pending", [1, 500_000])
@pytest.mark.parametrize("kind", ["user", "device"])
def test_every_moment_from_the_position_on_is_right_and_every_other_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pending: int
) -> None:
    monkeypatch.setattr(streams.shown_verdicts, "_PENDING_ROWS", pending)
    made = written(tmp_path)
    states = [last_verdicts(made[:turn], kind) for turn in range(TURNS + 1)]
    found = 0
    for reached in range(TURNS + 1):
        for at in range(TURNS + 1):
            shown = held(states[at])
            stale = (
                {key for key in shown if states[max(at, reached)][key] != shown[key]}
                if at < reached
                else set()
            )
            result = compared(tmp_path, kind, shown, reached)
            assert {problem.split()[1].rstrip(":") for problem in result.problems} == stale
            assert (result.compared, result.unproven) == (len(shown), 0)
            found += len(stale)
    assert found > 20


def test_who_is_not_shown_any_more_is_counted(tmp_path: Path) -> None:
    last = last_verdicts(written(tmp_path), "user")
    shown = held(last)
    assert 1 < len(shown) < len(last)
    assert compared(tmp_path, "user", {}, TURNS).absent == len(shown)
    assert compared(tmp_path, "user", shown, TURNS).absent == 0
    # Nobody knows yet what Redis forgot and what it has not taken.
    assert compared(tmp_path, "user", {}, 0).absent == 0


@pytest.mark.parametrize(
    "field", ["level", "score", "event", "event_id", "ts", "campaign", "config_hash", "reasons"]
)
def test_any_field_that_differs_is_found(tmp_path: Path, field: str) -> None:
    shown = held(last_verdicts(written(tmp_path), "user"))
    key, entry = next((key, entry) for key, entry in shown.items() if entry and entry.score > 0)
    value = getattr(entry, field)
    other = {"reasons": (), "ts": 5, "score": 2.0}.get(field, f"{value}x")
    shown[key] = msgspec.structs.replace(entry, **{field: other})
    (problem,) = compared(tmp_path, "user", shown, TURNS).problems
    assert problem.startswith(f"user {key}: Redis shows ")
    assert " offset " in problem


def test_what_is_none_of_ours_and_who_never_was_are_found(tmp_path: Path) -> None:
    shown = held(last_verdicts(written(tmp_path), "user"))
    key, entry = next(iter(shown.items()))
    problems = compared(tmp_path, "user", {**shown, key: None, "f" * 32: entry}, TURNS).problems
    assert problems == [
        problem
        for problem in problems
        if "what nobody of us wrote" in problem or problem.endswith("have nothing")
    ]
    assert len(problems) == 2


@pytest.mark.parametrize("cuts", [True, False], ids=["cuts", "an entry of an earlier version"])
def test_two_topics_of_one_commit_have_the_order_of_their_turns(tmp_path: Path, cuts: bool) -> None:
    made = written(tmp_path, per_commit=2)
    if not cuts:
        for path in (tmp_path / "_log").glob("p*/*.json"):
            path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "cuts": []}))
    by_topic = [last_verdicts([turn], "user") for turn in made[-2:]]
    in_both = by_topic[0].keys() & by_topic[1].keys()
    for last, is_last in zip(by_topic, (False, True), strict=True):
        shown = held({key: last[key] for key in in_both})
        assert shown
        assert len(compared(tmp_path, "user", shown, TURNS).problems) == (
            0 if is_last or not cuts else len(shown)
        )


def test_compaction_changes_nothing_and_what_expired_is_unproven(tmp_path: Path) -> None:
    shown = held(last_verdicts(written(tmp_path, users=40), "user"))
    compacted(tmp_path)
    assert not compared(tmp_path, "user", shown, TURNS).problems
    expired(tmp_path)
    result = compared(tmp_path, "user", shown, TURNS)
    assert result.unproven > 0
    assert not result.problems

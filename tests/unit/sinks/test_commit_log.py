"""The log of commits and the account that it adds up to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from schemas.errors import StateError
from schemas.verdicts import Outcomes
from sinks.commit_log import (
    CommitLog,
    Entry,
    SourceAccount,
    account_of,
    claim_key,
    merged,
    read_accounts,
)
from sinks.durable_files import create_if_absent
from sinks.local_store import LocalStore
from tests.unit.sinks.turns import made_turn


def clicks(*ranges: tuple[int, int], verdicts: int = 0) -> SourceAccount:
    return SourceAccount("clicks", 0, ranges, verdicts, 0, 0, 0)


def log_of(root: Path, *cuts: tuple[int, int], partition: int = 0) -> CommitLog:
    """A log whose turn t judged the offsets [10 t, 10 t + 10) of clicks."""
    log = CommitLog(LocalStore(root), partition)
    total: tuple[SourceAccount, ...] = ()
    for first, next_ in cuts:
        account = (
            SourceAccount("clicks", partition, ((10 * first, 10 * next_),), 10 * (next_ - first), 0, 0, 0),
        )
        total = merged([*total, *account])
        entry = Entry(partition, first, next_, "folder", (), account, total)
        assert log.append(entry, by_way_of="entry")
    return log


def test_ranges_that_touch_become_one_and_counts_add_up() -> None:
    account = merged(
        [clicks((0, 5), verdicts=5), clicks((5, 7), verdicts=2), clicks((9, 9)), clicks((9, 10))]
    )
    assert account == (clicks((0, 7), (9, 10), verdicts=7),)


def test_sources_are_accounted_for_apart() -> None:
    turns = [made_turn(number).turn for number in range(6)]
    account = {source.topic: source for source in account_of(turns)}
    assert sorted(account) == ["clicks", "participations"]
    for topic, source in account.items():
        mine = [turn for turn in turns if turn.batch.topic == topic]
        assert source.partition == 3
        assert source.ranges == ((mine[0].batch.start, mine[-1].batch.next),)
        assert source.outcomes == Outcomes(
            sum(turn.outcomes.verdicts for turn in mine),
            sum(turn.outcomes.late for turn in mine),
            sum(turn.outcomes.duplicates for turn in mine),
            sum(turn.outcomes.rejected for turn in mine),
        )


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        (((0, 5), (7, 9)), ["clicks-0: offsets 5 to 6 are in no table"]),
        (((0, 5), (3, 9)), ["clicks-0: offsets 3 to 4 were judged twice"]),
        (((0, 5),), []),
        ((), []),
    ],
)
def test_ranges_that_do_not_meet_are_said(ranges: tuple[tuple[int, int], ...], said: list[str]) -> None:
    assert list(clicks(*ranges).problems()) == said


def test_of_two_writers_at_one_turn_one_commits(tmp_path: Path) -> None:
    log = log_of(tmp_path, (0, 3))
    second = Entry(0, 0, 5, "other", (), (), ())
    assert not log.append(second, by_way_of="entry")
    assert log.entry(0).next == 3
    assert not (tmp_path / "entry").exists()


def test_the_last_entry_is_found_without_reading_the_others(tmp_path: Path) -> None:
    log = log_of(tmp_path, (0, 3), (3, 4), (4, 100))
    (tmp_path / "_log" / "p0" / f"{0:020d}.json").write_text("not read")
    last = log.last()
    assert last is not None
    assert (last.first, last.next) == (4, 100)
    assert last.total == (clicks((0, 1000), verdicts=1000),)


def test_an_empty_log_has_no_last_entry(tmp_path: Path) -> None:
    assert log_of(tmp_path).last() is None


def test_an_entry_of_another_format_is_refused(tmp_path: Path) -> None:
    log = log_of(tmp_path, (0, 3))
    path = tmp_path / "_log" / "p0" / f"{0:020d}.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(StateError, match="format 2"):
        log.last()
    path.write_bytes(b'{"partition"')
    with pytest.raises(StateError, match="no commit that this version can read"):
        log.last()


def test_accounts_are_the_sum_over_all_partitions(tmp_path: Path) -> None:
    log_of(tmp_path, (0, 3), (3, 4))
    log_of(tmp_path, (0, 1), partition=1)
    accounts = read_accounts(LocalStore(tmp_path))
    assert accounts.problems == ()
    assert accounts.turns == {0: 4, 1: 1}
    assert [(source.partition, source.ranges, source.verdicts) for source in accounts.sources] == [
        (0, ((0, 40),), 40),
        (1, ((0, 10),), 10),
    ]


def test_accounts_of_nothing_are_empty(tmp_path: Path) -> None:
    assert read_accounts(LocalStore(tmp_path)).sources == ()


def test_a_commit_that_is_missing_in_the_chain_is_said(tmp_path: Path) -> None:
    log_of(tmp_path, (0, 3), (3, 4), (4, 6))
    (tmp_path / "_log" / "p0" / f"{3:020d}.json").unlink()
    accounts = read_accounts(LocalStore(tmp_path))
    assert accounts.problems == ("judge partition 0: the commits before turn 4 are missing",)
    assert accounts.turns == {0: 3}


def test_a_total_that_does_not_add_up_is_said(tmp_path: Path) -> None:
    log = log_of(tmp_path, (0, 3), (3, 4))
    path = tmp_path / "_log" / "p0" / f"{3:020d}.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(log.entry(3), total=(clicks((0, 40)),))))
    assert read_accounts(LocalStore(tmp_path)).problems == (
        "judge partition 0: the running total differs from the sum of the commits",
    )


def test_tables_of_one_key_refuse_another(tmp_path: Path) -> None:
    log_of(tmp_path)
    store = LocalStore(tmp_path)
    claim_key(store, "first", by_way_of="key")
    claim_key(store, "first", by_way_of="key")
    with pytest.raises(StateError, match="WOOLWATCH_KEY"):
        claim_key(store, "second", by_way_of="key")
    assert not (tmp_path / "key").exists()


def test_a_file_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    assert create_if_absent(tmp_path / "a", b"first", by_way_of=tmp_path / "b")
    assert not create_if_absent(tmp_path / "a", b"second", by_way_of=tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

"""Two who both believe to be alone, as in a bucket: whoever wakes up, and wherever, each row counts once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

import sinks.compaction
import sinks.local_store
import sinks.upkeep_journal
from schemas.errors import StateError
from sinks.compaction import plan_compaction
from sinks.local_store import LocalStore
from sinks.retention import plan_retention
from sinks.upkeep import carry_out, finish
from sinks.upkeep_journal import Plan, UpkeepJournal
from tests.unit.sinks.test_compaction import (
    DAY_MS,
    NOW_MS,
    STEPS,
    Stop,
    rows_of_tables,
    rows_of_view,
    stopping_at,
    told,
    written,
)

MODULES = (sinks.compaction, sinks.local_store, sinks.upkeep_journal)

Work: TypeAlias = Callable[[Path], None]
"""What somebody does to the tables in a folder."""


def plan_of(root: Path) -> Plan:
    return plan_compaction(LocalStore(root), settle_ms=DAY_MS, now_ms=NOW_MS)


def expiry_of(root: Path) -> Plan:
    return plan_retention(LocalStore(root), keep_ms=DAY_MS, now_ms=NOW_MS)


def compact_unlocked(root: Path) -> None:
    """Compact without asking whether somebody else does."""
    finish(LocalStore(root), told)
    carry_out(LocalStore(root), plan_of(root).steps, told)


def expire_unlocked(root: Path) -> None:
    finish(LocalStore(root), told)
    carry_out(LocalStore(root), expiry_of(root).steps, told)


def merge_again(root: Path) -> None:
    """So that what a step has made is merged into the output of a later one."""
    compact_unlocked(root)
    written(root, turns=8, first=8)
    compact_unlocked(root)


def compact_and_expire(root: Path) -> None:
    compact_unlocked(root)
    expire_unlocked(root)


def die_in_a_step(root: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stopping_at(patch, "compact.published", 1)
        with contextlib.suppress(Stop):
            compact_unlocked(root)


def work_with_pause(
    patch: pytest.MonkeyPatch, root: Path, work: Work, *, step: str, number: int, others: Work
) -> bool:
    """Stand still at a place while others work, then go on; returns whether that place was reached."""
    passes = iter(range(1, number + 1))
    stood: list[str] = []

    def pause(name: str) -> None:
        if not stood and name == step and next(passes, number) == number:
            stood.append(name)
            others(root)

    for module in MODULES:
        patch.setattr(module, "fault_point", pause)
    # As by a request that was on its way: what we have staged can still be published.
    patch.setattr(LocalStore, "remove_folder", lambda *_: None)
    with contextlib.suppress(StateError, OSError):  # we may see that we are not alone any more
        work(root)
    return bool(stood)


def assert_each_row_counts_once(root: Path) -> None:
    entries = [json.loads(path.read_bytes()) for path in root.glob("_log/p*/*.json")]
    for table, found in rows_of_view(root).items():
        committed = sum(
            file["rows"]
            for entry in entries
            for file in entry["files"]
            if file["path"].startswith(f"{table}/")
        )
        gone = sum(UpkeepJournal(LocalStore(root)).view(table).expired.values())
        assert max(found.values(), default=1) == 1
        assert sum(found.values()) + gone == committed


def assert_one_more_run_heals(root: Path) -> None:
    assert_each_row_counts_once(root)
    compact_unlocked(root)
    assert_each_row_counts_once(root)
    seen = {table: sum(rows.values()) for table, rows in rows_of_view(root).items()}
    assert {table: sum(rows.values()) for table, rows in rows_of_tables(root).items()} == seen
    assert UpkeepJournal(LocalStore(root)).begun_steps() == []


@pytest.mark.parametrize("others", [merge_again, compact_and_expire, die_in_a_step])
@pytest.mark.parametrize("step", STEPS)
def test_a_compaction_that_was_frozen_and_overtaken_harms_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, others: Work
) -> None:
    written(tmp_path)
    number = 3 if step == "store.removing" else 1
    with monkeypatch.context() as patch:
        assert work_with_pause(patch, tmp_path, compact_unlocked, step=step, number=number, others=others)
    assert_one_more_run_heals(tmp_path)


@pytest.mark.parametrize("others", [merge_again, compact_and_expire])
@pytest.mark.parametrize("step", ["upkeep.planned", "upkeep.decided", "store.removing"])
def test_a_retention_that_was_frozen_and_overtaken_harms_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, others: Work
) -> None:
    written(tmp_path)
    with monkeypatch.context() as patch:
        assert work_with_pause(patch, tmp_path, expire_unlocked, step=step, number=1, others=others)
    assert_one_more_run_heals(tmp_path)


@pytest.mark.parametrize("others", [merge_again, compact_and_expire, die_in_a_step])
def test_what_others_overtook_is_not_begun(tmp_path: Path, others: Work) -> None:
    written(tmp_path)
    plan = plan_of(tmp_path)
    others(tmp_path)
    before = rows_of_tables(tmp_path)
    with pytest.raises(StateError, match="is at work on"):
        carry_out(LocalStore(tmp_path), plan.steps, told)
    assert rows_of_tables(tmp_path) == before
    assert_one_more_run_heals(tmp_path)


def test_a_record_that_came_too_late_is_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody planned another date first, begins after the outcome of that number, and dies before seeing it."""
    written(tmp_path)
    store = LocalStore(tmp_path)
    first, other = plan_of(tmp_path).steps[:2]
    merge = msgspec.structs.replace(other.merges[0], output=first.merges[0].output)
    carry_out(store, [first], told)

    def die(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(UpkeepJournal, "outcome", die)
        with pytest.raises(Stop):
            UpkeepJournal(store).begin(msgspec.structs.replace(other, number=first.number, merges=(merge,)))
    assert store.names("_log/upkeep") == ["_log/upkeep/00000001.done.json", "_log/upkeep/00000001.json"]
    assert_one_more_run_heals(tmp_path)
    assert not [name for name in store.names("_log/upkeep") if not name.endswith(".done.json")]


def test_nothing_is_planned_while_a_step_is_not_at_its_end(tmp_path: Path) -> None:
    written(tmp_path)
    for place in ("compact.published", "upkeep.decided"):
        with pytest.MonkeyPatch.context() as patch:
            stopping_at(patch, place, 1)
            with pytest.raises(Stop):
                compact_unlocked(tmp_path)
        with pytest.raises(StateError, match="is at work on"):
            plan_of(tmp_path)
    assert_one_more_run_heals(tmp_path)


def test_of_two_outcomes_the_first_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who overtakes us can not read a file that we could: then its inputs stay, and our output goes."""
    written(tmp_path)

    def decide_against(root: Path) -> None:
        journal = UpkeepJournal(LocalStore(root))
        (step,) = journal.begun_steps()
        journal.decide(step)

    with monkeypatch.context() as patch:
        assert work_with_pause(
            patch, tmp_path, compact_unlocked, step="compact.published", number=1, others=decide_against
        )
    assert_one_more_run_heals(tmp_path)


@pytest.mark.parametrize("others", [merge_again, compact_and_expire])
def test_a_file_that_comes_back_counts_for_nobody_and_goes(tmp_path: Path, others: Work) -> None:
    written(tmp_path)
    compact_unlocked(tmp_path)
    made = {path: path.read_bytes() for path in tmp_path.glob("verdicts/*/c*.parquet")}
    others(tmp_path)
    back = [path for path in made if not path.exists()]
    assert back
    for path in back:
        path.write_bytes(made[path])
    assert_each_row_counts_once(tmp_path)
    planned = [name for step in expiry_of(tmp_path).steps for name in step.expired]
    assert not {path.name for path in back} & set(planned)
    assert_one_more_run_heals(tmp_path)
    assert not any(path.exists() for path in back)

"""Retention: dates that are old enough leave the tables, and it stays known how many rows of which source they had.

One date of one table is a step of the journal. As soon as the step is durable its files count as gone and its rows as
expired; then they are removed. Whoever dies on the way is followed by the next run. The empty folders stay: a writer
with a late row may be about to publish into one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.store import Store, side_by_side
from sinks.table_files import UNREADABLE, DateFolder, ended_folders, facts_of
from sinks.tables import Table
from sinks.upkeep_journal import Plan, SourceRows, Step, UpkeepJournal

_WITH_SOURCES = ("verdicts", "late")


def plan_retention(store: Store, *, keep_ms: int, now_ms: int) -> Plan:
    """What there is to remove; changes nothing. Reads which source each row is of, about 1 ms a file.

    Parameters
    ----------
    store
        Where the tables are.
    keep_ms
        How long before the newest date in the tables, and before now, a date must have ended.
    now_ms
        The wall clock, epoch ms.
    """
    steps: list[Step] = []
    problems: list[str] = []
    number = UpkeepJournal(store).next_number()
    for found in ended_folders(store, span_ms=keep_ms, now_ms=now_ms):
        facts, unreadable = facts_of(store, found)
        problems += unreadable
        names = tuple(file.name for file in facts)
        sources: tuple[SourceRows, ...] = ()
        if found.table in _WITH_SOURCES:
            try:
                sources = _sources(store, found, names)
            except UNREADABLE as error:
                problems.append(f"{store}/{found.path}: found {error}; its files stay")
                continue
        if names:
            rows = sum(file.rows for file in facts)
            step = Step(number + len(steps), found.table, found.folder, len(names), 0, rows, expired=names)
            steps.append(msgspec.structs.replace(step, expired_rows=sources))
    return Plan(tuple(steps), tuple(problems))


def expire(store: Store, step: Step) -> None:
    """Do a step that is in the journal, from wherever somebody left it."""
    journal = UpkeepJournal(store)
    journal.clear(step, journal.decide(step))


def _sources(store: Store, found: DateFolder, names: Sequence[str]) -> tuple[SourceRows, ...]:
    """How many rows of each source some files have."""

    def read(name: str) -> Table:
        with store.open(f"{found.path}/{name}") as file, pq.ParquetFile(file) as parquet:
            rows = parquet.read(columns=["topic", "partition"], use_threads=False)
        return rows.group_by(["topic", "partition"]).aggregate([([], "count_all")])

    counted = side_by_side(read, names)
    if not counted:
        return ()
    totals = pa.concat_tables(counted).group_by(["topic", "partition"]).aggregate([("count_all", "sum")])
    rows = (tuple(row[key] for key in ("topic", "partition", "count_all_sum")) for row in totals.to_pylist())
    return tuple(SourceRows(*row) for row in sorted(rows))

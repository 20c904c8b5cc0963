"""Reconcile: every record that was consumed stands in the tables, once, or in the account of what did not.

For each topic-partition: rows of ``verdicts/`` and ``late/`` + duplicates + rejected == records in the log, over the
offsets that the commits cover. Rows are counted in the Parquet files themselves, records in Kafka; the engine's own
counters are only used for what leaves no row. It joins no consumer group and may run beside the workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from kafka import IsolationLevel, KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from schemas.errors import DataLossError, StateError
from schemas.events import TOPICS
from sinks.commit_log import SourceAccount, read_accounts
from sinks.store import Store, side_by_side
from sinks.upkeep_journal import UpkeepJournal, View
from streams.first_contact import reach_store
from streams.security import kafka_brokers
from streams.settings import Settings
from streams.topics import open_topics

_POLL_MS = 1_000
_ATTEMPTS = 20
_PAUSE_S = 0.2

Moving: TypeAlias = Sequence[tuple[str, str]]
"""Of files that may wait to be published: where they wait, where they will stand."""


class SourceReport(msgspec.Struct, frozen=True):
    """One topic-partition.

    Parameters
    ----------
    topic, partition
        Which.
    first, next
        The offsets that the commits cover.
    consumed
        Records that Kafka has there.
    verdicts, late
        Rows in the tables.
    expired
        Rows that were in them until ``woolwatch expire`` removed their dates.
    duplicates, rejected
        From the account of the commits.
    waiting
        Records behind ``next`` that are not judged yet.
    difference
        consumed - (verdicts + late + expired + duplicates + rejected); 0 where the identity holds.
    """

    topic: str
    partition: int
    first: int
    next: int
    consumed: int
    verdicts: int
    late: int
    expired: int
    duplicates: int
    rejected: int
    waiting: int
    difference: int


class Report(msgspec.Struct, frozen=True):
    """The whole answer; ``problems`` are sentences, empty where all is well."""

    sources: tuple[SourceReport, ...]
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every record is accounted for."""
        return not self.problems


def reconcile(settings: Settings) -> Report:
    """Account for every record up to the newest commit.

    Raises
    ------
    UnreachableError
        Kafka or the store of the tables did not answer.
    RefusedError
        One of them does not let us in.
    """
    store = settings.out_store
    reach_store(store, writing=False, wait_s=settings.wait_s)
    accounts = read_accounts(store)
    with open_topics(kafka_brokers(settings), wait_s=settings.wait_s) as topics:
        # In this order: a topic that is made meanwhile has no end yet, rather than no beginning.
        ends = {role: topics.end_offsets(settings.topic(role)) for role in TOPICS}
        begins = {role: topics.begin_offsets(settings.topic(role)) for role in TOPICS}
    by_source = {(account.topic, account.partition): account for account in accounts.sources}
    reports, problems = [], list(accounts.problems)
    for role in TOPICS:
        for tp, end in sorted(ends[role].items()):
            account = by_source.get((role, tp.partition))
            if account is None:
                reports.append(_nothing_yet(role, tp.partition, begins[role][tp], end))
                continue
            report, found = _compare(settings, store, account, accounts.moving, begins[role][tp], end)
            reports.append(report)
            problems += found
    return Report(tuple(reports), tuple(problems))


def _nothing_yet(role: str, partition: int, begin: int, end: int) -> SourceReport:
    return SourceReport(role, partition, begin, begin, 0, 0, 0, 0, 0, 0, end - begin, 0)


def _compare(
    settings: Settings, store: Store, account: SourceAccount, moving: Moving, begin: int, end: int
) -> tuple[SourceReport, list[str]]:
    place = f"{account.topic}-{account.partition}"
    first, next_ = account.ranges[0][0], account.ranges[-1][1]
    problems: list[str] = []
    counts, expired = {}, 0
    for table in ("verdicts", "late"):
        offsets, gone = row_offsets(store, table, account, next_, moving)
        counts[table] = len(offsets)
        expired += gone
        twice = len(offsets) - len(np.unique(offsets))
        if twice:
            problems.append(f"{place}: {twice} offsets have more than one row in {table}/")
    accounted = counts["verdicts"] + counts["late"] + expired + account.duplicates + account.rejected
    consumed = next_ - first
    if accounted != consumed:
        # Compaction and transaction markers leave holes: then only counting tells.
        consumed = _count_records(settings, account, first, next_, begin)
    if accounted != consumed:
        problems.append(f"{place}: {consumed} records were consumed, {accounted} are accounted for")
    if next_ > end:
        problems.append(
            f"{place}: the tables reach offset {next_}, the log ends at {end}: the topic was made anew"
        )
    report = SourceReport(
        account.topic,
        account.partition,
        first,
        next_,
        consumed,
        counts["verdicts"],
        counts["late"],
        expired,
        account.duplicates,
        account.rejected,
        max(0, end - next_),
        consumed - accounted,
    )
    return report, problems


def row_offsets(
    store: Store, table: str, account: SourceAccount, next_: int, moving: Moving
) -> tuple[NDArray[np.int64], int]:
    """Offsets of a source's rows in a table, up to what the accounts cover, and how many rows retention has removed.

    Files that come meanwhile do not count.
    """
    journal = UpkeepJournal(store)
    for attempt in range(_ATTEMPTS):
        files, expired = _files_of(store, journal, table, moving)
        try:
            found = side_by_side(partial(_offsets_in, store, account, next_), files)
        except FileNotFoundError as error:  # published, compacted or expired while we looked
            if attempt + 1 == _ATTEMPTS:
                raise StateError(
                    f"the files of {store}/{table} change all the while (compact, expire): try again later"
                ) from error
            time.sleep(_PAUSE_S)
        else:
            offsets = np.concatenate([np.empty(0, np.int64), *found])
            return offsets, expired.get((account.topic, account.partition), 0)
    raise AssertionError("the last attempt returns or raises")


def _offsets_in(store: Store, account: SourceAccount, next_: int, name: str) -> NDArray[np.int64]:
    with store.open(name) as file, pq.ParquetFile(file) as parquet:
        rows = parquet.read(columns=["topic", "partition", "offset"], use_threads=False)
    wanted = (
        (pc.field("topic") == account.topic)
        & (pc.field("partition") == account.partition)
        & (pc.field("offset") < next_)
    )
    return np.asarray(rows.filter(wanted)["offset"].to_numpy(), np.int64)


def _files_of(store: Store, journal: UpkeepJournal, table: str, moving: Moving) -> View:
    """A table with the files of the newest commit where they wait if they are not published yet."""
    staged = {
        name for folder in {staged.rpartition("/")[0] for staged, _ in moving} for name in store.names(folder)
    }
    # In this order: what is published meanwhile stands in both, not in none.
    standing, expired = journal.view(table)
    waiting = [
        name
        for name, target in moving
        if name in staged and target.startswith(f"{table}/") and target not in standing
    ]
    return View([*standing, *waiting], expired)


def _count_records(settings: Settings, account: SourceAccount, first: int, next_: int, begin: int) -> int:
    """Read the range and count: without a group, committed records only.

    Raises
    ------
    DataLossError
        The broker does not keep the range any more.
    """
    if begin > first:
        raise DataLossError(
            f"{account.topic}-{account.partition} begins at offset {begin}; the identity needs {first} and later"
        )
    return sum(1 for offset in _offsets(settings, account, first, next_) if offset < next_)


def _offsets(settings: Settings, account: SourceAccount, first: int, next_: int) -> Iterator[int]:
    consumer = KafkaConsumer(
        **kafka_brokers(settings).kafka_python_options(),
        group_id=None,
        enable_auto_commit=False,
        isolation_level=IsolationLevel.READ_COMMITTED,
    )
    tp = TopicPartition(settings.topic(account.topic), account.partition)
    try:
        consumer.assign([tp])
        consumer.seek(tp, first)
        while consumer.position(tp) < next_:
            for records in consumer.poll(timeout_ms=_POLL_MS).values():
                yield from (record.offset for record in records)
    finally:
        consumer.close()


def as_text(report: Report) -> str:
    """The report as a table for people."""
    head = (
        "topic",
        "partition",
        "offsets",
        "consumed",
        "verdicts",
        "late",
        "expired",
        "duplicates",
        "rejected",
        "waiting",
        "difference",
    )
    rows = [head] + [
        (
            source.topic,
            str(source.partition),
            f"{source.first}–{source.next}",
            *(f"{value:,}" for value in _numbers(source)),
        )
        for source in report.sources
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(_cell(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    verdict = "every record is accounted for" if report.holds else "NOT every record is accounted for:"
    return "\n".join([*lines, "", verdict, *(f"  {problem}" for problem in report.problems)])


def _cell(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _numbers(source: SourceReport) -> Sequence[int]:
    return (
        source.consumed,
        source.verdicts,
        source.late,
        source.expired,
        source.duplicates,
        source.rejected,
        source.waiting,
        source.difference,
    )

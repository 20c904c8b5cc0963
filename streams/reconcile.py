"""Reconcile: every record that was consumed stands in the tables, once, or in the account of what did not.

For each topic-partition: rows of ``verdicts/`` and ``late/`` + duplicates + rejected == records in the log, over the
offsets that the commits cover. Rows are counted in the Parquet files themselves, records in Kafka; the engine's own
counters are only used for what leaves no row. It joins no consumer group and may run beside the workers. What Redis
shows is compared with the same tables, where that is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from kafka import IsolationLevel, KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from schemas.errors import DataLossError
from schemas.events import TOPICS
from sinks.commit_log import SourceAccount, read_accounts
from sinks.redis_contents import RedisContents
from sinks.store import Store
from streams.first_contact import reach_redis, reach_store
from streams.reconcile_redis import RedisReport, reconcile_redis
from streams.security import kafka_brokers, redis_client
from streams.settings import Settings
from streams.table_rows import Moving, read_files
from streams.topics import open_topics

_POLL_MS = 1_000


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
    """The whole answer.

    ``problems`` are sentences, empty where all is well; ``redis`` is None where it was not read.
    """

    sources: tuple[SourceReport, ...]
    problems: tuple[str, ...]
    redis: RedisReport | None = None

    @property
    def holds(self) -> bool:
        """Whether every record is accounted for, and Redis shows what it has to."""
        return not self.problems


def reconcile(settings: Settings, *, with_redis: bool = False) -> Report:
    """Account for every record up to the newest commit; ``with_redis`` compares what Redis shows, too.

    Raises
    ------
    UnreachableError
        Kafka, the store of the tables or Redis did not answer.
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
    redis = None
    if with_redis:
        redis, found = asyncio.run(_reconcile_redis(settings, store))
        problems += found
    return Report(tuple(reports), tuple(problems), redis)


async def _reconcile_redis(settings: Settings, store: Store) -> tuple[RedisReport, list[str]]:
    await reach_redis(settings)
    client = redis_client(settings)
    try:
        return await reconcile_redis(RedisContents(client, settings.namespace), store)
    finally:
        await client.aclose()


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
    if consumed < accounted and _is_compacted(settings, account.topic):
        consumed = accounted  # since they were judged, newer ones of the same key have come
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
    found, view = read_files(store, table, moving, partial(_offsets_in, store, account, next_))
    offsets = np.concatenate([np.empty(0, np.int64), *found])
    return offsets, view.expired.get((account.topic, account.partition), 0)


def _offsets_in(store: Store, account: SourceAccount, next_: int, name: str) -> NDArray[np.int64]:
    with store.open(name) as file, pq.ParquetFile(file) as parquet:
        rows = parquet.read(columns=["topic", "partition", "offset"], use_threads=False)
    wanted = (
        (pc.field("topic") == account.topic)
        & (pc.field("partition") == account.partition)
        & (pc.field("offset") < next_)
    )
    return np.asarray(rows.filter(wanted)["offset"].to_numpy(), np.int64)


def _is_compacted(settings: Settings, role: str) -> bool:
    with open_topics(kafka_brokers(settings), wait_s=settings.wait_s) as topics:
        return topics.is_compacted(settings.topic(role))


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
    verdict = "every record is accounted for" if report.holds else "NOT all is well:"
    problems = (f"  {problem}" for problem in report.problems)
    return "\n".join([*lines, "", _redis_line(report.redis), verdict, *problems])


def _redis_line(redis: RedisReport | None) -> str:
    if redis is None:
        return "Redis was not read; --redis says where it is"
    said = [f"{redis.verdicts:,} verdicts and {redis.numbers:,} numbers compared with the tables"]
    if redis.absent:
        said.append(f"{redis.absent:,} not shown that it forgot, or that are older than 30 days")
    if redis.unproven:
        said.append(f"{redis.unproven:,} of dates that have expired")
    waiting = (f"\n  waits for a worker: {sentence}" for sentence in redis.waiting)
    return f"Redis: {'; '.join(said)}{''.join(waiting)}"


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

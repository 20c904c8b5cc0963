"""A worker that the transport's tests start, stop and kill: it counts every offset in a SQLite file.

The file is the sink: one transaction per batch, guarded by the partition's position, as in every sink here.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

from aiokafka.errors import CorruptRecordException
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from schemas.errors import Abandoned
from streams.batch_thread import BatchThread, Placement
from streams.transport import TP, Batch, BatchApp, Brokers, FetchOptions, batch_agent, consumer_of, make_app

Fetched = Mapping[TP, list[Any]]

SCHEMA = """
create table if not exists positions (topic text, partition int, next int, primary key (topic, partition));
create table if not exists seen (topic text, partition int, "offset" int, value blob);
create table if not exists batches
    (worker text, topic text, partition int, start int, next int, generation int);
create table if not exists happened (worker text, what text, topic text, partition int, detail int);
"""


def open_sink(path: Path) -> sqlite3.Connection:
    """Open the file, which several workers write at the same time."""
    sink = sqlite3.connect(path, isolation_level=None, timeout=30)
    sink.execute("pragma journal_mode = wal")
    # The tests kill processes, not the machine.
    sink.execute("pragma synchronous = off")
    sink.executescript(SCHEMA)
    return sink


class Sink:
    """What one worker writes."""

    def __init__(self, path: Path, worker: str) -> None:
        self._connection = open_sink(path)
        self._worker = worker

    def position(self, tp: TP) -> int | None:
        """Return the offset from which on nothing is written yet."""
        row = self._connection.execute(
            "select next from positions where topic = ? and partition = ?", tp
        ).fetchone()
        return None if row is None else int(row[0])

    def write(self, batch: Batch) -> None:
        """Count the batch's records from the position on; a batch that begins above it must never come."""
        sink = self._connection
        sink.execute("begin immediate")
        position = self.position(batch.tp)
        if position is not None and batch.start > position:
            raise AssertionError(f"{batch} begins above {position}")
        rest = batch if position is None else batch.after(position)
        rows = [(*rest.tp, record.offset, record.value) for record in rest.records]
        sink.executemany("insert into seen values (?, ?, ?, ?)", rows)
        range_ = (batch.start, batch.next, batch.generation)
        sink.execute("insert into batches values (?, ?, ?, ?, ?, ?)", (self._worker, *batch.tp, *range_))
        if position is None or batch.next > position:
            sink.execute("replace into positions values (?, ?, ?)", (*batch.tp, batch.next))
        sink.execute("commit")

    def note(self, what: str, tp: TP, detail: int) -> None:
        """Write down that something happened."""
        self._connection.execute(
            "insert into happened values (?, ?, ?, ?, ?)", (self._worker, what, *tp, detail)
        )


class Hooks:
    """Positions of a time, the sink or the group, and waits that must be let go."""

    app: BatchApp

    def __init__(self, sink: Sink, *, from_sink: bool, from_time_ms: int) -> None:
        self._sink = sink
        self._from_sink = from_sink
        self.from_time_ms = from_time_ms
        self.abandoned = asyncio.Event()

    async def start_positions(self, tps: Collection[TP]) -> Mapping[TP, int]:
        """Take the offsets of a time, the sink's positions, or leave it to the group."""
        self.abandoned.clear()
        for tp in tps:
            self._sink.note("assigned", tp, 0)
        if self.from_time_ms:
            return await consumer_of(self.app).offsets_for_times(dict.fromkeys(tps, self.from_time_ms))
        positions = {tp: self._sink.position(tp) for tp in tps} if self._from_sink else {}
        return {tp: position for tp, position in positions.items() if position is not None}

    def abandon(self, generation: int) -> None:
        """Let the waiting handlers go."""
        self._sink.note("abandoned", TP("", 0), generation)
        self.abandoned.set()

    def on_data_loss(self, tp: TP, expected: int, found: int) -> bool:
        """Accept nothing; the test reads the log."""
        self._sink.note("lost", tp, found - expected)
        return False


class Counter:
    """The handler of all topics."""

    def __init__(self, app: BatchApp, sink: Sink, hooks: Hooks, arguments: argparse.Namespace) -> None:
        self._app, self._sink, self._hooks = app, sink, hooks
        self._work_s = arguments.work_ms / 1000
        self._waits = arguments.waits
        self._fails = arguments.fails
        self._hold = Path(arguments.hold) if arguments.hold else None

    async def count(self, batches: AsyncIterator[Batch]) -> None:
        """Write every batch, then mark it durable; with ``--waits`` wait for an answer that never comes."""
        async for batch in batches:
            try:
                await self._answer(batch)
            except Abandoned:
                continue
            await asyncio.sleep(self._work_s)
            self._sink.write(batch)
            consumer_of(self._app).mark_durable(batch.tp, batch.start, batch.next, batch.generation)

    async def _answer(self, batch: Batch) -> None:
        while self._hold is not None and self._hold.exists():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.02)
        if self._fails:
            raise ValueError("as the test wants it")
        if self._waits:
            self._sink.note("waiting", batch.tp, batch.start)
            await self._hooks.abandoned.wait()
            raise Abandoned(str(batch))


async def run(arguments: argparse.Namespace) -> None:
    """Work until SIGTERM."""
    sink = Sink(Path(arguments.sink), arguments.name)
    hooks = Hooks(sink, from_sink=arguments.from_sink, from_time_ms=arguments.from_time_ms)
    app = hooks.app = make_app(
        arguments.name,
        brokers=Brokers(arguments.brokers),
        group=arguments.group,
        positions=hooks,
        fetch=FetchOptions(max_records=arguments.max_records),
        session_timeout_s=arguments.session_s,
    )
    counter = Counter(app, sink, hooks, arguments)
    for topic in arguments.topics.split(","):
        batch_agent(app, topic, counter.count)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    watching = asyncio.create_task(watch(app, sink))
    await stop.wait()
    watching.cancel()
    await app.stop()


async def watch(app: BatchApp, sink: Sink) -> None:
    """Note at which position a partition stands whenever it has caught up with its log."""
    noted: dict[TP, int] = {}
    while True:
        for tp in app.consumer.assignment():
            standing = consumer_of(app).standing(tp)
            if standing is not None and standing.caught_up and noted.get(tp) != standing.position:
                noted[tp] = standing.position
                sink.note("caught up", tp, standing.position)
        await asyncio.sleep(0.02)


def lose_batches() -> None:
    """Break the client: of three fetches one fails after it took its records, one gets lost later."""
    fetches = itertools.count()
    fetch, hand_on = AIOKafkaConsumerThread._fetch_records, BatchThread._batches

    async def failing(self: AIOKafkaConsumerThread, *args: object, **options: object) -> Fetched:
        fetched: Fetched = await fetch(self, *args, **options)  # type: ignore[arg-type]
        if fetched and next(fetches) % 3 == 0:
            raise CorruptRecordException("as the test wants it")
        return fetched

    def losing(self: BatchThread, fetched: Fetched, placement: Placement | None) -> Fetched:
        batches = hand_on(self, fetched, placement)
        return {} if next(fetches) % 3 == 1 else batches

    AIOKafkaConsumerThread._fetch_records = failing  # type: ignore[method-assign]
    BatchThread._batches = losing  # type: ignore[method-assign]


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser()
    for name in ("name", "brokers", "group", "topics", "sink"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--work-ms", type=int, default=0)
    parser.add_argument("--max-records", type=int, default=5_000)
    parser.add_argument("--session-s", type=float, default=6.0)
    parser.add_argument("--hold", default="", help="do not write while this file exists")
    parser.add_argument("--from-time-ms", type=int, default=0)
    parser.add_argument("--loses", action="store_true", help="break the client, see lose_batches")
    parser.add_argument("--from-sink", action="store_true")
    parser.add_argument("--waits", action="store_true")
    parser.add_argument("--fails", action="store_true")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    arguments = parser.parse_args()
    if arguments.loses:
        lose_batches()
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()

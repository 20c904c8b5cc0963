"""Everything that leaves one judge partition, each way with a position of its own and none ever ahead of the log.

Verdicts wait here in memory until a sink takes them: Redis many times a second, Parquet every few seconds, one call
and one commit for many turns. A sink that is away makes them wait and, past a bound, the judge too.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

import msgspec

from schemas.errors import Abandoned, FencedError, StateError, UnreachableError
from schemas.partials import KPI, KPI_METRICS, Block
from schemas.verdicts import Verdicts
from sinks.dead_letters import dead_letters
from sinks.faults import fault_point
from sinks.parquet import ParquetSink
from sinks.patience import patiently
from sinks.redis import RedisSink
from sinks.redis_contents import RedisContents
from sinks.redis_functions import ForgottenError
from streams.context import Context
from streams.redis_restore import RedisRestore
from streams.sealed import seal_with

log = logging.getLogger(__name__)

PARQUET_INTERVAL_S = 4.0
PARQUET_ROWS = 100_000
REDIS_INTERVAL_S = 0.1
MAX_WAITING_ROWS = 400_000
_LOOK_S = 5.0
"""So often Redis is asked whether it still knows everything, while there is nothing to write."""
_BLOCKS_RECORD_BYTES = 512 * 1024

_encoder = msgspec.msgpack.Encoder()


class Outputs:
    """The sinks of one judge partition.

    Parameters
    ----------
    partition
        Which one.
    context
        Shared settings and connections.
    """

    def __init__(self, partition: int, context: Context) -> None:
        self._partition, self._context = partition, context
        self._parquet = ParquetSink(
            context.settings.out_store, partition, key_fingerprint=context.ring.fingerprint
        )
        self._seal = seal_with(context.ring)
        self._redis = RedisSink(
            context.redis,
            partition=partition,
            key_fingerprint=context.ring.fingerprint,
            namespace=context.settings.namespace,
        )
        self._for_parquet: deque[Verdicts] = deque()
        self._for_redis: deque[Verdicts] = deque()
        self._waiting_rows = 0
        self._moved = asyncio.Condition()
        self._flush_now = asyncio.Event()
        self._closing = self._fenced = False
        self._looked_s = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._restoring: asyncio.Task[None] | None = None

    async def open(
        self, turn: int, *, epoch: int, letters_position: int, sent_letters: Collection[bytes]
    ) -> None:
        """Find out where each sink stands, and begin to write.

        Parameters
        ----------
        turn
            Where the state stands.
        epoch
            Of this ownership; larger than that of every earlier one.
        letters_position, sent_letters
            Offset behind the last dead letter in its topic, and the keys of those that were sent after the state.

        Raises
        ------
        StateError
            The tables end before the state: rows between them can not be made again.
        """
        self.checkpointed, self._epoch = turn, epoch
        self.letters_position, self._sent_letters = letters_position, set(sent_letters)
        self._parquet_turn = await patiently("the tables", lambda: asyncio.to_thread(self._parquet.open))
        if self._parquet_turn < turn:
            raise StateError(
                f"the tables of partition {self._partition} end before turn {self._parquet_turn}, the state stands at "
                f"turn {turn}: give --out the folder that belongs to this --state, or --state a new folder"
            )
        self._redis_turn = await self._take_over_redis(turn)
        self._tasks = [
            self._context.start(self._parquet_loop(), f"parquet {self._partition}"),
            self._context.start(self._redis_loop(), f"redis {self._partition}"),
        ]

    async def _take_over_redis(self, turn: int) -> int:
        self._stop_restoring()
        position = await patiently("Redis", lambda: self._redis.take_over(epoch=self._epoch, turn=turn))
        if self._redis.lacks is not None:
            store, namespace = self._context.settings.out_store, self._context.settings.namespace
            restore = RedisRestore(
                self._redis, RedisContents(self._context.redis, namespace), store, self._partition
            )
            self._restoring = self._context.start(restore.run(), f"restoring Redis {self._partition}")
        return position

    def _stop_restoring(self) -> None:
        """What is not restored then, Redis knows that it lacks it."""
        if self._restoring is not None:
            self._restoring.cancel()
            self._restoring = None

    # -- from the judge ------------------------------------------------------------------------------------------

    def put(self, verdicts: Verdicts) -> None:
        """Take the verdicts of one turn; turns that a sink already has are not given to it again."""
        if verdicts.turn >= self._parquet_turn:
            self._for_parquet.append(verdicts)
            self._waiting_rows += len(verdicts.batch)
            if self._waiting_rows >= PARQUET_ROWS:
                self._flush_now.set()
        if verdicts.turn >= self._redis_turn:
            self._for_redis.append(verdicts)

    @property
    def waiting_rows(self) -> int:
        """Rows that the tables do not have yet."""
        return self._waiting_rows

    async def room(self) -> None:
        """Wait while too much waits for the sinks."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._waiting_rows < MAX_WAITING_ROWS or self._closing)

    async def reach(self, turn: int) -> None:
        """Wait until every sink has all turns below ``turn``.

        Raises
        ------
        Abandoned
            A newer owner of the partition writes to the sinks.
        """
        self._flush_now.set()
        async with self._moved:
            await self._moved.wait_for(
                lambda: self._fenced or min(self._parquet_turn, self._redis_turn) >= turn
            )
        if self._fenced:
            raise Abandoned(f"partition {self._partition} has a newer owner")

    async def publish(self, blocks: Sequence[Block]) -> None:
        """Send counts to the rollup; returns when they are durable in its topic."""
        sent = []
        for partition, value in _records(blocks, self._context.partitions):
            sent.append(await self._context.send("partials", partition, value))
        for ack in sent:
            await ack

    # -- to the sinks --------------------------------------------------------------------------------------------

    async def _parquet_loop(self) -> None:
        while not (self._closing and not self._for_parquet):
            if not self._closing:
                await _wait(self._flush_now, PARQUET_INTERVAL_S)
            self._flush_now.clear()
            turns = list(self._for_parquet)
            if turns:
                await self._write_parquet(turns)

    async def _write_parquet(self, turns: list[Verdicts]) -> None:
        await self._send_dead_letters(turns)
        position = await patiently("the tables", lambda: asyncio.to_thread(self._parquet.write, turns))
        async with self._moved:
            self._parquet_turn = max(position, self._parquet_turn)
            while self._for_parquet and self._for_parquet[0].turn < self._parquet_turn:
                self._waiting_rows -= len(self._for_parquet.popleft().batch)
            self._moved.notify_all()

    async def _send_dead_letters(self, turns: Iterable[Verdicts]) -> None:
        sent = [
            await self._context.send("deadletters", self._partition, value, key)
            for verdicts in turns
            for key, value in dead_letters(verdicts.batch, self._seal)
            if key not in self._sent_letters
        ]
        self._context.meters.count("dead_letters_total", str(self._partition), by=len(sent))
        for ack in sent:
            self.letters_position = max(self.letters_position, await ack + 1)
        fault_point("dead_letters.sent")

    async def _redis_loop(self) -> None:
        while not (self._closing and not self._for_redis):
            if not self._for_redis:
                await asyncio.sleep(0 if self._closing else REDIS_INTERVAL_S)
                await self._look_at_redis()
                continue
            turns = [self._for_redis.popleft() for _ in range(len(self._for_redis))]
            try:
                position = await self._write_redis(turns)
            except FencedError as error:
                log.warning("partition %d has a newer owner: %s", self._partition, error)
                self._for_redis.clear()
                self._fenced, position = True, self._redis_turn
            fault_point("redis.written")
            async with self._moved:
                self._redis_turn = max(position, self._redis_turn)
                self._moved.notify_all()

    async def _look_at_redis(self) -> None:
        """Find out from time to time what Redis has forgotten while nothing is written."""
        if self._closing or self._fenced or time.monotonic() - self._looked_s < _LOOK_S:
            return
        self._looked_s = time.monotonic()
        try:
            await self._redis.look()
        except UnreachableError:
            return  # whoever writes next waits for it, and says so
        except ForgottenError as error:
            log.error("%s", error)
            with suppress(FencedError):  # found out at the next write
                await self._take_over_redis(self._redis_turn)

    async def _write_redis(self, turns: list[Verdicts]) -> int:
        while True:
            try:
                return await patiently("Redis", lambda: self._redis.write(turns))
            except ForgottenError as error:
                log.error("%s", error)
                await self._take_over_redis(turns[0].turn)

    async def close(self) -> None:
        """Write what waits, then end the loops."""
        self._closing = True
        self._stop_restoring()
        self._flush_now.set()
        async with self._moved:
            self._moved.notify_all()
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        """End the loops at once; what waits is judged again by the next owner."""
        self._stop_restoring()
        for task in self._tasks:
            task.cancel()


def rollup_partition(block: Block, partitions: int) -> int:
    """Where a block is merged: a function of its key alone; all windows of a KPI alert meet in one place."""
    key = block.key
    place = (KPI, key.name, key.scope) if key.metric in KPI_METRICS else key
    return zlib.crc32(_encoder.encode(place)) % partitions


def _records(blocks: Sequence[Block], partitions: int) -> list[tuple[int, bytes]]:
    """Blocks by rollup partition, many to a record, no record much above half a megabyte."""
    records: list[tuple[int, bytes]] = []
    open_: dict[int, list[Block]] = {}
    sizes: dict[int, int] = {}
    for block in blocks:
        partition = rollup_partition(block, partitions)
        open_.setdefault(partition, []).append(block)
        sizes[partition] = sizes.get(partition, 0) + len(block.rows) + 200
        if sizes[partition] >= _BLOCKS_RECORD_BYTES:
            records.append((partition, _encoder.encode(open_.pop(partition))))
            del sizes[partition]
    records += [(partition, _encoder.encode(group)) for partition, group in open_.items()]
    return records


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return

"""The batch transport on the application's loop: handing on, durable positions, draining.

Faust 0.15.3 counts acknowledged messages to know what to commit, which is wrong for batches in several ways
(a message marks itself as skippable, a revoke drops acknowledgements before the drain, an exception
acknowledges). So acknowledgements are ignored here and only explicit durable positions are committed.

Three rules keep it exact:

- A batch is handed on only if it starts where the last one ended; otherwise the client is sent back there.
- A mark is contiguous and of the present generation; a hole stops the process, a stale mark is refused.
- A loss is never stepped over without the application's consent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from schemas.errors import DataLossError, StateError, WoolwatchError
from streams.batch_thread import RETRY_S, BatchThread, FetchOptions, Standing
from streams.batches import Batch
from streams.fatal import stop_process
from streams.positions import Bounds, DurablePositions, Positions, loss_sentence, start_offset

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

DRAIN_SHARE = 0.5
"""Of the rebalance timeout; the broker throws out whoever takes all of it."""

LAST_COMMIT_S = 4.0
SETTLE_S = 5.0
GROUP_WATCH_S = 1.0


class ReadOffsets(dict[TP, int | None]):
    """Faust's memory of the last offset read, by which it drops older messages; batches are exempt.

    Faust sets it after a message was handed on, also when the partition was sent back in the meantime, and
    then drops the batches in between without a word.
    """

    def __init__(self, applies_to: Callable[[TP], bool]) -> None:
        super().__init__()
        self._applies_to = applies_to

    def __missing__(self, tp: TP) -> None:
        """Nothing was read, so nothing is dropped."""
        return

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        """Remember it for changelogs only."""
        if self._applies_to(tp):
            super().__setitem__(tp, offset)


class BatchConsumer(driver.Consumer):
    """Faust's consumer for batches.

    Parameters
    ----------
    transport
        The Faust transport.
    positions
        The application's knowledge of positions.
    options
        How to fetch.
    """

    _thread: BatchThread

    def __init__(
        self, transport: driver.Transport, *, positions: Positions, options: FetchOptions, **kwargs: Any
    ) -> None:
        self._positions = positions
        self._options = options
        self._durable = DurablePositions()
        self._handed_on: dict[TP, int] = {}
        self._placing: asyncio.Task[None] | None = None
        self._placing_for: Any = None
        self._held_bytes: Counter[TP] = Counter()
        self._held_batches: Counter[TP] = Counter()
        self._in_progress: set[Batch] = set()
        self._finished = asyncio.Event()
        super().__init__(transport, **kwargs)
        self._read_offset = ReadOffsets(self._is_changelog_tp)

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, self._options, loop=self.loop, beacon=self.beacon)

    # -- what agents use

    def is_current(self, generation: int) -> bool:
        """Whether a batch of that generation may still be started; False as soon as its partitions leave."""
        return self._durable.is_current(generation)

    @property
    def generation(self) -> int | None:
        """The group generation whose partitions are owned and placed; None between two."""
        return self._durable.generation

    def durable(self, tp: TP) -> int | None:
        """Return the offset up to which everything is durable; None for a partition that is not owned."""
        return self._durable.get(tp)

    def durable_positions(self) -> Mapping[TP, int]:
        """Return a copy of the durable positions of all owned partitions."""
        return self._durable.items()

    def is_behind(self, tp: TP) -> bool:
        """Whether a partition has input that is not durable; a trailing transaction marker is none."""
        durable, standing = self._durable.get(tp), self.standing(tp)
        if durable is None or standing is None:
            return False
        return self._handed_on[tp] > durable or not standing.caught_up

    def mark_durable(self, tp: TP, start: int, next: int, generation: int) -> bool:
        """Note that every sink has [start, next); the offset is committed within the commit interval.

        Returns
        -------
        bool
            False when a rebalance took the partition: drop the result, the next owner makes it again.

        Notes
        -----
        A range that begins above the durable position stops the process: a batch was forgotten.
        """
        try:
            return self._durable.mark(tp, start, next, generation)
        except StateError as error:
            stop_process(f"{error}; that is a defect, and going on would lose events")

    def standing(self, tp: TP) -> Standing | None:
        """Return where the client stands in a partition's log; None when unknown or not assigned."""
        standing = self._thread.standing(tp)
        return None if standing is None else replace(standing, held=self._held_batches[tp])

    async def beginning_offsets(self, tps: Collection[TP]) -> dict[TP, int]:
        """Return the first offset that each log holds."""
        return await self._ask("beginning_offsets", list(tps))

    async def end_offsets(self, tps: Collection[TP]) -> dict[TP, int]:
        """Return the offset after the last readable record of each log."""
        return await self._ask("end_offsets", list(tps))

    async def offsets_for_times(self, times_ms: Mapping[TP, int]) -> dict[TP, int]:
        """Return the first offset with a record timestamp of at least the given one, else the log's end."""
        found = await self._ask("offsets_for_times", dict(times_ms))
        late = [tp for tp, there in found.items() if there is None]
        ends = await self.end_offsets(late) if late else {}
        return {tp: ends[tp] if there is None else there.offset for tp, there in found.items()}

    def begin_batch(self, batch: Batch) -> None:
        """Count the batch as in progress; a drain waits for it."""
        self._in_progress.add(batch)

    def end_batch(self, batch: Batch) -> None:
        """Count the batch as done, whatever became of it; its bytes make room for the next."""
        self._in_progress.discard(batch)
        if batch.generation == self._durable.generation:
            self._held_bytes[batch.tp] -= batch.nbytes
            self._held_batches[batch.tp] -= 1
        self._finished.set()

    async def _ask(self, what: str, of: Any) -> dict[TP, Any]:
        client_tps = [TopicPartition(*tp) for tp in of]
        wanted = dict(zip(client_tps, of.values(), strict=True)) if isinstance(of, dict) else client_tps

        async def answer() -> dict[TP, Any]:
            found = await getattr(self._thread._ensure_consumer(), what)(wanted)
            return {TP(*tp): value for tp, value in found.items()}

        return await self._until_answered(answer)

    async def _until_answered(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        while True:
            try:
                return await self._thread.on_loop(work())
            except KafkaError as error:
                logger.warning("Kafka did not answer, asking again: %r", error)
                await asyncio.sleep(RETRY_S)

    # -- placing: after each rebalance, before anything is read

    async def perform_seek(self) -> None:
        """Begin to place the partitions, once per assignment.

        Faust allows this call 20 s and then gives up all recovery for good, so a checkpoint is not loaded
        here but in a task; until it is done the partitions are not read.
        """
        assignment = self._thread.assigned()
        if assignment is None or self._thread.placed() is not None or self._is_placing(assignment):
            return
        self._stop_placing()
        self._placing_for = assignment
        self._placing = asyncio.create_task(self._place_or_stop(assignment, after=self._placing))

    def _is_placing(self, assignment: Any) -> bool:
        """Whether this assignment is being placed; another one was overtaken and does not count."""
        return self._placing is not None and not self._placing.done() and self._placing_for is assignment

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Stay: whoever calls this from Faust must not move the partitions."""
        return self._durable.items()

    async def _place_or_stop(self, assignment: Any, *, after: asyncio.Task[None] | None) -> None:
        try:
            if after is not None:
                await asyncio.wait(
                    [after]
                )  # it is cancelled, and must be gone before the application begins anew
            await self._place(assignment)
        except WoolwatchError as error:
            stop_process(str(error), exit_code=error.exit_code)
        except Exception:  # noqa: BLE001 - nobody would see a task's exception, and the worker would stand still
            stop_process("the positions to start at could not be determined")

    async def _place(self, assignment: Any) -> None:
        tps = {tp for tp in (TP(*there) for there in assignment.tps) if not self._is_changelog_tp(tp)}
        wanted = await self._positions.start_positions(tps) if tps else {}
        bounds = await self._until_answered(lambda: self._thread.bounds(tps))
        starts = {
            tp: self._start_or_stop(tp, start_offset(wanted.get(tp), bounds[tp]), bounds[tp]) for tp in tps
        }
        generation = await self._thread.on_loop(self._thread.place(assignment, starts))
        if generation is None:
            return
        self._handed_on = dict(starts)
        self._held_bytes.clear()
        self._held_batches.clear()
        self._durable.begin(generation, starts)
        self._committed_offset.update({tp: bounds[tp].committed for tp in tps})

    def _start_or_stop(self, tp: TP, expected: int, bounds: Bounds) -> int:
        if bounds.first <= expected <= bounds.end:
            return expected
        sentence = loss_sentence(tp, expected, bounds)
        if not self._positions.on_data_loss(tp, expected, bounds.first):
            stop_process(sentence, exit_code=DataLossError.exit_code)
        logger.error("%s; accepted, reading goes on at offset %d", sentence, bounds.first)
        return bounds.first

    # -- handing on

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        # Faust sleeps a second when every buffer is full, and the client waits for as long as it is told
        # although only full partitions have data: look again soon instead.
        if self.flow_active and not self._get_active_partitions():
            await self.sleep(self._options.poll_s)
            return {}, set()
        return await super()._wait_next_records(self._options.poll_s)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        for tp, expected in self._thread.take_out_of_range().items():
            await self._handle_loss(tp, expected)
        # A copy: the live set changes while the other thread looks at it.
        ready = {tp for tp in active_partitions or () if self._may_read(tp)}
        if not ready:
            await self.sleep(self._options.poll_s)
            return {}
        return await super()._getmany(ready, timeout)

    def _may_read(self, tp: TP) -> bool:
        if self._is_changelog_tp(tp):
            return True
        return self._durable.get(tp) is not None and self._held_bytes[tp] < self._options.held_bytes

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Hand on one message per partition and fetch; a batch that does not follow the last is read anew."""
        async for tp, message in super().getmany(timeout):
            batch: object = message.value
            if isinstance(batch, Batch):
                if not self.is_current(batch.generation):
                    continue
                if batch.start != self._handed_on[tp]:
                    await self._send_back(tp)
                    continue
                self._take(batch)
            yield tp, message

    def _take(self, batch: Batch) -> None:
        self._handed_on[batch.tp] = batch.next
        self._held_bytes[batch.tp] += batch.nbytes
        self._held_batches[batch.tp] += 1

    async def _send_back(self, tp: TP) -> None:
        await self._thread.on_loop(self._thread.send_to(tp, self._handed_on[tp]))

    async def _handle_loss(self, tp: TP, expected: int) -> None:
        """Finish what is read of a partition whose log was cut, then ask the application, or stop."""
        if self._durable.get(tp) is None:
            return
        await self._wait_until(lambda: self._durable.get(tp) in (expected, None), SETTLE_S)
        durable = self._durable.get(tp)
        if durable is None:
            return
        await self._commit_now()
        bounds = (await self._until_answered(lambda: self._thread.bounds([tp])))[tp]
        offset = self._start_or_stop(tp, durable, bounds)
        self._durable.jump(tp, offset)
        self._handed_on[tp] = offset
        await self._send_back(tp)

    @Service.task
    async def _watch_the_group(self) -> None:
        """Stop when the group refuses this worker: the client lives on without ever joining."""
        while not self.should_stop:
            error = self._thread.group_error()
            if error is not None:
                stop_process(f"Kafka does not let this worker into the group {self.app.conf.id}: {error!r}")
            await self.sleep(GROUP_WATCH_S)

    # -- committing

    def _new_offset(self, tp: TP) -> int | None:
        self._acked.pop(tp, None)
        self._acked_index.pop(tp, None)
        return self._durable.get(tp)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return offset != self._committed_offset[tp]

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Any:
        return [tp for tp in self._durable.items() if topics is None or tp in topics or tp.topic in topics]

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: a batch covers its gaps."""

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        before = {tp: self._committed_offset[tp] for tp in offsets}
        done = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            self._committed_offset.update(before)
        return done

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's livelock detector cries wolf; watch the age of the durable position instead."""

    # -- leaving

    async def wait_empty(self) -> None:
        """Drain, before partitions leave and at the end: let go, wait for batches in progress, commit.

        Whoever waits for a message of this very worker is told to let go first, for reading has stopped. Who
        is slow is left behind after a while; its mark is refused when the partitions are gone.
        """
        self._stop_placing()
        generation = self._durable.generation
        if generation is not None and self._durable.leave():
            self._abandon(generation)
            bound_s = self.app.conf.broker_rebalance_timeout * DRAIN_SHARE
            if not await self._wait_until(lambda: not self._unfinished(generation), bound_s):
                logger.warning("left behind: %s", ", ".join(map(repr, self._unfinished(generation))))
        await self._commit_now()

    def _abandon(self, generation: int) -> None:
        try:
            self._positions.abandon(generation)
        except Exception:  # noqa: BLE001 - Faust would log it and live on without its partitions
            stop_process("waits could not be abandoned")

    def _unfinished(self, generation: int) -> list[Batch]:
        return [batch for batch in self._in_progress if batch.generation == generation]

    async def _wait_until(self, holds: Callable[[], bool], bound_s: float) -> bool:
        """Wait for what can only become true when a batch ends; False when it takes too long."""

        async def wait() -> None:
            while not holds():
                self._finished.clear()
                await self._finished.wait()

        try:
            await asyncio.wait_for(wait(), bound_s)
        except TimeoutError:
            return False
        return True

    async def _commit_now(self) -> None:
        # Not wait_for: Faust swallows a cancellation on this way and begins anew.
        last = asyncio.ensure_future(self._commit_after_the_running_one())
        await asyncio.wait({last}, timeout=LAST_COMMIT_S)

    async def _commit_after_the_running_one(self) -> None:
        while await self.maybe_wait_for_commit_to_finish():
            pass
        await self.commit(start_new_transaction=False)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop placing, let Faust stop the flow and drain, commit, then accept no mark any more."""
        self._stop_placing()
        await super().on_partitions_revoked(revoked)
        # The application may have written a last checkpoint when Faust told it.
        await self._commit_now()
        self._durable.end(revoked)
        self._held_bytes.clear()
        self._held_batches.clear()

    def _stop_placing(self) -> None:
        if self._placing is not None:
            self._placing.cancel()

"""The half of the batch transport that runs on the Kafka client's own thread: fetching, seeking, committing.

What it puts right in Faust 0.15.3 and aiokafka 0.14.0 (both pinned, since private attributes are used):

- A batch starts where the client stood before the fetch and ends where it stands after it, so transaction
  markers and compaction gaps are covered wherever they lie, also at the committed offset.
- Every partition is seeked explicitly, offset 0 included, and none is read before that: the client on its own
  begins at committed offsets and Faust seeks nowhere when there is none.
- An error in the middle of a fetch loses what the fetch had taken already (the client's position has moved
  on), so after each error every partition is sent back to where its next batch begins.
- A record is handed on as the client's parser made it: it shows all that :class:`streams.batches.Record` asks for.
- The client has one fetch in flight per broker, and a drained partition waits for the running one: long polls
  are short, and so is the time for which unread data holds up everybody's next fetch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalStateError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.batches import Batch
from streams.positions import Bounds

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

RETRY_S = 0.5
COMMIT_TIMEOUT_S = 3.0

REFUSED_BY_GROUP = (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
)
"""What the group's coordinator says once and for all; the client would live on without ever joining."""


@dataclass(frozen=True)
class FetchOptions:
    """How records are fetched; the defaults are those under which ask and answer took 17 ms at p99, not 236.

    ``max_records`` bounds a batch, ``partition_bytes`` what the broker sends of a partition at once (a larger record
    comes alone), ``held_bytes`` the values of one partition that are read but not finished:
    at or above it the partition is not read, whatever the others hold.
    """

    max_records: int = 5_000
    partition_bytes: int = 1024 * 1024
    max_wait_ms: int = 100
    prefetch_backoff_s: float = 0.005
    poll_s: float = 0.02
    held_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Placement:
    """One assignment of partitions, and where the next batch of each begins."""

    assignment: Any
    generation: int
    next_start: dict[TP, int]


@dataclass(frozen=True)
class Standing:
    """Where the client stands in a partition's log, as of the broker's last answer to a fetch.

    ``position`` is the offset read next, ``end`` that of the next record to become readable, ``as_of_ms`` the
    time of the answer in epoch milliseconds (it stands still while no broker answers), ``held`` the number of
    batches that were read and are not finished. A durable position tells less: it rests below a trailing
    transaction marker until the next record comes.
    """

    position: int
    end: int
    as_of_ms: int
    held: int = 0

    @property
    def caught_up(self) -> bool:
        """Whether everything readable was read and finished."""
        return self.position >= self.end and self.held == 0


class BatchThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, handing on one batch per partition and fetch."""

    def __init__(self, consumer: driver.Consumer, options: FetchOptions, **kwargs: Any) -> None:
        self._options = options
        self._placement: Placement | None = None
        self._out_of_range: dict[TP, int] = {}
        super().__init__(consumer, **kwargs)

    # -- the client

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        client = super()._create_worker_consumer(transport)
        client._auto_offset_reset = "none"
        client._isolation_level = "read_committed"
        client._fetch_max_wait_ms = self._options.max_wait_ms
        # Without a table Faust takes round robin, which parts equal partitions of equal topics.
        self._assignor = self.app.assignor
        client._partition_assignment_strategy = (self.app.assignor,)
        return client

    async def on_start(self) -> None:
        """Start the client, then shorten the time for which unread data holds up the next fetch."""
        await super().on_start()
        self._ensure_consumer()._fetcher._prefetch_backoff = self._options.prefetch_backoff_s

    async def on_loop(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine on this thread's loop and wait for it on the caller's; cancelling passes through.

        Faust's own queue for this has two workers, and a fetch that waits for a rebalance holds one of them.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.thread_loop))

    def assigned(self) -> Any:
        """Return the client's present assignment, a new object after each rebalance; None without one."""
        if self._consumer is None:
            return None
        subscription = self._consumer._subscription.subscription
        return subscription.assignment if subscription is not None else None

    def placed(self) -> Placement | None:
        """Return the placement, if it is one of the present assignment."""
        placement = self._placement
        return placement if placement is not None and placement.assignment is self.assigned() else None

    # -- fetching

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Collection[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Mapping[TP, list[Any]]:
        placement = self.placed()
        active = {tp for tp in active_partitions if self._may_fetch(tp, placement)}
        if not active:  # to the client, none means all
            return {}
        self._leave_as_parsed(consumer)
        try:
            fetched = await super()._fetch_records(
                consumer, active, timeout=timeout, max_records=self._options.max_records
            )
        except NoOffsetForPartitionError:
            return {}  # a changelog that recovery is about to seek
        except OffsetOutOfRangeError as error:
            self._send_back()
            await self._leave_the_log(consumer, error.args[0])
            return {}
        except KafkaError as error:
            self._send_back()
            logger.warning("Kafka could not be read, trying again: %r", error)
            await asyncio.sleep(RETRY_S)
            return {}
        # A rebalance may have come in between; what was read of partitions not placed yet is read again.
        return self._batches(fetched, self.placed())

    def _leave_as_parsed(self, consumer: Any) -> None:
        """Spare the records of streams the client's own wrapper, which costs eight times as much as to parse one."""
        for tp, result in consumer._fetcher._records.items():
            records = getattr(result, "_partition_records", None)
            if records is not None and not self._is_changelog(TP(*tp)):
                records._consumer_record = _as_parsed

    def _may_fetch(self, tp: TP, placement: Placement | None) -> bool:
        return self._is_changelog(tp) or (placement is not None and tp in placement.next_start)

    def _is_changelog(self, tp: TP) -> bool:
        return bool(self.consumer._is_changelog_tp(tp))

    def _batches(
        self, fetched: Mapping[TP, list[Any]], placement: Placement | None
    ) -> Mapping[TP, list[Any]]:
        handed_on: dict[TP, list[Any]] = {}
        for client_tp, records in fetched.items():
            tp = TP(*client_tp)
            if self._is_changelog(tp):
                handed_on[tp] = records
            elif placement is not None and tp in placement.next_start:
                start = placement.next_start[tp]
                position = placement.assignment.state_value(TopicPartition(*tp)).position
                placement.next_start[tp] = position
                handed_on[tp] = [
                    Batch(tp, records, start=start, next=position, generation=placement.generation)
                ]
        return handed_on

    def _send_back(self) -> None:
        placement = self.placed()
        if placement is not None:
            for tp, start in placement.next_start.items():
                self._ensure_consumer().seek(TopicPartition(*tp), start)

    async def _leave_the_log(self, consumer: Any, where: Mapping[TopicPartition, int]) -> None:
        """Note the streams that left the log, for the other thread; move changelogs to what is left."""
        changelogs = [tp for tp in where if self._is_changelog(TP(*tp))]
        for tp, first in (await consumer.beginning_offsets(changelogs)).items() if changelogs else ():
            consumer.seek(tp, first)
        self._out_of_range.update({TP(*tp): where[tp] for tp in where if tp not in changelogs})

    def take_out_of_range(self) -> Mapping[TP, int]:
        """Return, once, the streams whose next offset the log does not hold."""
        found, self._out_of_range = self._out_of_range, {}
        return found

    # -- placing

    async def bounds(self, tps: Collection[TP]) -> dict[TP, Bounds]:
        """Ask the broker for the logs' bounds and for the group's committed offsets."""
        if not tps:
            return {}
        client = self._ensure_consumer()
        client_tps = [TopicPartition(*tp) for tp in tps]
        firsts = await client.beginning_offsets(client_tps)
        ends = await client.end_offsets(client_tps)
        committed = await asyncio.gather(*[client.committed(tp) for tp in client_tps])
        return {
            TP(*tp): Bounds(firsts[tp], ends[tp], offset)
            for tp, offset in zip(client_tps, committed, strict=True)
        }

    async def place(self, assignment: Any, starts: Mapping[TP, int]) -> int | None:
        """Seek all stream partitions of an assignment; from then on they are read.

        Returns
        -------
        int or None
            The generation, None when a rebalance came first.
        """
        if self.assigned() is not assignment:
            return None
        client = self._ensure_consumer()
        for tp, offset in starts.items():
            client.seek(TopicPartition(*tp), offset)
        self._placement = Placement(assignment, client._coordinator.generation, dict(starts))
        return self._placement.generation

    async def send_to(self, tp: TP, offset: int) -> None:
        """Let the next batch of a placed partition begin at `offset`; nothing happens after a rebalance."""
        placement = self.placed()
        if placement is not None and tp in placement.next_start:
            placement.next_start[tp] = offset
            self._ensure_consumer().seek(TopicPartition(*tp), offset)

    # -- committing and asking

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit; what the broker does not take in a few seconds is left to the next time, never a crash."""
        assigned = self.assignment()
        wanted = {
            TopicPartition(*tp): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        if not wanted:
            return False
        try:
            await asyncio.wait_for(self._ensure_consumer().commit(wanted), COMMIT_TIMEOUT_S)
        except (TimeoutError, KafkaError, IllegalStateError) as error:
            logger.warning("offsets were not committed and stay for the next time: %r", error)
            return False
        return True

    def highwater(self, tp: TP) -> int:
        """Return the log's end as last seen; 0 when unknown or not assigned (the client asserts instead)."""
        standing = self.standing(tp)
        return standing.end if standing is not None else 0

    def standing(self, tp: TP) -> Standing | None:
        """Return where the client stands; None before the first answer or when it is not assigned."""
        assignment = self.assigned()
        state = assignment.state_value(TopicPartition(*tp)) if assignment is not None else None
        if state is None or not state.has_valid_position or state.timestamp is None:
            return None
        # Behind the last stable offset lie records of open transactions, which cannot be read yet.
        end = state.highwater if state.lso is None or state.lso < 0 else state.lso
        return Standing(state.position, end, state.timestamp)

    def group_error(self) -> BaseException | None:
        """Return why the group's coordinator will never let this worker in; None while there is hope.

        Any other error of the coordination is consumed, which makes the client try again.
        """
        coordinator = self._consumer._coordinator if self._consumer is not None else None
        if coordinator is None:
            return None
        if coordinator._coordination_task.done() and not coordinator._coordination_task.cancelled():
            return coordinator._coordination_task.exception()  # type: ignore[no-any-return]
        pending = coordinator._pending_exception
        if isinstance(pending, REFUSED_BY_GROUP):
            return pending  # type: ignore[no-any-return]
        if pending is not None:
            self.thread_loop.call_soon_threadsafe(self._go_on_after, pending)
        return None

    def _go_on_after(self, pending: BaseException) -> None:
        coordinator = self._ensure_consumer()._coordinator
        if coordinator._pending_exception is pending:
            logger.warning("Kafka's group coordinator failed, trying again: %r", pending)
            coordinator._pending_exception = None
            coordinator.check_errors()


def _as_parsed(_tp: TopicPartition, record: Any) -> Any:
    return record

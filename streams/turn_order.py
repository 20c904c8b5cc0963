"""In which pieces the two topics of a judge partition are taken: recorded turns first, exactly as they were cut."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from schemas.errors import Abandoned, DataLossError
from schemas.events import TOPICS
from streams.batches import Batch
from streams.turns import Turn


class TakenBack(Abandoned):
    """A turn was let go, and the state is as it was before the turn."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The records of one turn: of topic number ``topic`` those in [start, next).

    ``recorded`` is the turn in the log that this repeats, None for a new one.
    """

    topic: int
    start: int
    next: int
    records: Sequence[Any]
    recorded: Turn | None


class TurnOrder:
    """One turn at a time, in the recorded order as long as it lasts.

    Fetches cut the log otherwise than they did before the restart, so records are held until a recorded turn is
    whole. A topic whose recorded turns are done waits until those of the other topic are done too. Recorded turns that
    take in labels need no batch: they are taken again by the turn behind them.

    Parameters
    ----------
    partition
        For messages.
    positions
        Topic number to the offset at which its first piece starts.
    recorded
        The turns to take again, in order.
    """

    def __init__(self, partition: int, positions: Mapping[int, int], recorded: Iterable[Turn]) -> None:
        self._partition = partition
        self.positions = dict(positions)
        self._fetched = dict(positions)
        self._held: dict[int, list[Any]] = {topic: [] for topic in positions}
        self._recorded = deque(recorded)
        self._moved = asyncio.Condition()
        self._closed = self._broken_off = False

    @property
    def recorded_left(self) -> int:
        """Turns still to be taken again."""
        return len(self._recorded)

    @property
    def closing(self) -> bool:
        """Whether no turn begins any more."""
        return self._closed

    async def run(
        self,
        topic: int,
        batch: Batch,
        take: Callable[[Piece], Awaitable[None]],
        *,
        most_records: Callable[[], int],
    ) -> None:
        """Call ``take`` for every turn that this batch completes, one turn of the partition at a time.

        ``most_records`` is asked when a new turn begins: how many records it may have.

        Raises
        ------
        DataLossError
            Records between the last batch and this one were never delivered.
        Abandoned
            The partition is leaving.
        """
        if batch.next <= self._fetched[topic]:
            return
        if batch.start > self._fetched[topic]:
            raise DataLossError(
                f"{TOPICS[topic]}-{self._partition}: offsets {self._fetched[topic]} to {batch.start} were not delivered"
            )
        self._held[topic] += [r for r in batch.records if r.offset >= self._fetched[topic]]
        self._fetched[topic] = batch.next
        while (turn := self._next_recorded(topic)) is not None:
            if batch.next < turn.next:
                return
            await self._run_one(topic, take, turn, most_records)
        while self._fetched[topic] > self.positions[topic]:
            await self._run_one(topic, take, None, most_records)

    async def between(
        self, take: Callable[[Piece], Awaitable[None]], then: Callable[[], Awaitable[None]]
    ) -> None:
        """Call ``then`` between two turns, unless recorded turns of events are still to be taken again.

        Raises
        ------
        Abandoned
            A turn was broken off.
        """
        async with self._moved:
            if self._closed or self._next_events() is not None:
                return
            await self._or_close(self._take_labels_again, take)
            await self._or_close(then)

    async def at_rest(self, look: Callable[[], Awaitable[None]]) -> bool:
        """Call ``look`` between two turns. False when a turn was broken off, so that the state is not whole."""
        async with self._moved:
            if self._broken_off:
                return False
            await look()
            return True

    async def close(self) -> None:
        """No turn begins any more; the one in progress ends first, those who wait for theirs are let go."""
        self._closed = True
        async with self._moved:
            self._moved.notify_all()

    def _next_recorded(self, topic: int) -> Turn | None:
        return next((turn for turn in self._recorded if turn.topic == topic), None)

    def _end_of_new(self, topic: int, most: int) -> int:
        """Where a new turn ends: with what was fetched, or before the first record for which it has no room."""
        held = self._held[topic]
        return int(held[most].offset) if len(held) > most else self._fetched[topic]

    async def _run_one(
        self,
        topic: int,
        take: Callable[[Piece], Awaitable[None]],
        turn: Turn | None,
        most_records: Callable[[], int],
    ) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._closed or self._is_due(turn))
            if self._closed:
                raise Abandoned(f"partition {self._partition} is leaving")
            await self._or_close(self._take_labels_again, take)
            next_ = self._end_of_new(topic, most_records()) if turn is None else turn.next
            held = self._held[topic]
            count = bisect_left(held, next_, key=attrgetter("offset"))
            records, self._held[topic] = held[:count], held[count:]
            await self._or_close(take, Piece(topic, self.positions[topic], next_, records, turn))
            self.positions[topic] = next_
            if turn is not None:
                self._recorded.popleft()
            self._moved.notify_all()

    async def _take_labels_again(self, take: Callable[[Piece], Awaitable[None]]) -> None:
        while self._recorded and self._recorded[0].takes_labels:
            turn = self._recorded[0]
            await take(Piece(turn.topic, turn.start, turn.next, (), turn))
            self._recorded.popleft()

    async def _or_close(self, work: Callable[..., Awaitable[None]], *of: Any) -> None:
        try:
            await work(*of)
        except BaseException as error:
            # But for a turn taken back, the state stands in the middle of one: nobody may go on from it.
            self._closed, self._broken_off = True, not isinstance(error, TakenBack)
            self._moved.notify_all()
            raise

    def _next_events(self) -> Turn | None:
        return next((turn for turn in self._recorded if not turn.takes_labels), None)

    def _is_due(self, turn: Turn | None) -> bool:
        return self._next_events() is turn

"""Where a partition is read from, and up to where everything is durable; no client, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from faust.types import TP

from schemas.errors import StateError


class Positions(Protocol):
    """What the application knows and decides about positions; called on the application's loop."""

    async def start_positions(self, tps: Collection[TP]) -> Mapping[TP, int]:
        """Return where to begin, for partitions that a checkpoint or a sink knows better than the group.

        Called once after each rebalance, before the first batch of its generation; it may take its time (load
        a checkpoint, ask the sinks), for nothing is read meanwhile, and it is cancelled when the partitions
        leave again. A partition that is missing in the answer begins at the group's committed offset, and
        without one at the start of the log. An exception stops the process.
        """
        ...

    def abandon(self, generation: int) -> None:
        """Let go of every wait for a message that this worker would have to read: it does not come any more.

        Called once when the partitions of `generation` leave, before their batches in progress are waited
        for.
        """
        ...

    def on_data_loss(self, tp: TP, expected: int, found: int) -> bool:
        """Accept (True) that reading goes on at `found` though `expected` was next; False stops the process.

        `found` is the start of the log. Below it the records are gone; an `expected` above the log's end
        means that the topic was made anew or cut. Who accepts moves every state and sink of the partition
        there first.
        """
        ...


class GroupPositions:
    """Positions as the consumer group has them, nothing to abandon, no loss accepted."""

    async def start_positions(self, tps: Collection[TP]) -> Mapping[TP, int]:  # noqa: ARG002 - as the protocol has it
        """Leave all partitions to the group."""
        return {}

    def abandon(self, generation: int) -> None:
        """Nobody waits."""

    def on_data_loss(self, tp: TP, expected: int, found: int) -> bool:  # noqa: ARG002 - as the protocol has it
        """Accept nothing."""
        return False


class Bounds(NamedTuple):
    """The offsets that a partition's log holds, [first, end), and the group's committed offset."""

    first: int
    end: int
    committed: int | None


def start_offset(wanted: int | None, bounds: Bounds) -> int:
    """Return the offset that is read first; it may lie outside of the log, which is a loss."""
    if wanted is not None:
        return wanted
    return bounds.first if bounds.committed is None else bounds.committed


def loss_sentence(tp: TP, expected: int, bounds: Bounds) -> str:
    """Say in one sentence which records of a partition are missing.

    Examples
    --------
    >>> loss_sentence(TP("clicks", 3), 100, Bounds(first=250, end=400, committed=100))
    'data lost: clicks-3 begins at offset 250, so the records [100, 250) are gone unread'
    """
    place = f"{tp.topic}-{tp.partition}"
    if expected < bounds.first:
        gone = f"so the records [{expected}, {bounds.first}) are gone unread"
        return f"data lost: {place} begins at offset {bounds.first}, {gone}"
    return (
        f"data lost: {place} ends at offset {bounds.end}, although everything below {expected} was there "
        f"once; the records [{bounds.end}, {expected}) are gone, and the topic was made anew or cut"
    )


class DurablePositions:
    """Per partition of one group generation the offset up to which every sink has everything.

    Marks are contiguous. Those of another generation are refused, because its partitions may have another
    owner.
    """

    def __init__(self) -> None:
        self._generation: int | None = None
        self._leaving = False
        self._durable: dict[TP, int] = {}

    @property
    def generation(self) -> int | None:
        """The generation that owns the partitions now; None between two."""
        return self._generation

    def begin(self, generation: int, starts: Mapping[TP, int]) -> None:
        """Take over partitions; everything below the given offsets is durable."""
        self._generation = generation
        self._leaving = False
        self._durable = dict(starts)

    def leave(self) -> bool:
        """Start no more batches; those in progress may be marked. False: nothing owned, or said before."""
        if self._generation is None or self._leaving:
            return False
        self._leaving = True
        return True

    def end(self, revoked: Iterable[TP]) -> None:
        """Forget partitions; no mark is accepted any more."""
        for tp in revoked:
            self._durable.pop(tp, None)
        self._generation = None

    def is_current(self, generation: int) -> bool:
        """Whether a batch of that generation may still be started."""
        return generation == self._generation and not self._leaving

    def get(self, tp: TP) -> int | None:
        """Return the durable position; None for a partition that is not owned."""
        return self._durable.get(tp)

    def items(self) -> Mapping[TP, int]:
        """Return a copy of all durable positions."""
        return dict(self._durable)

    def jump(self, tp: TP, offset: int) -> None:
        """Move over records that are lost, after the application has accepted it."""
        self._durable[tp] = offset

    def mark(self, tp: TP, start: int, next: int, generation: int) -> bool:
        """Note that every sink has [start, next).

        Returns
        -------
        bool
            False when the partition or the generation is not owned any more: the next owner does it again.

        Raises
        ------
        StateError
            The range begins above the durable position, so a batch between was forgotten.
        """
        durable = self._durable.get(tp)
        if durable is None or generation != self._generation:
            return False
        if start > durable:
            place = f"{tp.topic}-{tp.partition}"
            raise StateError(
                f"{place}: [{start}, {next}) was marked durable, but [{durable}, {start}) never was"
            )
        self._durable[tp] = max(durable, next)
        return True

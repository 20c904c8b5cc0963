"""Reads stretches of the internal topics outside the consumer group, and decides where a first start begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Protocol

from schemas.events import TOPICS
from schemas.labels import LABELS
from streams.batch_thread import Standing
from streams.batches import TP, Record
from streams.ranges import read_range
from streams.security import kafka_brokers
from streams.settings import EARLIEST, LATEST, Settings


class Offsets(Protocol):
    """Who knows the offsets of logs: the worker's own consumer."""

    async def beginning_offsets(self, tps: Collection[TP]) -> dict[TP, int]:
        """First offset that each log holds."""
        ...

    async def end_offsets(self, tps: Collection[TP]) -> dict[TP, int]:
        """Offset behind the last record of each log."""
        ...

    def standing(self, tp: TP) -> Standing | None:
        """Where the client stands in a log; None when that is unknown."""
        ...

    async def offsets_for_times(self, times_ms: Mapping[TP, int]) -> dict[TP, int]:
        """First offset of each log with a record timestamp of at least that, else its end."""
        ...


class LogReader:
    """A reader of topics by role.

    Parameters
    ----------
    settings
        Brokers, topic names and where a first start begins.
    offsets
        Gives who is asked for offsets; called when it is needed, for a consumer exists only once its app runs.
    """

    def __init__(self, settings: Settings, offsets: Callable[[], Offsets]) -> None:
        self._settings, self._offsets = settings, offsets
        self._brokers = kafka_brokers(settings)

    async def read(self, role: str, partition: int, start: int, end: int) -> AsyncIterator[Record]:
        """The committed records of [start, end).

        Raises
        ------
        DataLossError
            The log begins above ``start``.
        """
        tp = self._tp(role, partition)
        async for record in read_range(self._brokers, tp, start, end):
            yield record

    async def beginning(self, role: str, partition: int) -> int:
        """First offset that the log holds."""
        tp = self._tp(role, partition)
        return (await self._offsets().beginning_offsets([tp]))[tp]

    async def end(self, role: str, partition: int) -> int:
        """Offset behind the last record of the log."""
        tp = self._tp(role, partition)
        return (await self._offsets().end_offsets([tp]))[tp]

    def caught_up(self, role: str, partition: int) -> bool:
        """Whether everything that the log has was read and finished, as far as the broker last told."""
        standing = self._offsets().standing(self._tp(role, partition))
        return standing is not None and standing.caught_up

    async def ends(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The same of several logs, by role and partition, in one question."""
        tps = {place: self._tp(*place) for place in places}
        found = await self._offsets().end_offsets(list(tps.values()))
        return {place: found[tp] for place, tp in tps.items()}

    async def first_positions(self, partition: int) -> dict[str, int]:
        """Where each event topic begins on a first start, as ``--from`` says."""
        found = await self._first({(role, partition) for role in TOPICS})
        return {role: found[role, partition] for role in TOPICS}

    async def first_label_positions(self, partitions: int) -> list[int]:
        """Where each partition of the labels begins on a first start, as ``--from`` says."""
        found = await self._first({(LABELS, partition) for partition in range(partitions)})
        return [found[LABELS, partition] for partition in range(partitions)]

    async def _first(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        tps, start = {place: self._tp(*place) for place in places}, self._settings.start
        if start == EARLIEST:
            found = await self._offsets().beginning_offsets(list(tps.values()))
        elif start == LATEST:
            found = await self._offsets().end_offsets(list(tps.values()))
        else:
            found = await self._offsets().offsets_for_times(dict.fromkeys(tps.values(), int(start)))
        return {place: found[tp] for place, tp in tps.items()}

    def _tp(self, role: str, partition: int) -> TP:
        return TP(self._settings.topic(role), partition)

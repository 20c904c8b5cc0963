"""A partition that all judges of a process read as it grows, outside of the consumer group.

Labels and lessons concern every judge, whatever partitions it owns, so no group divides them; and reading them must not
stop when the group's partitions move. Each judge asks for the stretch behind its own position; judges ask for the same
ones at about the same time, so the newest stretches are kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from schemas.errors import DataLossError
from streams.batches import TP, Record
from streams.brokers import Brokers
from streams.positions import Bounds, loss_sentence
from streams.ranges import MAX_RECORDS, POLL_MS, RETRY_S, connect_reader

log = logging.getLogger(__name__)

_KEPT = 8
"""Stretches of at most MAX_RECORDS records."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The records of [start, next)."""

    start: int
    next: int
    records: Sequence[Record]

    def part(self, start: int, end: int) -> Stretch:
        """What of it lies in [start, end)."""
        kept = [record for record in self.records if start <= record.offset < end]
        return Stretch(start, min(self.next, end), kept)


class LogTail:
    """One partition of one topic.

    Parameters
    ----------
    brokers
        Where it is.
    tp
        Which one.
    """

    def __init__(self, brokers: Brokers, tp: TP) -> None:
        self._brokers, self._tp = brokers, TopicPartition(*tp)
        self._client: Any = None
        self._stands_at = -1
        self._kept: deque[Stretch] = deque(maxlen=_KEPT)
        self._lock = asyncio.Lock()

    async def read(self, start: int, end: int) -> Stretch:
        """The first records of [start, end), not nothing; the log must reach ``end``.

        Raises
        ------
        DataLossError
            The log begins above ``start``.
        """
        async with self._lock:
            for stretch in reversed(self._kept):
                if stretch.start <= start < stretch.next:
                    return stretch.part(start, end)
            fetched = await self._fetch(start)
            self._kept.append(fetched)
            return fetched.part(start, end)

    async def close(self) -> None:
        """Disconnect."""
        async with self._lock:
            if self._client is not None:
                client, self._client = self._client, None
                self._stands_at = -1
                await client.stop()

    async def _fetch(self, start: int) -> Stretch:
        while True:
            try:
                if self._client is None:
                    self._client = await connect_reader(self._brokers, None)
                    self._client.assign([self._tp])
                if self._stands_at != start:
                    self._client.seek(self._tp, start)
                self._stands_at = -1  # a wait that is cancelled may have moved it
                found = await self._client.getmany(self._tp, timeout_ms=POLL_MS, max_records=MAX_RECORDS)
                self._stands_at = await self._client.position(self._tp)
            except OffsetOutOfRangeError as error:
                first = (await self._client.beginning_offsets([self._tp]))[self._tp]
                last = (await self._client.end_offsets([self._tp]))[self._tp]
                sentence = loss_sentence(TP(*self._tp), start, Bounds(first, last, None))
                raise DataLossError(sentence) from error
            except KafkaError as error:
                log.warning("%s-%d could not be read, trying again: %r", *self._tp, error)
                await asyncio.sleep(RETRY_S)
                continue
            if self._stands_at > start:
                return Stretch(start, self._stands_at, found.get(self._tp, ()))

"""How one judge takes labels in: stretches of their log, decoded, no further ahead of its events than it must.

Labels may lie in the log by the million before the events that they are about (a recording loaded at once), and each
label waits in memory for its event. So a judge takes the log up to the first label whose time is more than the lateness
ahead of its events. What lies behind that one and is not as far ahead is, by the log's own order, about an event that
comes late, if labels lie in the order of their events; it is taken when the events have come that far.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.events import TOPICS, EventBatch, Rejection
from schemas.keys import KeyRing
from schemas.labels import (
    LABELS,
    Fault,
    Labels,
    batch_without_events,
    decode_label,
    labels_of,
    rejection_of,
)
from schemas.sightings import Sightings
from streams.answer_desk import Cut
from streams.batches import Record
from streams.log_tail import LogTail

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intake:
    """A stretch of labels: those that are sound, and ``batch`` for the dead letters of the others."""

    labels: Labels
    batch: EventBatch

    @property
    def next(self) -> int:
        """Behind the last record."""
        return self.batch.next

    @property
    def cut(self) -> Cut:
        """Of the turn that takes it in."""
        return LabelIntake.topic_number(self.batch.partition), self.batch.start, self.batch.next


class LabelIntake:
    """The labels' log as one judge sees it.

    Parameters
    ----------
    partition, partitions
        Of the judge. Each partition of the labels has one judge that writes the dead letters.
    ring
        Hashes ids.
    tails
        One for each partition of the labels.
    """

    def __init__(self, partition: int, partitions: int, ring: KeyRing, tails: Sequence[LogTail]) -> None:
        self._partition, self._partitions, self._ring, self._tails = partition, partitions, ring, tails
        self.places = [(LABELS, number) for number in range(len(tails))]
        """Role and partition of each log."""

    @staticmethod
    def topic_number(number: int) -> int:
        """What a turn calls a partition of the labels."""
        return len(TOPICS) + number

    @staticmethod
    def number_of(topic: int) -> int:
        """Which partition of the labels a turn's topic number stands for."""
        return topic - len(TOPICS)

    async def read(self, number: int, start: int, end: int, *, limit_ms: int | None) -> Intake | None:
        """The first labels of [start, end), none whose time is beyond the limit; None when there is nothing to take."""
        stretch = await self._tails[number].read(start, end)
        return self._decoded(number, stretch.records, start, stretch.next, limit_ms)

    async def read_all(self, number: int, start: int, next: int) -> Intake:
        """All of [start, next), as a recorded turn has it."""
        at, records = start, list[Record]()
        while at < next:
            stretch = await self._tails[number].read(at, next)
            records += stretch.records
            at = stretch.next
        intake = self._decoded(number, records, start, next, None)
        return intake if intake is not None else self._intake(number, [], [], [], start, next)

    def _decoded(
        self, number: int, records: Sequence[Record], start: int, next: int, limit_ms: int | None
    ) -> Intake | None:
        rows, rejections, offsets = list[tuple[int, int, int, int]](), list[Rejection](), list[int]()
        for record in records:
            raw = record.value or b""
            label = decode_label(raw, self._ring, record_ts_ms=record.timestamp)
            if isinstance(label, Fault):
                rejections.append(rejection_of(raw, label, row=len(rejections)))
                offsets.append(record.offset)
            elif limit_ms is not None and label[2] > limit_ms:
                next = record.offset
                break
            else:
                rows.append(label)
        return self._intake(number, rows, rejections, offsets, start, next) if next > start else None

    def _intake(
        self,
        number: int,
        rows: Sequence[tuple[int, int, int, int]],
        rejections: Sequence[Rejection],
        offsets: Sequence[int],
        start: int,
        next: int,
    ) -> Intake:
        if number % self._partitions != self._partition:
            rejections, offsets = [], []  # another judge writes their dead letters
        elif rejections:
            log.warning("%d labels of %s-%d are none: see the dead letters", len(rejections), LABELS, number)
        batch = batch_without_events(
            partition=number, start=start, next=next, offsets=offsets, rejections=rejections
        )
        return Intake(labels_of(rows), batch)


def turn_of_labels(
    batch: EventBatch, *, judge: int, turn: int, claim: bytes, config: bytes, members: int
) -> Sightings:
    """The record of a turn that takes labels in: where they stand, and no rows."""
    none = np.empty(0, np.uint32)
    return Sightings(
        topic=LabelIntake.topic_number(batch.partition),
        source=judge,
        owner=judge,
        turn=turn,
        start=batch.start,
        next=batch.next,
        claim=claim,
        config=config,
        models=(),
        offset=none,
        ts_ms=np.empty(0, np.int64),
        name=np.empty(0, np.uint16),
        flags=np.empty(0, np.uint8),
        members=np.empty((members, 0), np.uint64),
        event=none,
        kind=np.empty(0, np.uint8),
        entity=np.empty(0, np.uint64),
    )

"""The one log of lessons, as one judge learns it and as it writes it.

With one judge the lessons are learned where they arise and the log is only their memory: after a restart its models are
made from it anew, up to the turn of the checkpoint. With more judges all of them learn the log in its order, each turn
up to the offset that stands in the turn's record. Either way a model is a function of the log, so no model is ever
stored: some 5 us a lesson at the start, or after a changed config.
"""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from detectors.judge import Judge
from detectors.supervised import inputs_of
from schemas.errors import Abandoned
from schemas.lessons import RECORD_LESSONS, Lessons, decode_lessons, encode_lesson_claim, encode_lessons
from schemas.sightings import Claim
from streams.config_store import ConfigStore
from streams.context import Send
from streams.log_tail import LogTail

log = logging.getLogger(__name__)

LESSONS = "lessons"
"""The topic's role; it has one partition."""


class LessonReader:
    """Teaches one judge the log from its beginning on.

    Parameters
    ----------
    tail
        The log.
    configs
        Say what the inputs of a lesson are.
    """

    def __init__(self, tail: LogTail, configs: ConfigStore) -> None:
        self._tail, self._configs = tail, configs
        self._inputs: dict[bytes, tuple[str, ...]] = {}
        self._claims: dict[int, bytes] = {}
        self._last: dict[int, tuple[int, int]] = {}
        self.position = 0
        """Everything below it is learned."""

    async def learn(self, judge: Judge, up_to: int, *, before_turn: int | None = None) -> None:
        """Learn the log up to an offset; with ``before_turn`` only lessons of turns before that one.

        Raises
        ------
        DataLossError
            The log does not begin at 0 any more.
        """
        while self.position < up_to:
            stretch = await self._tail.read(self.position, up_to)
            lessons = [
                counted
                for record in stretch.records
                if (counted := self._counted(decode_lessons(record.value or b""))) is not None
                and (before_turn is None or counted.turn < before_turn)
            ]
            if lessons:
                for config in {one.config for one in lessons} - self._inputs.keys():
                    self._inputs[config] = inputs_of(await self._configs.kept(config))
                await asyncio.to_thread(self._teach, judge, lessons)
            self.position = stretch.next

    def _counted(self, record: Lessons | Claim) -> Lessons | None:
        """The record if it counts: not a claim, not of an overtaken owner, no repeat."""
        if isinstance(record, Claim):
            self._claims[record.source] = record.claim
            return None
        place = (record.turn, record.part)
        overtaken = self._claims.get(record.source, record.claim) != record.claim
        if overtaken or place <= self._last.get(record.source, (-1, -1)):
            return None
        self._last[record.source] = place
        return record

    def _teach(self, judge: Judge, lessons: list[Lessons]) -> None:
        for one in lessons:
            judge.supervised.learn(one.label, one.x, self._inputs[one.config])


class LessonWriter:
    """Writes the lessons of one judge partition under the claim of its owner.

    Parameters
    ----------
    send
        The way to Kafka.
    tail
        The log, to look at what became of them.
    claim
        Of the partition.
    """

    def __init__(self, send: Send, tail: LogTail, claim: Claim) -> None:
        self._send, self._tail, self._claim = send, tail, claim
        self._proven = self._end = 0

    async def claim(self) -> None:
        """Make void what an overtaken owner of the partition writes behind this; comes before all else."""
        claimed_at = await (await self._send(LESSONS, 0, encode_lesson_claim(self._claim)))
        self._proven = self._end = claimed_at + 1

    async def write(self, judge: Judge, turn: int) -> None:
        """Write the lessons of a turn; returns when they are durable.

        One part after the other: one that was sent again behind a later part would count as a repeat.
        """
        lessons = judge.supervised.lessons
        for part, first in enumerate(range(0, len(lessons), RECORD_LESSONS)):
            rows = lessons[first : first + RECORD_LESSONS]
            record = Lessons(
                source=self._claim.source,
                turn=turn,
                part=part,
                claim=self._claim.claim,
                config=bytes.fromhex(judge.config_hash),
                label=np.array([label for label, _ in rows], np.uint8),
                x=np.stack([x for _, x in rows]),
            )
            self._end = await (await self._send(LESSONS, 0, encode_lessons(record))) + 1

    async def prove(self) -> None:
        """Look whether all that was written counts: whether nobody claimed the partition before it.

        A judge may believe that its partition is still its own, write lessons that are void, and checkpoint the turn
        that made them: the next owner would not take that turn again, and its lessons would be lost.

        Raises
        ------
        Abandoned
            Somebody did.
        """
        while self._proven < self._end:
            stretch = await self._tail.read(self._proven, self._end)
            for record in stretch.records:
                found = decode_lessons(record.value or b"")
                if isinstance(found, Claim) and found.source == self._claim.source:
                    raise Abandoned(f"partition {found.source} has a newer owner, the last lessons are void")
            self._proven = stretch.next

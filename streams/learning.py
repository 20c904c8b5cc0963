"""What a judge's seat does about labels and the models that they teach, besides judging."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from detectors.judge import Judge
from schemas.errors import Abandoned
from schemas.labels import LABELS
from schemas.sightings import Claim, encode_sightings
from sinks.patience import patiently
from streams.batches import TP
from streams.checkpoints import THE_STATE
from streams.context import Context
from streams.feature_files import FeatureFiles
from streams.label_intake import Intake, LabelIntake, turn_of_labels
from streams.lesson_log import LESSONS, LessonReader, LessonWriter
from streams.log_reader import LogReader
from streams.log_tail import LogTail
from streams.security import kafka_brokers
from streams.settings import Settings
from streams.topics import open_topics
from streams.turn_order import Piece
from streams.turns import Turn

POSITIONS, FEATURES = "label_positions", "judged_features"
"""What a checkpoint notes; one that is older has neither."""


@dataclass(frozen=True, slots=True)
class Tails:
    """The logs that all judges of a process read."""

    labels: Sequence[LogTail]
    lessons: LogTail

    async def close(self) -> None:
        """Disconnect."""
        for tail in (*self.labels, self.lessons):
            await tail.close()


def make_tails(settings: Settings) -> Tails:
    """A tail for each partition that the labels have, and one for the lessons. Blocks; connects later."""
    topic = settings.topic(LABELS)
    brokers = kafka_brokers(settings)
    with open_topics(brokers, wait_s=settings.wait_s) as topics:
        count = topics.partition_count(topic) or 0
    labels = [LogTail(brokers, TP(topic, number)) for number in range(count)]
    return Tails(labels, LogTail(brokers, TP(settings.topic(LESSONS), 0)))


class SeatLearning:
    """Labels and lessons of one seat.

    Parameters
    ----------
    partition, context, reader, tails
        As the seat has them.
    """

    def __init__(self, partition: int, context: Context, reader: LogReader, tails: Tails) -> None:
        self._partition, self._context, self._reader, self._tails = partition, context, reader, tails
        self._intake = LabelIntake(partition, context.partitions, context.ring, tails.labels)
        self._files = FeatureFiles(context.settings.state_store, f"judge-{partition:04d}")
        self._positions: dict[int, int] = {}
        self._taught: Judge | None = None
        self._left = False

    # -- the seat's life -----------------------------------------------------------------------------------------

    async def first_notes(self) -> dict[str, Any]:
        """What the first checkpoint notes, so that the beginning is decided once."""
        return {POSITIONS: await self._reader.first_label_positions(len(self._tails.labels))}

    async def place(self, meta: Mapping[str, Any], recorded: Sequence[Turn], *, begins: bool) -> None:
        """Find out from where labels are taken in: what the checkpoint notes, else as on a first start.

        Parameters
        ----------
        meta
            Of the checkpoint.
        recorded
            Turns that will be taken again.
        begins
            Whether the state is that before the first turn: then the log knows where it all began.
        """
        noted = meta.get(POSITIONS)
        found = await self._reader.first_label_positions(len(self._tails.labels)) if noted is None else noted
        found = [
            *found,
            *[0] * (len(self._tails.labels) - len(found)),
        ]  # the topic may have got more partitions
        self._positions = {self._intake.topic_number(number): int(at) for number, at in enumerate(found)}
        if begins or noted is None:
            self._positions |= {turn.topic: turn.start for turn in reversed(recorded) if turn.takes_labels}

    async def take_up(self, judge: Judge, meta: Mapping[str, Any]) -> None:
        """Give a judge the features of events that a checkpoint's judge remembered."""
        load = partial(asyncio.to_thread, self._files.load, meta.get(FEATURES, ()))
        judge.supervised.memory.segments = await patiently(THE_STATE, load)

    async def claim(self, claim: Claim) -> None:
        """Make void what an earlier owner of the partition still teaches."""
        self._writer = LessonWriter(self._context.send, self._tails.lessons, claim)
        await self._writer.claim()

    def leave(self) -> None:
        """Let waits go: the partition is leaving."""
        self._left = True

    def notes(self, judge: Judge) -> dict[str, Any]:
        """What the checkpoint of this state must note; judged features that it leaves out are durable then."""
        labels = [
            self._positions[self._intake.topic_number(number)] for number in range(len(self._tails.labels))
        ]
        return {POSITIONS: labels, FEATURES: self._files.keep(judge.supervised.memory, judge.turn)}

    async def checkpointed(self, meta: Mapping[str, Any]) -> None:
        """Forget files that no checkpoint needs."""
        await asyncio.to_thread(self._files.checkpointed, meta[FEATURES])

    # -- labels --------------------------------------------------------------------------------------------------

    async def recorded(self, piece: Piece) -> Intake:
        """The labels of a recorded turn."""
        return await self._intake.read_all(self._intake.number_of(piece.topic), piece.start, piece.next)

    async def new(self, *, limit_ms: int | None) -> AsyncIterator[Intake]:
        """Labels that are durable now and were not taken in, by stretches; each is taken in before the next."""
        ends = await self._reader.ends(self._intake.places)
        for number, place in enumerate(self._intake.places):
            topic = self._intake.topic_number(number)
            while self._positions[topic] < ends[place]:
                self._stay()
                at = self._positions[topic]
                intake = await self._intake.read(number, at, ends[place], limit_ms=limit_ms)
                if intake is None:
                    break
                yield intake

    async def record(self, intake: Intake, judge: Judge, claim: bytes) -> int:
        """Make the next turn durable, which takes this in; returns its offset on the judge's own sightings."""
        record = turn_of_labels(
            intake.batch,
            judge=self._partition,
            turn=judge.turn,
            claim=claim,
            config=judge.plan.config,
            members=len(judge.plan.members),
        )
        return await (await self._context.send("sightings", self._partition, encode_sightings(record)))

    def taken_in(self, intake: Intake) -> None:
        """Go on behind a stretch."""
        self._positions[self._intake.topic_number(intake.batch.partition)] = intake.next

    def _stay(self) -> None:
        if self._left:
            raise Abandoned(f"partition {self._partition} is leaving")

    # -- lessons -------------------------------------------------------------------------------------------------

    async def teach(self, judge: Judge, recorded: tuple[int, ...] | None) -> tuple[int, ...]:
        """Teach the models all that a turn judges with, and say what that is, as its record notes it.

        Parameters
        ----------
        judge
            Whose models; one that was not taught before begins at the log's beginning.
        recorded
            What the record of a turn says that is taken again; None for a new turn.
        """
        if not judge.supervised.names:
            return ()
        if self._taught is not judge:
            judge.supervised.forget_lessons()
            self._lessons = LessonReader(self._tails.lessons, self._context.configs)
        if self._context.partitions == 1:
            if self._taught is not judge:
                end = await self._reader.end(LESSONS, 0)
                await self._lessons.learn(judge, end, before_turn=judge.turn)
                self._taught = judge
            return ()
        up_to = recorded[0] if recorded else await self._reader.end(LESSONS, 0)
        self._taught = judge
        self._stay()
        await self._lessons.learn(judge, up_to)
        return (up_to,)

    async def hand_on(self, judge: Judge, turn: int) -> None:
        """Write the lessons that a turn made, durably."""
        await self._writer.write(judge, turn)

    async def prove(self) -> None:
        """Make sure that all lessons so far count; a checkpoint may hold no turn whose lessons are void.

        Raises
        ------
        Abandoned
            They do not: the partition has a newer owner.
        """
        await self._writer.prove()

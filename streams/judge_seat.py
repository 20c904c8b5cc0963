"""One judge partition at work: takes batches of its two topics in turns, and keeps state and sinks in step.

``open`` loads the checkpoint, claims the partition and reads which turns were taken beyond it; these are taken again
exactly so before anything new. From then on every fetched batch is a turn of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from detectors.dedupe import NEVER
from detectors.inquiry import Inquiry, sightings_of
from detectors.judge import Judge
from detectors.plan import make_plan
from schemas.config import Config
from schemas.decode import decode_json
from schemas.errors import Abandoned
from schemas.events import TOPICS, EventBatch
from schemas.sightings import Answers, encode_sightings
from sinks.faults import fault_point
from sinks.patience import patiently
from streams.answer_desk import AnswerDesk
from streams.batches import Batch
from streams.checkpoints import THE_STATE, Checkpoint
from streams.config_change import starting_empty
from streams.context import Context
from streams.idle_topics import IdleTopics, UnusedTopic
from streams.installation import MAX_MESSAGE_BYTES
from streams.label_intake import Intake
from streams.learning import SeatLearning, Tails
from streams.log_reader import LogReader
from streams.meters import Sample
from streams.outputs import Outputs
from streams.placement import Placement
from streams.publishing import Publishing, to_its_end
from streams.seat_state import SeatState
from streams.turn_order import Piece, TakenBack, TurnOrder
from streams.turns import Turn, claim_partition, new_claim, recorded_turns
from streams.unlisted_names import UnlistedNames

log = logging.getLogger(__name__)

MOST_RECORDS = 20_000
"""Of a turn: about half a second of judging, for which a leaving partition waits."""
_IN_THREAD_ROWS = 256
"""Turns of at least so many rows are computed in a thread, so that the event loop goes on."""

Result = TypeVar("Result")


class JudgeSeat:
    """State and work of one judge partition in this process; made anew at every assignment."""

    def __init__(self, partition: int, context: Context, reader: LogReader, tails: Tails) -> None:
        self.partition, self._context, self._reader = partition, context, reader
        self._learning = SeatLearning(partition, context, reader, tails)
        self._state = SeatState(partition, context, reader)
        self._claim = new_claim(partition)
        self._checkpointed_s = time.monotonic()
        self._placement = Placement(partition, context.partitions)
        self._idle = IdleTopics(time.monotonic)
        self._unused = UnusedTopic(partition)
        self._unlisted = UnlistedNames(partition, context.ring)
        self.outputs = Outputs(partition, context)
        self._publishing = Publishing(self.outputs.publish)

    # -- taking the seat -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load, claim, and read what must be taken again.

        Raises
        ------
        StateError
            State, log and tables do not belong together.
        DataLossError
            The log no longer holds turns that the state needs.
        """
        checkpoint = await self._state.newest() or await self._state.first(await self._learning.first_notes())
        meta = self._durable = checkpoint.meta
        self._core = await self._state.core_of(checkpoint)
        checkpoint.state.clear()  # restored by now, and taking the seat takes long
        await self._learning.take_up(self._judge, meta)
        self._log_position, self._log_claim = int(meta["log_position"]), bytes.fromhex(meta["claim"])
        self.answers_start = int(meta["answers_position"])
        self.desk = AnswerDesk(next_turn=checkpoint.position, position=self.answers_start)
        await self._learning.claim(self._claim)
        claimed_at = await claim_partition(self._context.send, self._claim, self._context.partitions)
        recorded = await recorded_turns(
            self._reader.read("sightings", self.partition, self._log_position, claimed_at),
            partition=self.partition,
            claim=self._log_claim,
            next_turn=checkpoint.position,
        )
        await self._learning.place(meta, recorded, begins=checkpoint.position == 0)
        self.order = self._order(checkpoint, recorded)
        await self._open_outputs(checkpoint, epoch=claimed_at)
        if not recorded:
            await self._switch_to(self._context.config)
        events = [turn.models for turn in recorded if not turn.takes_labels]
        await self._learning.teach(self._judge, events[0] if events else None)
        log.info(
            "judge %d: at turn %d, %d recorded turns to take again",
            self.partition,
            self._judge.turn,
            len(recorded),
        )

    def _order(self, checkpoint: Checkpoint, recorded: Sequence[Turn]) -> TurnOrder:
        meta = checkpoint.meta
        positions = {number: int(meta["positions"][topic]) for number, topic in enumerate(TOPICS)}
        if checkpoint.position == 0:
            # The first checkpoint may be a second one, of a state that was lost: the log knows where it all began.
            positions |= {turn.topic: turn.start for turn in reversed(recorded) if not turn.takes_labels}
            meta["positions"] = {topic: positions[number] for number, topic in enumerate(TOPICS)}
        return TurnOrder(self.partition, positions, recorded)

    async def _open_outputs(self, checkpoint: Checkpoint, *, epoch: int) -> None:
        kept = await self._reader.beginning("deadletters", self.partition)
        start = max(int(checkpoint.meta["letters_position"]), kept)
        end = await self._reader.end("deadletters", self.partition)
        letters = self._reader.read("deadletters", self.partition, start, end)
        await self.outputs.open(
            checkpoint.position,
            epoch=epoch,
            letters_position=end,
            sent_letters={record.key or b"" async for record in letters},
        )

    @property
    def _judge(self) -> Judge:
        return self._core.judge

    @property
    def start_positions(self) -> dict[str, int]:
        """Where each topic must be read from."""
        return {topic: self.order.positions[number] for number, topic in enumerate(TOPICS)}

    @property
    def durable_positions(self) -> dict[str, int]:
        """Up to where each topic is not needed any more, by the last checkpoint."""
        positions: dict[str, int] = self._durable["positions"]
        return {**positions, "answers": int(self._durable["answers_position"])}

    # -- the config ----------------------------------------------------------------------------------------------

    def _judges_by(self, config: Config) -> bool:
        """Whether it is ours; the hash, which is slow, is asked only of another object."""
        return config is self._judge.config or config.hash == self._judge.config_hash

    def _most_records(self) -> int:
        """So many that no record of the next turn is too large for its topic."""
        config = self._context.config
        plan = self._judge.plan if self._judges_by(config) else make_plan(config)
        return min(MOST_RECORDS, plan.most_events(MAX_MESSAGE_BYTES))

    async def _switch_to(self, config: Config) -> None:
        """Go on under another config: what is defined alike keeps its state, what is new starts empty."""
        if self._judges_by(config):
            return
        before, core = self._core, await self._state.new_core(config)
        await asyncio.to_thread(core.take_over, before)
        self._core = core
        log.info(
            "judge %d: config %s from turn %d on, that is from offsets %s; these start empty there: %s",
            self.partition,
            self._judge.config_hash,
            self._judge.turn,
            ", ".join(f"{TOPICS[topic]} {offset}" for topic, offset in self.order.positions.items()),
            ", ".join(starting_empty(before.judge.config, config)) or "none",
        )

    # -- turns ---------------------------------------------------------------------------------------------------

    async def take(self, batch: Batch) -> None:
        """Judge a fetched batch: as one turn, or cut as the recorded turns say.

        Raises
        ------
        Abandoned
            The partition is leaving; what was not judged is taken again by its next owner.
        """
        await self.outputs.room()
        topic = TOPICS.index(self._context.settings.role_of(batch.topic))
        await self.order.run(topic, batch, self._turn, most_records=self._most_records)

    async def take_labels(self, *, caught_up: bool) -> None:
        """Take in labels that no event waits for; all there are if the events are ``caught_up``."""

        async def take() -> None:
            newest_ms = None if caught_up else self._judge.newest_ms
            await self._take_new_labels(newest_ms, until=lambda: self.order.closing)

        await self.outputs.room()
        with contextlib.suppress(Abandoned):
            await self.order.between(self._turn, take)

    async def _turn(self, piece: Piece) -> None:
        if piece.recorded is None:
            await self._switch_to(self._context.config)
        else:
            await self._switch_to(await self._context.configs.kept(piece.recorded.config))
        if piece.recorded is not None and piece.recorded.takes_labels:
            with self._letting_go(_nothing_to_undo):
                self._stands_behind(piece.recorded)
                await self._take_in(await self._learning.recorded(piece))
            return
        batch = await _compute(len(piece.records), lambda: self._decode(piece))
        models = await self._prepare(piece, batch)
        inquiry = await _compute(len(piece.records), lambda: self._judge.ask(batch))
        answers = await self._answers(piece, inquiry, models)
        verdicts = await _compute(len(piece.records), lambda: self._core.verdicts(inquiry, answers))
        await self._learning.hand_on(self._judge, inquiry.turn)
        self.desk.done(inquiry.turn)
        self._context.meters.count_turn(TOPICS[piece.topic], self.partition, verdicts)
        self.outputs.put(verdicts)

    async def _answers(
        self, piece: Piece, inquiry: Inquiry, models: tuple[int, ...]
    ) -> Mapping[int, Answers]:
        with self._letting_go(self._judge.take_back):
            await self._ask(piece, inquiry, models)
            cut = piece.topic, piece.start, piece.next
            return await self.desk.wait(inquiry.turn, set(inquiry.questions), cut)

    @contextlib.contextmanager
    def _letting_go(self, take_back: Callable[[], bool]) -> Iterator[None]:
        """If the answers to a turn can not come any more, be as before it: whole, for a last checkpoint."""
        standing = self._log_position, self._log_claim
        try:
            yield
        except Abandoned as abandoned:
            if not self.desk.abandoned or not take_back():
                raise
            self._log_position, self._log_claim = standing
            raise TakenBack(str(abandoned)) from abandoned

    async def _prepare(self, piece: Piece, batch: EventBatch) -> tuple[int, ...]:
        """Let the models learn what was known before the events came; returns up to where, for the turn's record."""
        if not self._judge.supervised.names:
            return ()
        if piece.recorded is not None:
            return await self._learning.teach(self._judge, piece.recorded.models)
        times = batch.integers[0][batch.rejected == 0]
        await self._take_new_labels(max(self._judge.newest_ms, int(times.max(initial=0))))
        return await self._learning.teach(self._judge, None)

    async def _take_new_labels(
        self, newest_ms: int | None, *, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Take in the labels that are durable now, each stretch as a turn of its own; events wait for all of them."""
        limit_ms = None if newest_ms is None else newest_ms + self._judge.config.lateness_ms
        async for intake in self._learning.new(limit_ms=limit_ms):
            with self._letting_go(_nothing_to_undo):
                recorded = self._learning.record(intake, self._judge, self._claim.claim)
                self._log_position, self._log_claim = await recorded + 1, self._claim.claim
                fault_point("labels.recorded")
                await self._take_in(intake)
            if until():
                return

    async def _take_in(self, intake: Intake) -> None:
        # It asks nobody, but only a receipt shows that the turn is not void.
        await self.desk.wait(self._judge.turn, {self.partition}, intake.cut)
        before = self._core.labels_dropped
        verdicts = self._core.turn_of_labels(intake.batch, intake.labels)
        if dropped := self._core.labels_dropped - before:
            self._context.meters.count("labels_dropped_total", str(self.partition), by=dropped)
            log.warning("judge %d: too many labels wait: %d are dropped", self.partition, dropped)
        self.desk.done(verdicts.turn)
        self._learning.taken_in(intake)
        self.outputs.put(verdicts)

    def _stands_behind(self, turn: Turn) -> None:
        """Note where the log must be read from after this turn, and which claim is in force there."""
        self._log_position, self._log_claim = turn.offset + 1, turn.claim

    def _decode(self, piece: Piece) -> EventBatch:
        config, records = self._judge.config, piece.records
        batch = decode_json(
            [record.value or b"" for record in records],
            topic=TOPICS[piece.topic],
            partition=self.partition,
            start=piece.start,
            next=piece.next,
            offsets=np.array([record.offset for record in records], np.int64),
            record_ts_ms=np.array([record.timestamp for record in records], np.int64),
            attributes=config.attributes_used,
            fields=config.fields,
            strict_names=config.known_event_names if config.events.strict else None,
        )
        self._placement.look(batch)
        self._unlisted.look(batch, config, self._judge.config_hash)
        return batch

    async def _ask(self, piece: Piece, inquiry: Inquiry, models: tuple[int, ...]) -> None:
        """Make the turn durable on our own partition, only then ask the others."""
        plan, send = self._judge.plan, self._context.send

        def record(owner: int) -> bytes:
            return encode_sightings(
                sightings_of(inquiry, owner, plan, topic=piece.topic, claim=self._claim.claim, models=models)
            )

        if piece.recorded is None:
            fault_point("turn.before")
            sent = await send("sightings", self.partition, record(self.partition))
            self._log_position, self._log_claim = await sent + 1, self._claim.claim
            fault_point("turn.recorded")
        else:
            self._stands_behind(piece.recorded)
        others = [
            await send("sightings", owner, record(owner))
            for owner in inquiry.questions
            if owner != self.partition
        ]
        for sent in others:
            await sent
        fault_point("turn.asked")

    # -- leaving traces ------------------------------------------------------------------------------------------

    async def publish(self) -> None:
        """Send every count that changed since the last time to the rollup, and wait until it is durable there."""
        await self.order.at_rest(self._publish_changed)

    async def checkpoint(self) -> None:
        """Write the state as of the last turn, once every sink has that turn."""
        taken: list[Checkpoint] = []

        async def look() -> None:
            await self._publish_changed()
            if self._judge.turn > self.outputs.checkpointed:
                # Judged features go to files here, before the checkpoint that names them.
                snapshot = partial(to_its_end, self._snapshot)
                taken.append(await patiently(THE_STATE, snapshot))

        looked_s = time.monotonic()
        whole = await self.order.at_rest(look)
        if whole and not taken:
            self._checkpointed_s = looked_s
        for checkpoint in taken:
            try:
                await self.outputs.reach(checkpoint.position)
                await self._learning.prove()
            except Abandoned as abandoned:
                log.warning("judge %d: no checkpoint: %s", self.partition, abandoned)
                return
            fault_point("checkpoint.before")
            await self._state.save(checkpoint)
            self.outputs.checkpointed = checkpoint.position
            self._durable = checkpoint.meta
            self._checkpointed_s = looked_s
            await self._learning.checkpointed(checkpoint.meta)

    async def _publish_changed(self) -> None:
        idle = self._idle.look(
            self.order.positions, lambda topic: self._reader.caught_up(TOPICS[topic], self.partition)
        )
        newest_ms = {topic: self._judge.newest_of(topic) for topic in self.order.positions}
        self._unused.look(idle, newest_ms, self._judge.config)
        await self._publishing.publish(partial(self._core.changed_blocks, idle=idle))

    def _snapshot(self) -> Checkpoint:
        positions = {topic: self.order.positions[number] for number, topic in enumerate(TOPICS)}
        meta = self._state.stamped(
            config=self._judge.config_hash,
            positions=positions,
            log_position=self._log_position,
            answers_position=self.desk.durable_position(),
            letters_position=self.outputs.letters_position,
            claim=self._log_claim.hex(),
            **self._learning.notes(self._judge),
        )
        return Checkpoint(self._judge.turn, meta, self._core.snapshot())

    def samples(self) -> list[Sample]:
        """What this seat can be watched by."""
        place = str(self.partition)
        found = [
            Sample("waiting_rows", (place,), self.outputs.waiting_rows),
            Sample("checkpoint_age_seconds", ("judge", place), time.monotonic() - self._checkpointed_s),
            Sample("forgotten_event_ids_total", (place,), self._judge.forgotten_event_ids),
            Sample("forgotten_suspects_total", (place,), self._core.metrics.forgotten_suspects),
            Sample("sampling_level", (place,), self._core.metrics.sampling_level),
        ]
        if self._judge.watermark_ms > NEVER:
            found.append(Sample("watermark_seconds", (place,), self._judge.watermark_ms / 1000))
        return found

    def abandon(self) -> None:
        """Let go of the answers that cannot come any more; the turn that waits for them is taken again later."""
        self.desk.abandon()
        self._learning.leave()

    def cancel(self) -> None:
        """Stop writing at once."""
        self.outputs.cancel()

    async def close(self) -> None:
        """End the turn in progress, hand what is judged to the sinks; write a last checkpoint if the state is whole."""
        await self.order.close()
        await self.checkpoint()
        await self.outputs.close()


def _nothing_to_undo() -> bool:
    """Labels change nothing before their turn's receipt is there."""
    return True


async def _compute(rows: int, work: Callable[[], Result]) -> Result:
    if rows < _IN_THREAD_ROWS:
        return work()
    return await asyncio.to_thread(work)

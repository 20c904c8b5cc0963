"""The engine: the Faust app that judges events and owns the entities that users share.

Three agents, one actor a partition: ``judge`` takes the batches of both event topics in turns, ``profiles`` answers
what judges ask about entities, ``answers`` lays the answers on the desks of those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping
from typing import Any

from detectors.lists import ListBook
from schemas.config import Config
from schemas.errors import Abandoned
from schemas.events import TOPICS
from schemas.keys import KeyRing
from schemas.sightings import decode_answers
from streams.config_store import ConfigStore
from streams.context import Context
from streams.judge_seat import JudgeSeat
from streams.learning import Tails, make_tails
from streams.list_books import ListBooks
from streams.list_store import ListStore
from streams.log_reader import LogReader
from streams.meters import Pulse, Sample
from streams.pulse import Watchdog, measure
from streams.resending import sent_until_taken
from streams.security import kafka_brokers, redis_client
from streams.settings import Settings
from streams.shard_seat import ShardSeat
from streams.transport import (
    TP,
    Batch,
    BatchApp,
    FetchOptions,
    batch_agent,
    consumer_of,
    make_app,
    mark_up_to,
)

log = logging.getLogger(__name__)

PUBLISH_INTERVAL_S = 1.0
LABEL_INTERVAL_S = 1.0
CHECKPOINT_SHARE = 0.1
"""At most this share of the time goes into checkpoints, so a large state is written less often."""
CLOSE_TIMEOUT_S = 12.0
LEAVE_S = 2.0
"""For what could not be ended in CLOSE_TIMEOUT_S either: what it waits for is away."""
CLOSE_TAILS_S = 2.0
REVOKE_TIMEOUT_S = 4.0
MAX_RECORDS = 100_000
FETCH_BYTES = 4 * 1024 * 1024
"""What the broker sends of a partition at once makes the turns; large ones cost less an event."""


class Engine:
    """Seats of the partitions that this process owns, and the Faust app that feeds them.

    Parameters
    ----------
    settings, config, ring
        What the worker was started with.
    partitions
        Partition count of all topics.
    """

    def __init__(self, settings: Settings, config: Config, ring: KeyRing, *, partitions: int) -> None:
        self._settings = settings
        self._judges: dict[int, JudgeSeat] = {}
        self._shards: dict[int, ShardSeat] = {}
        self._upkeep: list[asyncio.Task[None]] = []
        self._watchdog, self._pause_s = Watchdog(), float(settings.checkpoint_every)
        self._leave_s = CLOSE_TIMEOUT_S
        self._tails: Tails | None = None
        self._reader = LogReader(settings, lambda: consumer_of(self.app))
        configs = ConfigStore(settings.state_store)
        configs.keep(config)
        self._context = Context(
            settings=settings,
            config=config,
            ring=ring,
            partitions=partitions,
            configs=configs,
            lists=ListBooks(ring, ListStore(settings.state_store, ring).content),
            send=self._send,
            redis=redis_client(settings),
        )
        self._lists: ListBook | None = None
        self.app = self._make_app()

    def _make_app(self) -> BatchApp:
        app = make_app(
            f"{self._settings.namespace}-engine",
            brokers=kafka_brokers(self._settings),
            group=self._settings.group,
            positions=self,
            fetch=FetchOptions(max_records=MAX_RECORDS, partition_bytes=FETCH_BYTES),
        )
        for role in TOPICS:
            batch_agent(app, self._settings.topic(role), self.judge)
        batch_agent(app, self._settings.topic("sightings"), self.profiles)
        batch_agent(app, self._settings.topic("answers"), self.answers)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_before_shutdown.connect(self._on_shutdown, weak=False)
        return app

    async def take_config(self, config: Config) -> None:
        """Let every judge go on under another config from its next new turn on.

        Raises
        ------
        StateError
            The content of a list is not kept.
        OSError
            The config can not be kept.
        """
        await asyncio.to_thread(self._context.configs.keep, config)
        # Held until all judges have switched: compiling is over before the first of them begins.
        self._lists = await asyncio.to_thread(self._context.lists.of, config)
        self._context.config = config

    # -- agents --------------------------------------------------------------------------------------------------

    async def judge(self, batches: AsyncIterator[Batch]) -> None:
        """Judge events, batch by batch."""
        async for batch in batches:
            await self._judge(batch)

    async def _judge(self, batch: Batch) -> None:
        # Apart from the loop, which waits long: there the seat would be held when it is given up already.
        if seat := self._judges.get(batch.partition):
            try:
                await seat.take(batch)
            except Abandoned:
                log.debug("judge %d: a turn is left to the next owner", batch.partition)

    async def profiles(self, batches: AsyncIterator[Batch]) -> None:
        """Count sightings and answer them."""
        async for batch in batches:
            await self._answer(batch)

    async def _answer(self, batch: Batch) -> None:
        if seat := self._shards.get(batch.partition):
            await seat.take(batch)

    async def answers(self, batches: AsyncIterator[Batch]) -> None:
        """Lay answers on the desk of the judge that waits for them."""
        async for batch in batches:
            self._lay_down(batch)

    def _lay_down(self, batch: Batch) -> None:
        if seat := self._judges.get(batch.partition):
            for record in batch.records:
                seat.desk.put(decode_answers(record.value or b""), record.offset)
            seat.desk.moved(batch.next)

    # -- positions (streams.positions.Positions) -----------------------------------------------------------------

    async def start_positions(self, tps: Collection[TP]) -> Mapping[TP, int]:
        """Take the seats of all assigned partitions and say from where each topic is read."""
        await self._leave()
        self._context.meters.count("rebalances_total")
        owned = sorted({tp.partition for tp in tps})
        shards = {p: ShardSeat(p, self._context, self._reader) for p in owned}
        if self._tails is None:
            self._tails = await asyncio.to_thread(make_tails, self._settings)
        tails = self._tails
        judges = {p: JudgeSeat(p, self._context, self._reader, tails) for p in owned}
        try:
            await asyncio.gather(
                *(shard.open() for shard in shards.values()), *(judge.open() for judge in judges.values())
            )
        except BaseException:  # the partitions left again meanwhile, or it failed
            for seat in judges.values():
                seat.cancel()
            raise
        self._shards, self._judges = shards, judges
        self._upkeep = [
            self._context.start(self._publish_loop(), "publish"),
            self._context.start(self._checkpoint_loop(), "checkpoint"),
            self._context.start(self._label_loop(), "labels"),
        ]
        return self._positions_of_seats()

    def _positions_of_seats(self) -> dict[TP, int]:
        name = self._settings.topic
        positions: dict[TP, int] = {}
        for partition, seat in self._judges.items():
            positions |= {TP(name(role), partition): at for role, at in seat.start_positions.items()}
            positions[TP(name("answers"), partition)] = seat.answers_start
        positions |= {TP(name("sightings"), owner): seat.position for owner, seat in self._shards.items()}
        return positions

    def abandon(self, generation: int) -> None:  # noqa: ARG002 - all seats are of one generation
        """Let every turn that waits for answers go."""
        for seat in self._judges.values():
            seat.abandon()

    def on_data_loss(self, tp: TP, expected: int, found: int) -> bool:  # noqa: ARG002 - whatever is lost
        """Accept no loss."""
        return False

    # -- upkeep --------------------------------------------------------------------------------------------------

    async def _publish_loop(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_INTERVAL_S)
            await asyncio.gather(*(seat.publish() for seat in self._judges.values()))

    async def _label_loop(self) -> None:
        """Labels also count where no event comes to take them along."""
        while True:
            await asyncio.sleep(LABEL_INTERVAL_S)
            taking = [seat.take_labels(caught_up=self._is_caught_up(p)) for p, seat in self._judges.items()]
            await asyncio.shield(
                asyncio.gather(*taking)
            )  # a turn that is begun ends, also when the partition leaves

    def _is_caught_up(self, partition: int) -> bool:
        return all(self._reader.caught_up(role, partition) for role in TOPICS)

    async def _checkpoint_loop(self) -> None:
        took_s = before_s = 0.0
        while True:
            # The quicker of the last two: one that waited for a sink that was away says nothing about the state.
            wanted_s = min(took_s, before_s) * (1 / CHECKPOINT_SHARE - 1)
            self._pause_s = max(float(self._settings.checkpoint_every), wanted_s)
            await asyncio.sleep(self._pause_s)
            began_s = time.monotonic()
            await self._checkpoint_all()
            took_s, before_s = time.monotonic() - began_s, took_s

    async def _checkpoint_all(self) -> None:
        await asyncio.gather(
            *(judge.checkpoint() for judge in self._judges.values()),
            *(shard.checkpoint() for shard in self._shards.values()),
        )
        consumer = consumer_of(self.app)
        for tp, position in self._durable_positions().items():
            mark_up_to(consumer, tp, position)

    def _durable_positions(self) -> dict[TP, int]:
        name = self._settings.topic
        positions: dict[TP, int] = {}
        for partition, seat in self._judges.items():
            positions |= {TP(name(role), partition): at for role, at in seat.durable_positions.items()}
        positions |= {TP(name("sightings"), owner): seat.checkpointed for owner, seat in self._shards.items()}
        return positions

    async def finish(self) -> None:
        """Between the signal and the stop, while answers still come: end the turns in progress and checkpoint.

        So the next start takes nothing again. What does not fit into the time does no harm, it is judged again.
        """
        for task in self._upkeep:
            task.cancel()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*(seat.close() for seat in self._judges.values()))
        except TimeoutError:
            self._leave_s = LEAVE_S
            log.warning(
                "the last turns did not end within %.0f s and are left to the next owner", CLOSE_TIMEOUT_S
            )

    async def _leave(self) -> None:
        """Give up all seats: hand on what is judged, write a last checkpoint where the state is whole."""
        for task in self._upkeep:
            task.cancel()
        judges, shards = list(self._judges.values()), list(self._shards.values())
        self._judges, self._shards, self._upkeep = {}, {}, []
        try:
            await asyncio.gather(*(seat.close() for seat in judges), *(seat.checkpoint() for seat in shards))
        finally:
            for seat in judges:
                seat.cancel()

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        await self._leave_within(REVOKE_TIMEOUT_S)

    async def _on_shutdown(self, *_: Any, **__: Any) -> None:
        await self._leave_within(self._leave_s)
        if self._tails is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TAILS_S):
                    await self._tails.close()

    async def _leave_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._leave()
        except TimeoutError:
            log.warning("leaving took longer than %.0f s: the next owner judges the rest again", seconds)

    def pulse(self) -> Pulse:
        """How the engine fares."""
        samples = list(self._context.meters.samples())
        samples += [sample for judge in self._judges.values() for sample in judge.samples()]
        samples += [sample for shard in self._shards.values() for sample in shard.samples()]
        entities = sum(shard.nbytes for shard in self._shards.values())
        samples.append(Sample("memory_bytes", ("entities",), entities))
        return measure(
            consumer_of(self.app),
            samples,
            watched=[self._settings.topic(role) for role in (*TOPICS, "sightings")],
            watchdog=self._watchdog,
            pause_s=self._pause_s,
        )

    # -- the way out ---------------------------------------------------------------------------------------------

    async def _send(
        self, topic: str, partition: int, value: bytes, key: bytes | None = None
    ) -> Awaitable[int]:
        """Send until it is taken. One that comes twice by that does no harm: turns and their answers have numbers."""

        async def send() -> Awaitable[Any]:
            name = self._settings.topic(topic)
            sent: Awaitable[Any] = await self.app.producer.send(name, key, value, partition, None, None)
            return sent

        return await sent_until_taken(send)

"""The rollup: a second Faust app that merges what the judges count into one number per metric.

It is a process of its own because every agent of an app stands still while a table of it recovers, and judging must
not. Its table holds one absolute block per (metric, window, campaign, source): a repeated or reordered block changes
nothing, an older one is refused by its turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgspec
from aiokafka.errors import KafkaError

from detectors.incident_alerts import IncidentAlerts
from metrics.kpi import KpiAlerts
from metrics.rollup import Rollup
from schemas.config import Config
from schemas.errors import FencedError
from schemas.incidents import INCIDENTS
from schemas.partials import KPI_METRICS, Block
from sinks.alert_channels import read_channels
from sinks.alert_stream import AlertStream
from sinks.faults import fault_point
from sinks.metric_files import MetricFiles
from sinks.metric_redis import MetricRedis
from streams.alert_delivery import AlertDelivery
from streams.alert_outbox import AlertOutbox
from streams.block_table import BlockTable, BlockTables
from streams.closed_days import ClosedDays
from streams.fatal import exit_code_of, stop_process
from streams.meters import Meters, Pulse, Sample
from streams.pulse import Watchdog, measure
from streams.security import kafka_brokers, redis_client
from streams.settings import Settings
from streams.shown_metrics import Owned, ShownMetrics, change_of
from streams.transport import TP, Batch, BatchApp, batch_agent, consumer_of, make_app, mark_up_to

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 1.0
FINISH_S = 15.0
"""After the signal to stop, for what is still to be shown."""
SETTLE_S = 1.5
LEAVE_S = 4.0
_LOOK_AGAIN_S = 0.02
FLUSH_SHARE = 1 / 3
"""Files are replaced whole; at most this share of the time goes into it, so large tables are replaced less often."""
LONGEST_PAUSE_S = 10.0
_LOOK_AT_REDIS_S = 5.0
"""Most of a long time was not work but an outage: what waits then must not wait twice as long again."""

_TABLE = "blocks"
_NO_BLOCKS = b"\x90"
_blocks_decoder = msgspec.msgpack.Decoder(list[Block])
_block_decoder = msgspec.msgpack.Decoder(Block)
_encoder = msgspec.msgpack.Encoder()


def pause_after(took_s: float) -> float:
    """Seconds to the next time that numbers are shown, after one that took so long."""
    return min(max(FLUSH_INTERVAL_S, took_s * (1 / FLUSH_SHARE - 1)), LONGEST_PAUSE_S)


def _turn_of(packed: bytes) -> int:
    return _block_decoder.decode(packed).turn


def _key_of(block: Block) -> bytes:
    return _encoder.encode((block.key, block.source))


def _blocks_of(batch: Batch) -> list[Block]:
    return [block for record in batch.records for block in _blocks_decoder.decode(record.value or _NO_BLOCKS)]


def changelog_name(group: str) -> str:
    """The table's changelog topic as Faust names it; it must exist, compacted, before the app starts."""
    return f"{group}-{_TABLE}-changelog"


class RollupApp:
    """The app, its table, and the merged numbers of the partitions that this process owns.

    Parameters
    ----------
    settings, config
        What the worker was started with.
    partitions
        Partition count of the partials topic and of the table.
    key_fingerprint
        Of the pseudonym key; Redis refuses another one.
    """

    def __init__(self, settings: Settings, config: Config, *, partitions: int, key_fingerprint: str) -> None:
        self._settings, self._config, self._partitions = settings, config, partitions
        self._topic = settings.topic("partials")
        self._owned: dict[int, Owned] = {}
        self._lock = asyncio.Lock()
        self._meters, self._watchdog = Meters(), Watchdog()
        redis = redis_client(settings)
        self._files = MetricFiles(settings.out_store)
        self._shown = ShownMetrics(
            self._files,
            MetricRedis(redis, key_fingerprint=key_fingerprint, namespace=settings.namespace),
        )
        self._delivery = AlertDelivery(
            settings,
            AlertStream(redis, namespace=settings.namespace),
            read_channels(config.alerts),
            give_up_s=config.alerts.give_up_ms / 1000,
            key_fingerprint=key_fingerprint,
            mark=lambda tp, position: mark_up_to(consumer_of(self.app), tp, position),
        )
        self._delivering: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._finishing = asyncio.Event()
        self._unsent: list[asyncio.Future[Any]] = []
        self.app = self._make_app()
        self._outbox = AlertOutbox(self.app, settings, partitions=partitions)
        self._table = BlockTable(self.app, name=_TABLE, partitions=partitions, turn_of=_turn_of)
        self.app.tables.add(self._table)

    async def take_config(self, config: Config) -> None:
        """Go on under another config: what is told of incidents and KPIs is decided anew from the blocks kept."""
        async with self._lock:
            self._config = config
            for partition, owned in self._owned.items():
                owned.incidents, owned.kpis = self._new_alerts()
                for block in map(_block_decoder.decode, self._table.values_of(partition)):
                    if block.key.metric == INCIDENTS or block.key.metric in KPI_METRICS:
                        owned.take_up(block)
                owned.written = -1  # what is told of the change waits for no event

    def _make_app(self) -> BatchApp:
        app = make_app(
            self._settings.rollup_group,
            brokers=kafka_brokers(self._settings),
            group=self._settings.rollup_group,
            tables=BlockTables,
        )
        batch_agent(app, self._topic, self.merge)
        batch_agent(app, self._settings.topic("alerts"), self.deliver)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_before_shutdown.connect(self._on_shutdown, weak=False)
        return app

    # -- merging -------------------------------------------------------------------------------------------------

    async def merge(self, batches: AsyncIterator[Batch]) -> None:
        """Merge blocks, and keep the newest of each source in the table."""
        async for batch in batches:
            async with self._lock:
                owned = self._owned.get(batch.partition)
                if owned is None or owned.position != batch.start:
                    owned = await self._take_over(batch)
                blocks = _blocks_of(batch)
                await owned.closed_days.take(blocks)
                # While we waited the partition may have left: the changelog is another's then.
                if not consumer_of(self.app).is_current(batch.generation):
                    continue
                self._owned[batch.partition] = owned
                for block in blocks:
                    if owned.put(block):
                        self._keep(batch.partition, block)
                owned.position = batch.next
            if self._flushing is None:
                self._flushing = asyncio.create_task(self._flush_loop())

    def _keep(self, partition: int, block: Block) -> None:
        self._table.put_in(partition, _key_of(block), _encoder.encode(block))

    async def _take_over(self, batch: Batch) -> Owned:
        """Begin a partition with what its table has."""
        merged = Rollup()
        closed_days = ClosedDays(self._files, batch.partition, merged)
        owned = Owned(merged, *self._new_alerts(), closed_days, batch.start)
        values = self._table.take_over(batch.partition)

        def take_up() -> None:
            for value in values:
                owned.take_up(_block_decoder.decode(value))

        await asyncio.to_thread(take_up)
        await closed_days.begin()
        return owned

    def _new_alerts(self) -> tuple[IncidentAlerts, KpiAlerts]:
        return IncidentAlerts(self._config), KpiAlerts(self._config, sources=self._partitions)

    def pulse(self) -> Pulse:
        """How the rollup fares."""
        return measure(
            consumer_of(self.app),
            [*self._meters.samples(), self._ignored_values(), *self._delivery.samples()],
            watched=[self._topic],
            watchdog=self._watchdog,
            pause_s=FLUSH_INTERVAL_S,
        )

    def _ignored_values(self) -> Sample:
        ignored = sum(owned.kpis.ignored for owned in self._owned.values())
        return Sample("kpi_values_ignored_total", (), ignored)

    async def deliver(self, batches: AsyncIterator[Batch]) -> None:
        """Hand alerts on to Redis, the table and the channels."""
        if self._delivering is None:
            self._delivering = asyncio.create_task(self._deliver_loop())
        await self._delivery.deliver(batches)

    async def _deliver_loop(self) -> None:
        try:
            await self._delivery.run()
        except Exception as error:  # noqa: BLE001 - whatever it was: alerts that nobody is told of
            stop_process(f"the delivery of alerts failed: {error}", exit_code=exit_code_of(error))

    # -- showing -------------------------------------------------------------------------------------------------

    async def _flush_loop(self) -> None:
        while not self._finishing.is_set():
            began = time.monotonic()
            # Everything is shown when a partition comes, which happens once: what came meanwhile need not wait for it.
            catches_up = any(owned.written < 0 for owned in self._owned.values())
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001 - whatever it was: numbers that stand still would look like truth
                stop_process(f"the rollup failed, the process stops: {error}", exit_code=exit_code_of(error))
            pause_s = FLUSH_INTERVAL_S if catches_up else pause_after(time.monotonic() - began)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), pause_s)

    async def finish(self) -> None:
        """Merge and show what the judges have published up to now; bounded, for others may go on publishing."""
        try:
            async with asyncio.timeout(FINISH_S):
                consumer = consumer_of(self.app)
                # Another worker may have left just now: its partitions are ours after the next heartbeat.
                await asyncio.sleep(SETTLE_S)
                while consumer.generation is None:  # noqa: ASYNC110 - the group tells nobody
                    await asyncio.sleep(_LOOK_AGAIN_S)
                await self._reach(self._topic, self._position)
                await self._last_flush()
                await self._reach(self._settings.topic("alerts"), self._delivered)
                await self._tell_channels()
        except TimeoutError:
            log.warning("not everything could be shown within %.0f s; the next owner does", FINISH_S)

    async def _last_flush(self) -> None:
        """Show the rest. A flush under way ends first: cut short, it would have taken what no other one shows."""
        self._finishing.set()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self.flush()

    async def _tell_channels(self) -> None:
        """Let the channels have what waits; one that is dead is left to the next owner."""
        try:
            async with asyncio.timeout(LEAVE_S):
                while not self._delivery.is_idle:  # noqa: ASYNC110 - they tell nobody
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError:
            log.warning("some alerts still wait for their channels; the next owner tells them")

    async def _reach(self, topic: str, position: Callable[[TP], int]) -> None:
        """Wait until what the owned partitions of a topic hold now is taken."""
        consumer = consumer_of(self.app)
        tps = [TP(topic, p) for p in range(self._partitions)]
        owned = [tp for tp in tps if consumer.durable(tp) is not None]
        for tp, end in (await consumer.end_offsets(owned)).items():
            while position(tp) < end:  # noqa: ASYNC110 - the agent tells nobody
                await asyncio.sleep(_LOOK_AGAIN_S)

    def _position(self, tp: TP) -> int:
        owned = self._owned.get(tp.partition)
        return owned.position if owned is not None else consumer_of(self.app).durable(tp) or 0

    def _delivered(self, tp: TP) -> int:
        return self._delivery.position(tp.partition) or consumer_of(self.app).durable(tp) or 0

    async def flush(self) -> None:
        """Show what changed since the last time, then let the positions follow."""
        for partition, owned in list(self._owned.items()):
            self._table.tidy(partition)
            if owned.position == owned.written and not await self._is_forgotten(partition, owned):
                continue
            try:
                await self._flush_partition(partition, owned)
            except FencedError as error:
                log.warning("a newer owner shows these numbers: %s", error)
                owned.written = -1  # if it is not, all of them must be shown

    async def _is_forgotten(self, partition: int, owned: Owned) -> bool:
        """Whether Redis has to be shown everything again although nothing has changed; asked from time to time."""
        if time.monotonic() - owned.looked_s < _LOOK_AT_REDIS_S:
            return False
        owned.looked_s = time.monotonic()
        if await self._shown.has_forgotten(partition):
            log.error("Redis lost the numbers of partition %d; all of them are shown anew", partition)
            owned.written = -1
        return owned.written < 0

    async def _flush_partition(self, partition: int, owned: Owned) -> None:
        async with self._lock:
            position = owned.position
            await self._tell_incidents(partition, owned.incidents)
            await asyncio.to_thread(owned.kpis.advance)
            self._keep_decisions(partition, owned.kpis)
            self._unsent += self._table.take_unsent()
            change = await asyncio.to_thread(change_of, owned.merged, first=owned.written < 0)
        await self._tell(owned.kpis)
        await self._shown.show(partition, owned, position, change)
        fault_point("rollup.shown")
        owned.written = position
        await self._changelog_durable()
        fault_point("rollup.durable")
        mark_up_to(consumer_of(self.app), TP(self._topic, partition), position)
        await self._close_days(partition, owned)

    async def _close_days(self, partition: int, owned: Owned) -> None:
        """Let go of days that are over; all that was merged of them has been shown."""
        for day in owned.closed_days.due():
            blocks = await owned.closed_days.archive(day, owned.position)
            fault_point("rollup.archived")
            async with self._lock:
                # While we waited the partition may have left.
                if blocks and self._owned.get(partition) is owned:
                    for block in blocks:
                        self._table.drop_in(partition, _key_of(block))
                    owned.closed_days.close(day)
            fault_point("rollup.closed")

    def _keep_decisions(self, partition: int, kpis: KpiAlerts) -> None:
        """Keep what was decided about windows that have closed, and drop their blocks."""
        for place, block in kpis.changes():
            key = _encoder.encode(place)
            if block is None:
                self._table.drop_in(partition, key)
            else:
                self._table.put_in(partition, key, _encoder.encode(block))

    async def _tell(self, kpis: KpiAlerts) -> None:
        """Tell what was decided, which must be durable before: judged again it might come out otherwise."""
        alerts = kpis.untold
        if alerts:
            await self._changelog_durable()
            await self._outbox.tell(alerts)
            kpis.told()

    async def _tell_incidents(self, partition: int, incidents: IncidentAlerts) -> None:
        """Tell what is due; the note that it was told is set only when the outbox has it."""
        due = incidents.due()
        await self._outbox.tell(alert for alert, _ in due)
        for _, note in due:
            incidents.told(note)
            self._keep(partition, note)
        for place in incidents.forget():
            self._table.drop_in(partition, _encoder.encode(place))

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        self._meters.count("rebalances_total")
        await self._leave()

    async def _on_shutdown(self, *_: Any, **__: Any) -> None:
        await self._leave()

    async def _changelog_durable(self) -> None:
        """Wait until the table's changelog has everything that was merged before the last flush.

        Raises whatever one of them failed by: what the changelog lacks must be merged again.
        """
        while self._unsent:
            waited = list(self._unsent)
            for sent in waited:
                await sent
            self._unsent = self._unsent[len(waited) :]

    async def _leave(self) -> None:
        """Give the partitions up; nothing of ours may reach the changelog behind what the next owner writes."""
        await self._stop_flushing()
        self._unsent += self._table.take_unsent()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._changelog_durable()
        except (TimeoutError, KafkaError) as error:
            log.warning("the changelog is not complete (%r); the next owner merges again", error)
        self._unsent = []
        self._owned.clear()
        self._delivery.leave()

    async def _stop_flushing(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
            self._flushing = None

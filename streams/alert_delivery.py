"""What the topic ``alerts`` has goes out: to the Redis stream, to the table, and to the channels where people look.

The first two are waited for, in this order; then the alert waits for its channels in a queue of each, and the
position of the topic follows when they have ended and that is in the table ``deliveries/``. So after a crash nothing
is lost, and who is told twice can tell by the key.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

from schemas.alerts import Alert, decode_alert
from schemas.errors import StateError
from sinks.alert_channels import Channel
from sinks.alert_stream import AlertStream
from sinks.alert_tables import AlertTables, Delivery
from sinks.patience import patiently
from streams.alert_notifier import Notifier
from streams.meters import Sample
from streams.settings import Settings
from streams.transport import TP, Batch

log = logging.getLogger(__name__)

Told = list[tuple[int, Alert]]
"""Alerts with their offsets."""
Mark = Callable[[TP, int], None]


@dataclass
class _Entry:
    """One batch: how many deliveries are still to end, and how the others did."""

    next: int
    left: int
    ended: list[Delivery] = field(default_factory=list)


@dataclass
class _Seat:
    """What this process knows of one partition of the topic."""

    tables: AlertTables
    delivered: int
    """Offset below which all deliveries had ended when the partition was taken over."""
    position: int
    """Offset up to which Redis and the table have everything."""
    entries: deque[_Entry] = field(default_factory=deque)
    """Batches whose deliveries have not all ended, and those behind them."""


class AlertDelivery:
    """The way of alerts from the topic to everybody.

    Parameters
    ----------
    settings
        For the sink's folder and the topic's name.
    stream
        The Redis stream.
    channels
        Who is told.
    give_up_s
        For how long a channel is tried.
    key_fingerprint
        Of the pseudonym key.
    mark
        Notes that a position of the topic is durable.
    """

    def __init__(
        self,
        settings: Settings,
        stream: AlertStream,
        channels: Sequence[Channel],
        *,
        give_up_s: float,
        key_fingerprint: str,
        mark: Mark,
    ) -> None:
        self._settings, self._stream, self._mark = settings, stream, mark
        self._key_fingerprint = key_fingerprint
        self._notifiers = [Notifier(channel, stream, give_up_s=give_up_s) for channel in channels]
        self._seats: dict[int, _Seat] = {}
        self._left = 0
        """How often the partitions were given up."""
        self._ended = asyncio.Event()

    # -- the agent -----------------------------------------------------------------------------------------------

    async def deliver(self, batches: AsyncIterator[Batch]) -> None:
        """Take the alerts of one partition, batch by batch."""
        async for batch in batches:
            left = self._left
            seat = self._seats.get(batch.partition) or await self._take_over(batch)
            told = _alerts_of(batch)
            alerts = [alert for _, alert in told]
            if alerts:
                await patiently("Redis", partial(self._stream.add, alerts))
                write = partial(seat.tables.write_alerts, alerts, next_=batch.next)
                await patiently("the alerts table", partial(asyncio.to_thread, write))
            if left != self._left:
                continue  # meanwhile the partition left: its next owner tells the channels
            self._seats[batch.partition] = seat
            self._queue(seat, told, batch.next)
            seat.position = batch.next

    async def _take_over(self, batch: Batch) -> _Seat:
        tables = AlertTables(self._settings.out_store, batch.partition, key_fingerprint=self._key_fingerprint)
        delivered = await patiently("the alerts table", partial(asyncio.to_thread, tables.open))
        return _Seat(tables, delivered, batch.start)

    def _queue(self, seat: _Seat, told: Told, next_: int) -> None:
        wanted = [
            (notifier, offset, alert)
            for offset, alert in told
            if offset >= seat.delivered
            for notifier in self._notifiers
            if notifier.channel.wants(alert)
        ]
        entry = _Entry(next_, len(wanted))
        seat.entries.append(entry)

        def ended(delivery: Delivery | None) -> None:
            entry.left -= 1
            if delivery is not None:
                entry.ended.append(delivery)
            self._ended.set()

        for notifier, offset, alert in wanted:
            notifier.put(alert, offset, ended)
        self._ended.set()

    # -- upkeep --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell the channels and let the positions follow, for ever."""
        async with asyncio.TaskGroup() as group:
            for notifier in self._notifiers:
                group.create_task(notifier.run())
            while True:
                await self._ended.wait()
                self._ended.clear()
                await self.settle()

    async def settle(self) -> None:
        """Note what has ended, and mark the positions below which nothing is open any more."""
        for partition, seat in list(self._seats.items()):
            done = list(takewhile(lambda entry: entry.left == 0, seat.entries))
            if not done:
                continue
            deliveries, next_ = [each for entry in done for each in entry.ended], done[-1].next
            if deliveries:
                write = partial(seat.tables.write_deliveries, deliveries, next_=next_)
                await patiently("the table of deliveries", partial(asyncio.to_thread, write))
            for _ in done:
                seat.entries.popleft()
            self._mark(TP(self._settings.topic("alerts"), partition), next_)

    def position(self, partition: int) -> int | None:
        """Offset up to which Redis and the table have everything; None before the first batch."""
        seat = self._seats.get(partition)
        return None if seat is None else seat.position

    def samples(self) -> list[Sample]:
        """How the channels fare."""
        return [sample for notifier in self._notifiers for sample in notifier.samples()]

    @property
    def is_idle(self) -> bool:
        """Whether no delivery is open."""
        return not any(seat.entries for seat in self._seats.values())

    def leave(self) -> None:
        """Give all partitions up; what is open is delivered by the next owner."""
        for notifier in self._notifiers:
            notifier.clear()
        self._seats.clear()
        self._left += 1


def _alerts_of(batch: Batch) -> Told:
    told: Told = []
    for record in batch.records:
        try:
            told.append((record.offset, decode_alert(record.value or b"")))
        except StateError as error:
            log.error("%s-%d at %d is no alert: %s", batch.topic, batch.partition, record.offset, error)
    return told

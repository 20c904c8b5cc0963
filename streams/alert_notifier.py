"""Telling people: one queue a channel, so that one which is dead keeps no other waiting."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from schemas.alerts import Alert
from sinks.alert_channels import Channel
from sinks.alert_stream import AlertStream
from sinks.alert_tables import Delivery
from sinks.patience import patiently
from streams.meters import Sample

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Alerts that wait for a channel; beyond that the oldest is given up, so that memory stays flat."""
_AT_ONCE = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0

Ended = Callable[[Delivery | None], None]
"""Told how a delivery ended; None: the channel had been told before, by another record of the same alert."""


@dataclass(eq=False)
class _Waiting:
    alert: Alert
    offset: int
    ended: Ended
    since_s: float
    attempts: int = 0


class Notifier:
    """The queue of one channel.

    Delivery: at least once while the channel is back within ``give_up_s``; otherwise the delivery ends as ``failed``.
    What was sent is remembered in Redis, so that a restart seldom sends twice.

    Parameters
    ----------
    channel
        Who is told.
    stream
        Remembers what was sent.
    give_up_s
        For how long an alert is tried.
    """

    def __init__(self, channel: Channel, stream: AlertStream, *, give_up_s: float) -> None:
        self.channel, self._stream, self._give_up_s = channel, stream, give_up_s
        self._waiting: deque[_Waiting] = deque()
        self._came = asyncio.Event()
        self._outcomes: Counter[str] = Counter()

    def samples(self) -> Iterator[Sample]:
        """How many wait, and how many ended since the process began."""
        yield Sample("alert_deliveries_waiting", (self.channel.name,), len(self._waiting))
        for outcome, deliveries in self._outcomes.items():
            yield Sample("alert_deliveries_total", (self.channel.name, outcome), deliveries)

    def put(self, alert: Alert, offset: int, ended: Ended) -> None:
        """Take an alert; ``ended`` is called once, later."""
        if len(self._waiting) >= MOST_WAITING:
            self._end(self._waiting[0], "failed", "too many alerts were waiting for the channel")
        self._waiting.append(_Waiting(alert, offset, ended, time.monotonic()))
        self._came.set()

    def clear(self) -> None:
        """Forget what waits: its partitions are another's now."""
        self._waiting.clear()

    async def run(self) -> None:
        """Send for ever."""
        pause_s = _FIRST_PAUSE_S
        while True:
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
            if await self._send_some():
                pause_s = _FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _send_some(self) -> bool:
        """Tell of what waits longest; false when a pause is due. It leaves the queue when it has ended."""
        batch: dict[str, _Waiting] = {}
        for waiting in list(self._waiting)[:_AT_ONCE]:
            if waiting.alert.key in batch:
                continue  # the same alert again: its turn comes when this one has ended
            sent_at = await patiently(
                "Redis", partial(self._stream.sent_at, self.channel.name, waiting.alert)
            )
            if sent_at is None:
                batch[waiting.alert.key] = waiting
            else:
                # The same record, after a crash; or another one of the same alert, which is no delivery.
                self._end(waiting, "sent" if sent_at == waiting.offset else None)
        if not batch:
            return True
        replies = await self.channel.send([waiting.alert for waiting in batch.values()])
        for waiting, reply in zip(batch.values(), replies, strict=True):
            waiting.attempts += 1
            if reply.sent:
                note = partial(
                    self._stream.note_sent, self.channel.name, waiting.alert, offset=waiting.offset
                )
                await patiently("Redis", note)
                self._end(waiting, "sent")
            elif not reply.again or time.monotonic() - waiting.since_s >= self._give_up_s:
                self._end(waiting, "failed", reply.reason)
        return all(reply.sent or not reply.again for reply in replies)

    def _end(self, waiting: _Waiting, outcome: str | None, reason: str | None = None) -> None:
        """Say how it ended, unless its partition left meanwhile."""
        if waiting not in self._waiting:
            return
        self._waiting.remove(waiting)
        if outcome is None:
            waiting.ended(None)
            return
        self._outcomes[outcome] += 1
        if outcome == "failed":
            log.error("channel %s was not told of alert %s: %s", self.channel.name, waiting.alert.id, reason)
        delivery = Delivery(
            offset=waiting.offset,
            alert=waiting.alert,
            channel=self.channel.name,
            outcome=outcome,
            attempts=waiting.attempts,
            reason=reason,
            ended_ms=time.time_ns() // 1_000_000,
        )
        waiting.ended(delivery)

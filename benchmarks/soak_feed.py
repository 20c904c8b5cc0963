"""Events for a soak, without end: the same people again and again, each time as new events of a later time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import orjson
from confluent_kafka import Producer

from benchmarks.events import EVENTS_PER_S, FIRST_MS, make_events
from schemas.events import PARTICIPATION_EVENTS
from tests.installation import Installation

CYCLE = 200_000
"""Events that are sent again and again: so the population is bounded."""
_TIME_FACTOR = 20
"""Event time runs so much faster: windows of a day are full after some minutes, and memory has no reason to grow."""
_CHUNK = 500
_PATIENCE_S = 300.0


class Feed:
    """Sends events for as long as it is asked to, and remembers how many of each name and campaign.

    Parameters
    ----------
    installation
        Where to.
    """

    def __init__(self, installation: Installation) -> None:
        self._clicks, self._participations = installation.topics("clicks", "participations")
        self._producer = Producer(
            {
                "bootstrap.servers": installation.kafka.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": 2,
                "queue.buffering.max.messages": 2 * CYCLE,
                "topic.metadata.propagation.max.ms": 120_000,
            }
        )
        self._rows = make_events(CYCLE).rows(0, CYCLE)
        self._refused: list[object] = []
        self._stop = threading.Event()
        self._sending: Future[None] | None = None
        self.sent = 0
        self.by_name: Counter[tuple[str, str]] = Counter()

    def send(self, count: int) -> None:
        """Send the next so many events as fast as Kafka takes them; returns when it has them."""
        for number in range(self.sent, self.sent + count):
            cycle, place = divmod(number, CYCLE)
            row = self._rows[place]
            name, since_ms = row["event"], row["ts"] - FIRST_MS + cycle * CYCLE * 1000 // EVENTS_PER_S
            event = row | {"event_id": f"e{number:010d}", "ts": FIRST_MS + _TIME_FACTOR * since_ms}
            self._producer.produce(
                self._participations if name in PARTICIPATION_EVENTS else self._clicks,
                orjson.dumps(event),
                row["user_id"],
                on_delivery=self._delivered,
            )
            self.by_name[name, row["campaign"]] += 1
        self.sent += count
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until Kafka has all that was sent."""
        if self._producer.flush(_PATIENCE_S) or self._refused:
            raise RuntimeError(f"Kafka does not take events: {self._refused[:1]}")

    def _delivered(self, error: object, _: object) -> None:
        if error is not None:
            self._refused.append(error)

    @contextmanager
    def running(self, rate: float) -> Iterator[None]:
        """Send so many events a second while the block runs; a feed that ends before is an error."""
        with ThreadPoolExecutor(1) as pool:
            self._sending = pool.submit(self._keep_sending, rate)
            try:
                yield
            finally:
                self._stop.set()
            self._sending.result(_PATIENCE_S)
        self.flush()

    def require_alive(self) -> None:
        """Raise what sending ended by, if it has ended."""
        if self._sending is not None and self._sending.done():
            self._sending.result()
            raise RuntimeError("the feed has ended by itself")

    def _keep_sending(self, rate: float) -> None:
        began_s, begins_at = time.monotonic(), self.sent
        while not self._stop.is_set():
            self.send(_CHUNK)
            ahead_s = (self.sent - begins_at) / rate - (time.monotonic() - began_s)
            self._stop.wait(max(0.0, ahead_s))

"""Publishes a simulated campaign at a steady pace, never further ahead of the worker than the broker remembers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from console.mock_kafka import PARTITIONS, RETAINED_BYTES
from schemas.config import Config
from schemas.errors import UnreachableError
from schemas.events import TOPICS
from simulation.campaign import Campaign
from simulation.rendering import TRUTH_COLUMNS
from streams.routing import topic_of
from streams.settings import Settings

LINGER_MS = 1_000
"""The broker hands out one produced batch a partition and fetch, so few large ones let the judges take few turns."""
AHEAD_BYTES = RETAINED_BYTES * 4 // 5
"""Of JSON in one partition, published but not committed by the worker; compressed it is less than a third of that."""
_TRUTH = ("event_id", "user_id", "label", *TRUTH_COLUMNS)
_SLICE_ROWS = 50
_LOOK_AGAIN_S = 0.2
_ANSWER_S = 10.0

Table = Any


class Publisher:
    """A thread that publishes; what it knows may be read at any time.

    Parameters
    ----------
    campaign
        What happens.
    settings, config
        Where the broker is and which topic an event belongs to.
    truth
        File to write: who was planted. The engine is never told.
    rate
        Events a second.
    """

    def __init__(
        self, campaign: Campaign, settings: Settings, config: Config, *, truth: Path, rate: float
    ) -> None:
        self._campaign, self._settings, self._config = campaign, settings, config
        self._truth, self._rate = truth, rate
        self._acknowledged: dict[tuple[str, int], list[int]] = {
            (settings.topic(role), partition): [0] for role in TOPICS for partition in range(PARTITIONS)
        }
        self._committed: dict[tuple[str, int], int] = {}
        self._stop = threading.Event()
        self._refusal: KafkaError | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self.published = 0
        """Events that the broker has confirmed."""
        self.event_time_ms = campaign.start_ms
        """Of the newest event."""

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def stop(self) -> None:
        """Publish nothing more; returns when the thread has ended."""
        self._stop.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        """Whether everything is published.

        Raises
        ------
        UnreachableError
            It failed.
        """
        if self._failure is not None:
            raise UnreachableError(f"the campaign could not be published: {self._failure}") from self._failure
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._publish()
        except Exception as error:  # noqa: BLE001 - whatever it was: `done` raises it in the thread that waits
            self._failure = error

    def _publish(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self._settings.brokers,
                "partitioner": "murmur2_random",  # as the Java clients
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": LINGER_MS,
                "on_delivery": self._on_delivery,
            }
        )
        group = Consumer({"bootstrap.servers": self._settings.brokers, "group.id": self._settings.group})
        began_s, sent = time.monotonic(), 0
        try:
            for events in self._slices():
                self._wait_for_worker(group)
                for event in events:
                    topic = self._settings.topic(topic_of(event, self._config))
                    producer.produce(topic, orjson.dumps(event), key=event[self._named("user_id")])
                sent += len(events)
                self.event_time_ms = events[-1][self._named("ts")]
                producer.poll(0)
                if self._stop.wait(max(0.0, began_s + sent / self._rate - time.monotonic())):
                    producer.purge()
                    return
            producer.flush(_ANSWER_S)
        finally:
            group.close()
        if self._refusal is not None:
            raise KafkaException(self._refusal)

    def _slices(self) -> Iterator[list[dict[str, Any]]]:
        """A few events at a time, without what is absent and without the truth, which is written to its file."""
        writer = None
        try:
            for table in self._campaign.batches():
                truth = table.select(list(_TRUTH))
                writer = writer or pq.ParquetWriter(self._truth, truth.schema, compression="zstd")
                writer.write_table(truth)
                seen = table.drop_columns([*TRUTH_COLUMNS, "label"])
                for first in range(0, seen.num_rows, _SLICE_ROWS):
                    yield [self._event(row) for row in seen.slice(first, _SLICE_ROWS).to_pylist()]
        finally:
            if writer is not None:
                writer.close()

    def _event(self, row: dict[str, Any]) -> dict[str, Any]:
        return {self._named(name): value for name, value in row.items() if value is not None}

    def _named(self, field: str) -> str:
        """As the config's field map calls it."""
        return self._config.fields.get(field, field)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refusal = error
            return
        sizes = self._acknowledged[message.topic() or "", message.partition() or 0]
        # Nobody else publishes: the record at offset n is our n-th there.
        sizes.append(sizes[-1] + len(message.value() or b""))
        self.published += 1

    def _wait_for_worker(self, group: Consumer) -> None:
        """Wait while the worker has committed too little of what a partition got."""
        while self._is_far_ahead() and not self._stop.is_set():
            asked = [TopicPartition(*source) for source in self._acknowledged]
            for tp in group.committed(asked, timeout=_ANSWER_S):
                self._committed[tp.topic, tp.partition] = max(0, tp.offset)  # negative: nothing yet
            if self._is_far_ahead():
                self._stop.wait(_LOOK_AGAIN_S)

    def _is_far_ahead(self) -> bool:
        return any(
            sizes[-1] - sizes[self._committed.get(source, 0)] > AHEAD_BYTES
            for source, sizes in self._acknowledged.items()
        )

"""Load: publish a recording to Kafka, keyed, partitioned and routed as the engine expects it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError
from kafka.partitioner.default import murmur2

from schemas.config import Config
from schemas.config_findings import show
from schemas.errors import UnreachableError
from schemas.events import EARLIEST_TS_MS, REQUIRED_FIELDS, TOPICS
from schemas.labels import LABELS
from streams import recordings
from streams.installation import MAX_MESSAGE_BYTES, ensure_event_topics, ensure_labels
from streams.recorded_labels import label_records
from streams.recordings import unseen
from streams.routing import topic_of
from streams.security import kafka_brokers
from streams.settings import Settings
from streams.topics import open_topics

log = logging.getLogger(__name__)

_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What was published: records by topic (labels too), rows that no broker would take, and times that are none.

    ``odd_times`` counts published rows whose ``ts`` is no epoch millisecond of this century or the last years of the
    one before, ``odd_time`` is the first of them: the engine will reject them. So it will ``incomplete`` rows, each of
    which lacks one of ``lacking``: fields by their names in the recording.
    """

    published: Mapping[str, int]
    too_large: int
    seconds: float
    odd_times: int
    odd_time: str
    incomplete: int
    lacking: tuple[str, ...]


def load(
    paths: Sequence[Path],
    settings: Settings,
    config: Config,
    *,
    rate: float | None = None,
    speed: float | None = None,
    label_delay_ms: int | None = None,
    progress: Callable[[int], None] = unseen,
) -> LoadSummary:
    """Publish every row in order; returns when all are acknowledged.

    Parameters
    ----------
    paths
        The files, in order.
    settings, config
        Brokers; topic names, routing and field map.
    rate
        At most so many events a second.
    speed
        Keep the events' own pace, so many times as fast.
    label_delay_ms
        Publish recorded labels too, each with the time at which it becomes known: so long after its event. They are
        in Kafka before their events are, so that none comes too late to be learned at its time. None: no labels.
    progress
        Told the rows of each slice.

    Raises
    ------
    UnreachableError
        The brokers did not answer, or did not take a record.
    RecordingError
        A file can not be read.
    """
    partitions, label_partitions = _ensure_topics(settings, labels=label_delay_ms is not None)
    producer = KafkaProducer(
        **kafka_brokers(settings).kafka_python_options(),
        acks="all",
        linger_ms=20,
        batch_size=256 * 1024,
        max_request_size=MAX_MESSAGE_BYTES,
    )
    published, too_large, started = dict.fromkeys(TOPICS, 0), 0, time.monotonic()
    pace, times, gaps = _Pace(rate, speed), _OddTimes(config), _Gaps(config)
    failures: list[BaseException] = []
    try:
        for chunk in recordings.raw_events(paths, config.fields):
            for key, value in label_records(chunk, config, label_delay_ms):
                partition = _partition(key, label_partitions)
                producer.send(settings.topic(LABELS), value, key=key, partition=partition).add_errback(
                    failures.append
                )
                published[LABELS] = published.get(LABELS, 0) + 1
            if label_delay_ms is not None:
                producer.flush()  # a label must be there before its event is
            for value, event in chunk:
                times.look(event)
                gaps.look(event)
                pace.wait(event, config)
                topic, key = topic_of(event, config), _key(event, config)
                try:
                    producer.send(
                        settings.topic(topic), value, key=key, partition=_partition(key, partitions)
                    ).add_errback(failures.append)
                except MessageSizeTooLargeError:
                    too_large += 1
                    continue
                published[topic] += 1
            progress(len(chunk))
        producer.flush()
    except KafkaError as error:
        raise UnreachableError(f"Kafka at {settings.brokers} did not take the events: {error}") from error
    finally:
        # What is not acknowledged by now never will be: an interrupted load does not wait for a broker that is gone.
        producer.close(timeout=_CLOSE_S)
    if failures:
        raise UnreachableError(f"Kafka did not take {len(failures)} events; the first said {failures[0]!r}")
    seconds = time.monotonic() - started
    return LoadSummary(
        published, too_large, seconds, times.count, times.first, gaps.count, tuple(sorted(gaps.names))
    )


def _ensure_topics(settings: Settings, *, labels: bool) -> tuple[int, int]:
    """Partition counts of the event topics and, if ``labels``, of the labels."""
    with open_topics(kafka_brokers(settings), wait_s=settings.wait_s) as topics:
        return ensure_event_topics(topics, settings), ensure_labels(topics, settings) if labels else 0


def _key(event: dict[str, Any] | None, config: Config) -> bytes:
    """The user; a broken event has none and goes to the partition of the empty key."""
    user = None if event is None else event.get(config.fields.get("user_id", "user_id"))
    return b"" if user is None else str(user).encode(errors="replace")


def _partition(key: bytes, partitions: int) -> int:
    """As the Java clients place a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class _OddTimes:
    """Counts rows whose time the engine will reject: a file of seconds, or of dates, is noticed at once."""

    def __init__(self, config: Config) -> None:
        self._field = config.fields.get("ts", "ts")
        self.count, self.first = 0, ""

    def look(self, event: dict[str, Any] | None) -> None:
        ts = (event or {}).get(self._field, EARLIEST_TS_MS)
        if isinstance(ts, int) and ts >= EARLIEST_TS_MS:
            return
        self.first = self.first if self.count else show(ts)
        self.count += 1


class _Gaps:
    """Counts rows without what every event has: a file that names its fields otherwise is noticed at once."""

    def __init__(self, config: Config) -> None:
        self._needed = [config.fields.get(name, name) for name in REQUIRED_FIELDS]
        self.count, self.names = 0, set[str]()

    def look(self, event: dict[str, Any] | None) -> None:
        if event is None:
            return
        missing = [name for name in self._needed if event.get(name) is None]
        self.names.update(missing)
        self.count += bool(missing)


class _Pace:
    """Holds events back to a rate, or to their own time."""

    def __init__(self, rate: float | None, speed: float | None) -> None:
        self._rate, self._speed = rate, speed
        self._sent, self._started = 0, time.monotonic()
        self._first_ms: int | None = None

    def wait(self, event: dict[str, Any] | None, config: Config) -> None:
        due_s = 0.0
        if self._rate is not None:
            due_s = self._sent / self._rate
        ts = (event or {}).get(config.fields.get("ts", "ts"))
        if self._speed is not None and isinstance(ts, int):
            self._first_ms = ts if self._first_ms is None else self._first_ms
            due_s = (ts - self._first_ms) / 1000 / self._speed
        self._sent += 1
        early_s = self._started + due_s - time.monotonic()
        if early_s > 0:
            time.sleep(early_s)

"""Topics full of events for the contenders, loaded as a producer of the field would."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.events import NAMES, Events
from schemas.config import Config

PARTITIONS = 4
_TIMEOUT_S = 60.0
_SLICE = 50_000


def create(bootstrap: str, topics: Collection[str]) -> None:
    """Make topics and wait until they are there."""
    admin = _admin(bootstrap)
    for done in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics]).values():
        done.result(_TIMEOUT_S)


def delete(bootstrap: str, topics: Collection[str]) -> None:
    """Remove those of the topics that are there, so that the disk does not fill up."""
    admin = _admin(bootstrap)
    present = set(admin.list_topics(timeout=_TIMEOUT_S).topics)
    for done in admin.delete_topics(sorted(present.intersection(topics))).values():
        done.result(_TIMEOUT_S)


def end_offsets(bootstrap: str, topic: str) -> list[int]:
    """End of each partition's log."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "nobody"})
    try:
        return [
            consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S)[1]
            for partition in range(PARTITIONS)
        ]
    finally:
        consumer.close()


def load(bootstrap: str, events: Events, config: Config, topics: Mapping[str, str]) -> None:
    """Publish all events, keyed by user, each to the topic (``topics``: role to name) where its name belongs.

    Raises
    ------
    KafkaException
        The broker did not take one.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            # As the Java clients place a key; librdkafka's own default is another.
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 400_000,
            "queue.buffering.max.kbytes": 400_000,
        }
    )
    topic_of = [topics[config.topic_of(name)] for name in NAMES]
    failed: list[object] = []
    for first in range(0, len(events), _SLICE):
        last = min(first + _SLICE, len(events))
        users, names = events.user[first:last].tolist(), events.name[first:last].tolist()
        for line, user, name in zip(events.lines(first, last), users, names, strict=True):
            producer.produce(
                topic_of[name],
                line,
                b"u%06d" % user,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        producer.flush(_TIMEOUT_S)
    if failed or len(producer):
        raise KafkaException(failed[0] if failed else f"{len(producer)} events were not taken")


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def names_of(topics: Iterable[str], run: str) -> dict[str, str]:
    """Names of topics that belong to one run."""
    return {role: f"{run}-{role}" for role in topics}

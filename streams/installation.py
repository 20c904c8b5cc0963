"""The topics of an installation: which there are, how they are made."""

from __future__ import annotations

from schemas.events import TOPICS
from schemas.labels import LABELS
from streams.lesson_log import LESSONS
from streams.settings import Settings
from streams.topics import Topics, TopicSpec

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
INTERNAL_RETENTION_MS = 14 * 24 * 3600 * 1000
"""Of sightings and answers: longer than a worker is ever away. What a checkpoint needs must still be there."""

MAX_LABEL_PARTITIONS = 200
"""A turn names the partition of the labels in a byte, beside the event topics."""

_LARGE = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
_KEPT = {**_LARGE, "retention.ms": str(INTERNAL_RETENTION_MS)}
_COMPACTED = {"cleanup.policy": "compact", "segment.ms": "600000", "segment.bytes": "16777216"}
_FOR_EVER = {**_LARGE, "retention.ms": "-1", "retention.bytes": "-1"}
"""Of labels and lessons: they are few, and models are made of them anew at each start."""
_INTERNAL = {
    "sightings": _KEPT,
    "answers": _KEPT,
    "partials": _LARGE,
    "deadletters": _LARGE,
    "alerts": _LARGE,
}


def topic_names(settings: Settings, *, changelog: str) -> list[str]:
    """All topics of an installation, as the broker names them."""
    return [*(settings.topic(role) for role in (*TOPICS, *_INTERNAL, LABELS, LESSONS)), changelog]


def ensure_event_topics(topics: Topics, settings: Settings) -> int:
    """Make the event topics that are missing; returns their partition count.

    Raises
    ------
    StateError
        The two have different counts.
    """
    names = [settings.topic(role) for role in TOPICS]
    present = topics.partition_counts(names)
    partitions = next(iter(present.values()), settings.partitions)
    topics.ensure(dict.fromkeys(names, TopicSpec(partitions, _LARGE)))
    return partitions


def ensure_internal_topics(topics: Topics, settings: Settings, *, partitions: int, changelog: str) -> None:
    """Make the topics that only the engine uses, and the labels, if they are missing.

    They have the partition count of the event topics, but for the labels, of which all partitions are read, and the
    lessons, whose order is that of their first partition, whatever others there are. Made here, those two have one.

    Raises
    ------
    StateError
        One exists with another count: the events' was changed under an existing state.
    """
    wanted = {settings.topic(role): TopicSpec(partitions, configs) for role, configs in _INTERNAL.items()}
    labels, lessons = settings.topic(LABELS), settings.topic(LESSONS)
    wanted[lessons] = TopicSpec(topics.partition_count(lessons) or 1, _FOR_EVER)
    wanted[labels] = TopicSpec(min(topics.partition_count(labels) or 1, MAX_LABEL_PARTITIONS), _FOR_EVER)
    topics.ensure({**wanted, changelog: TopicSpec(partitions, _COMPACTED)})


def ensure_labels(topics: Topics, settings: Settings) -> int:
    """Make the labels topic if it is missing; returns its partition count."""
    name = settings.topic(LABELS)
    count = topics.partition_count(name) or 1
    topics.ensure({name: TopicSpec(count, _FOR_EVER)})
    return count

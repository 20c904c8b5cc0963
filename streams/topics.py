"""Topics as an administrator sees them: make the missing, compare the others, ask for offsets.

Nothing here joins a group. Everything here blocks; call it before the event loop runs, or in a thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    KafkaError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from schemas.errors import StateError, UnreachableError
from streams.batches import TP
from streams.brokers import Brokers
from streams.first_contact import require_listener

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
VISIBLE_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 30.0
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 2.0


@dataclass(frozen=True)
class TopicSpec:
    """How a topic is made: its partitions and its configuration in the broker's words.

    Of a topic that exists already only the number of partitions is compared; its configuration is the
    operator's. ``replication`` -1 is the broker's default.
    """

    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)
    replication: int = -1


class Topics:
    """Questions to the brokers about topics, offsets and groups; made by :func:`open_topics`."""

    def __init__(self, admin: Any) -> None:
        self._admin = admin

    def partition_count(self, topic: str) -> int | None:
        """Return the number of partitions, None when there is no such topic."""
        return self.partition_counts([topic]).get(topic)

    def partition_counts(self, topics: Collection[str]) -> dict[str, int]:
        """Return the number of partitions of those topics that exist."""
        described = _ask(lambda: self._admin.describe_topics(list(topics)))
        return {topic["name"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}

    def begin_offsets(self, topic: str) -> dict[TP, int]:
        """Return the first offset that each partition's log holds; empty when there is no such topic."""
        return self._offsets(topic, OffsetSpec.EARLIEST)

    def end_offsets(self, topic: str) -> dict[TP, int]:
        """Return the offset after each partition's last readable record; empty without such a topic."""
        return self._offsets(topic, OffsetSpec.LATEST)

    def committed(self, group: str) -> dict[TP, int]:
        """Return what a group has committed; empty for a group that nobody knows."""
        found = _ask(lambda: self._admin.list_group_offsets({group: None})[group])
        return {TP(tp.topic, tp.partition): entry.offset for tp, entry in found.items() if entry.offset >= 0}

    def is_compacted(self, topic: str) -> bool:
        """Whether the broker drops records of a topic that have a newer one of the same key."""
        name = "cleanup.policy"
        found = _ask(
            lambda: self._admin.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, {name: ""})]
            )
        )
        return "compact" in found["topic"].get(topic, {}).get(name, {}).get("value", "")

    def ensure(self, wanted: Mapping[str, TopicSpec]) -> None:
        """Make the topics that are missing and wait until every client can see them.

        Raises
        ------
        StateError
            A topic has another number of partitions than wanted. Nothing was made then.
        UnreachableError
            The broker refused, or did not have the topics ready in time.
        """
        present = self.partition_counts(wanted)
        _require_counts(present, wanted)
        missing = {topic: spec for topic, spec in wanted.items() if topic not in present}
        if missing:
            self._create(missing)
        try:
            self._admin.wait_for_topics(list(wanted), timeout_ms=VISIBLE_TIMEOUT_S * 1000)
        except KafkaError as error:
            raise UnreachableError(f"the topics {', '.join(wanted)} do not become ready") from error
        # Another worker may have been faster, with another configuration.
        _require_counts(self.partition_counts(wanted), wanted)

    def _create(self, missing: Mapping[str, TopicSpec]) -> None:
        asked = {
            topic: {
                "num_partitions": spec.partitions,
                "replication_factor": spec.replication,
                "configs": dict(spec.configs),
            }
            for topic, spec in missing.items()
        }
        try:
            _ask(lambda: self._admin.create_topics(asked))
        except TopicAlreadyExistsError:
            logger.info("another worker made the topics at the same time")
        except KafkaError as error:
            raise UnreachableError(
                f"Kafka refused to make the topics {', '.join(missing)}: {error}"
            ) from error

    def _offsets(self, topic: str, spec: Any) -> dict[TP, int]:
        count = self.partition_count(topic) or 0
        if not count:
            return {}
        asked = {TopicPartition(topic, partition): spec for partition in range(count)}
        try:
            found = _ask(
                lambda: self._admin.list_partition_offsets(
                    asked, isolation_level=IsolationLevel.READ_COMMITTED
                )
            )
        except UnknownTopicOrPartitionError:
            return {}
        return {TP(tp.topic, tp.partition): there.offset for tp, there in found.items()}


@contextmanager
def open_topics(brokers: Brokers, *, wait_s: float | None = 60.0) -> Iterator[Topics]:
    """Connect, trying again with growing pauses for `wait_s` seconds (0: once, None: for ever).

    Raises
    ------
    UnreachableError
        No broker answered in time, in one sentence.
    RefusedError
        A broker does not let us in.
    """
    admin = _connect(brokers, wait_s)
    try:
        yield Topics(admin)
    finally:
        admin.close()


def ensure_topics(brokers: Brokers, wanted: Mapping[str, TopicSpec], *, wait_s: float | None = 60.0) -> None:
    """Make the topics that are missing and compare the others, as :meth:`Topics.ensure` does."""
    with open_topics(brokers, wait_s=wait_s) as topics:
        topics.ensure(wanted)


def _ask(question: Callable[[], Any]) -> Any:
    """Ask again while the broker says that it will know soon: a fresh cluster has no coordinators yet."""
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        try:
            return question()
        except UnknownTopicOrPartitionError:
            raise
        except RetriableError as error:
            if time.monotonic() > deadline_s:
                raise UnreachableError(f"Kafka did not answer within {ANSWER_TIMEOUT_S:g} seconds") from error
            time.sleep(FIRST_BACKOFF_S)


def _require_counts(present: Mapping[str, int], wanted: Mapping[str, TopicSpec]) -> None:
    for topic, spec in wanted.items():
        count = present.get(topic, spec.partitions)
        if count != spec.partitions:
            raise StateError(
                f"topic {topic} has {count} partitions, but {spec.partitions} are expected: the number must "
                "be the same for topics that are read together, and must not change under an existing state"
            )


def _connect(brokers: Brokers, wait_s: float | None) -> Any:
    deadline_s = None if wait_s is None else time.monotonic() + wait_s
    backoff_s = FIRST_BACKOFF_S
    while True:
        error: Exception
        try:
            # A socket first: an admin client that finds nobody leaves its thread behind.
            require_listener(brokers)
            return _admin_client(brokers)
        except (OSError, KafkaError) as caught:
            error = caught
        if deadline_s is not None and time.monotonic() + backoff_s > deadline_s:
            waited = f"within {wait_s:g} seconds" if wait_s else "at once"
            hint = (
                ""
                if isinstance(error, OSError)
                else ", though it listens: is kafka_protocol the one that it speaks?"
            )
            raise UnreachableError(f"no Kafka broker answered at {brokers} {waited}{hint}") from error
        logger.warning("no Kafka broker answers at %s yet, trying again", brokers)
        time.sleep(backoff_s)
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


def _admin_client(brokers: Brokers) -> Any:
    try:
        return KafkaAdminClient(
            bootstrap_timeout_ms=CONNECT_TIMEOUT_S * 1000,
            client_id="woolwatch-topics",
            **brokers.kafka_python_options(),
        )
    except KafkaError:
        require_listener(brokers, await_alert=True)
        raise

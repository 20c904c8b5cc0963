"""A Kafka for a first run: ``python -m console.mock_kafka ADDRESS_FILE TOPIC...``.

librdkafka's mock cluster, which comes with confluent-kafka: one broker on a free port of loopback that speaks the real
protocol to every client. It is made for tests: it keeps 5 MB of a partition and silently drops what is older, forgets
everything when it ends, and makes no topics on request, only when a producer asks about them, with four partitions.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Producer

RETAINED_BYTES = 5 * 1024 * 1024
"""Of a partition; older records are gone without a word."""
PARTITIONS = 4
"""Of every topic."""
SPEAKS_AS = "2.3"
"""Newer clients ask it in a way to which its answer can not be read, and must be told."""

_ANSWER_S = 10.0


def make_topics(producer: Producer, topics: Sequence[str]) -> str:
    """Make topics by asking about them; returns the broker's address, ``host:port``."""
    for topic in topics:
        producer.list_topics(topic, timeout=_ANSWER_S)
    (broker,) = producer.list_topics(timeout=_ANSWER_S).brokers.values()
    return f"{broker.host}:{broker.port}"


def main() -> None:
    """Start the broker, write its address, and wait to be ended."""
    address_file, *topics = sys.argv[1:]
    # The cluster lives as long as the client that it comes with.
    producer = Producer({"test.mock.num.brokers": 1})
    staged = Path(f"{address_file}.staged")
    staged.write_text(make_topics(producer, topics))
    staged.replace(address_file)
    signal.pause()


if __name__ == "__main__":
    main()

"""The floor: confluent-kafka, tuned, that only decodes JSON with orjson; a process of its own.

``python -m benchmarks.floor BOOTSTRAP EVENTS TOPIC...`` prints an Outcome as JSON.
"""

from __future__ import annotations

import sys
import time

import msgspec
import orjson
from confluent_kafka import Consumer, TopicPartition

from benchmarks.outcome import Outcome
from benchmarks.processes import peak_of_this_mb, run
from benchmarks.topics import PARTITIONS

_MOST = 10_000
_PATIENCE_S = 60.0


def measure(bootstrap: str, events: int, topics: list[str]) -> Outcome:
    """Run the floor in a process of its own."""
    ended = run([sys.executable, "-m", "benchmarks.floor", bootstrap, str(events), *topics])
    return msgspec.json.decode(ended.said, type=Outcome)


def consume(bootstrap: str, events: int, topics: list[str]) -> Outcome:
    """Read and decode so many events."""
    cpu_before_s = time.process_time()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "floor",
            "enable.auto.commit": False,
            # By default the fetcher rests up to 1 s whenever 100,000 messages are queued: five times slower.
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 1_000_000,
            "fetch.queue.backoff.ms": 2,
        }
    )
    consumer.assign(
        [TopicPartition(topic, partition, 0) for topic in topics for partition in range(PARTITIONS)]
    )
    loads, count, first_s = orjson.loads, 0, 0.0
    give_up_s = time.time() + _PATIENCE_S
    while count < events:
        messages = consumer.consume(_MOST, 0.2)
        if messages and not count:
            first_s = time.time()
        for message in messages:
            loads(message.value() or b"")
        count += len(messages)
        if not messages and time.time() > give_up_s:
            raise SystemExit(f"{count} of {events} events after {_PATIENCE_S:.0f} s")
    last_s, cpu_s = time.time(), time.process_time() - cpu_before_s
    consumer.close()
    return Outcome(
        events=count,
        first_s=first_s,
        last_s=last_s,
        cpu_s=cpu_s,
        peak_mb=peak_of_this_mb(),
    )


if __name__ == "__main__":
    print(msgspec.json.encode(consume(sys.argv[1], int(sys.argv[2]), sys.argv[3:])).decode())

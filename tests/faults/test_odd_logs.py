"""What producers and brokers may do to a log: repeats, disorder, poison, compaction, transactions that are aborted."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterable

import pytest
from confluent_kafka import Producer
from kafka import KafkaConsumer, TopicPartition

from streams.brokers import Brokers
from streams.topics import TopicSpec, ensure_topics
from tests.faults.conftest import MakeRun
from tests.made_events import made_events
from tests.recounts import rows_of
from tests.services import KafkaBroker, RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]

_TOPICS = ("clicks", "participations")


def _readable(kafka: KafkaBroker, topics: Iterable[str]) -> list[bytes]:
    """Every record that a plain consumer sees, read_committed."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap, isolation_level="read_committed", enable_auto_commit=False
    )
    try:
        tps = [
            TopicPartition(topic, p) for topic in topics for p in consumer.partitions_for_topic(topic) or ()
        ]
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        ends, found = consumer.end_offsets(tps), []
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            found += [record.value for batch in consumer.poll(500).values() for record in batch]
        return found
    finally:
        consumer.close()


def test_repeats_disorder_and_poison(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    draw = random.Random(61)
    run = make_run(kafka, redis_server)
    lines = made_events(4_000, seed=61)
    lines += draw.sample(lines, 1_000) + [b"\x00" * 70_000, b"[" * 1024, b"{}", b"null"] * 20
    # Within an hour of event time nothing is late, however it is shuffled.
    draw.shuffle(lines)
    worker = run.installation.start_worker()
    run.send(lines)
    run.finish(worker)


@pytest.mark.thorough
def test_a_compacted_topic(make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer) -> None:
    run = make_run(kafka, redis_server)
    names = run.installation.topics(*_TOPICS)
    compacted = {"cleanup.policy": "compact", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.01"}
    ensure_topics(Brokers(kafka.bootstrap), dict.fromkeys(names, TopicSpec(2, compacted)))
    sent = 0
    for seed in range(4):
        lines = made_events(1_000, seed=70 + seed, broken=False)
        run.send(lines)
        sent += len(lines)
    deadline_s = time.monotonic() + 120
    while len(left := _readable(kafka, names)) == sent:
        assert time.monotonic() < deadline_s, "the broker does not compact"
        time.sleep(1)
    worker = run.installation.start_worker()
    run.installation.wait_until_judged(1)
    while any(source["waiting"] for source in run.installation.reconcile()["sources"]):
        assert worker.poll() is None, run.installation.logs()
    assert run.installation.stop(worker) == 0
    left = _readable(kafka, names)
    judged = {row[0] for row in rows_of(run.installation.out, "verdicts", "event_id")}
    # The broker may have compacted further since it was read: what is left now is judged, and nothing twice.
    assert {json.loads(line)["event_id"] for line in left} <= judged
    offsets = rows_of(run.installation.out, "verdicts", 'topic, partition, "offset"')
    assert len(offsets) == len(set(offsets)) > 0


def test_aborted_transactions_are_not_judged(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer, topic_prefix: str
) -> None:
    run = make_run(kafka, redis_server)
    worker = run.installation.start_worker()
    run.send(made_events(200, seed=80, broken=False))
    (clicks,) = run.installation.topics("clicks")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"{topic_prefix}t"})
    producer.init_transactions(30)
    committed: Counter[str] = Counter()
    for seed in range(81, 93):
        producer.begin_transaction()
        lines = made_events(150, seed=seed, broken=False)
        for line in lines:
            producer.produce(clicks, line, json.loads(line)["user_id"])
        producer.flush(30)
        if seed % 3 == 0:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
            committed.update(json.loads(line)["event_id"] for line in lines)
    # Behind the last marker, so that the log's end is a record.
    run.send(made_events(200, seed=99, broken=False))
    run.installation.wait_until_judged(200 + committed.total() + 200)
    assert run.installation.stop(worker) == 0
    judged = Counter(row[0] for row in rows_of(run.installation.out, "verdicts", "event_id"))
    by_others = {event_id for event_id in judged if event_id.startswith(("e80-", "e99-"))}
    assert len(by_others) == 400
    assert Counter({key: n for key, n in judged.items() if key not in by_others}) == committed
    assert not run.installation.reconcile()["problems"]

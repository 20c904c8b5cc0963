from __future__ import annotations

import threading
from contextlib import closing

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from schemas.errors import StateError, UnreachableError
from streams.batches import TP
from streams.brokers import Brokers
from streams.topics import TopicSpec, ensure_topics, open_topics
from tests.integration.transport_bench import Bench, in_transaction
from tests.services import KafkaBroker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

NOBODY = "127.0.0.1:9"


def setting(bench: Bench, topic: str, name: str) -> str:
    with closing(KafkaAdminClient(bootstrap_servers=bench.brokers)) as admin:
        found = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")
    return str(found["topic"][topic][name]["value"])


def test_missing_topics_are_made_as_wanted_and_visible_at_once(bench: Bench) -> None:
    clicks, turns = f"{bench.prefix}clicks", f"{bench.prefix}turns"
    wanted = {clicks: TopicSpec(3), turns: TopicSpec(2, {"max.message.bytes": "9437184"})}
    ensure_topics(Brokers(bench.brokers), wanted)
    with bench.admin() as topics:
        assert topics.partition_counts([clicks, turns, "never-made"]) == {clicks: 3, turns: 2}
        assert topics.partition_count("never-made") is None
    assert setting(bench, turns, "max.message.bytes") == "9437184"
    ensure_topics(Brokers(bench.brokers), wanted)


def test_another_number_of_partitions_is_refused_before_anything_is_made(bench: Bench) -> None:
    clicks = bench.topic("clicks", 3)
    new = f"{bench.prefix}new"
    with pytest.raises(StateError, match=f"topic {clicks} has 3 partitions, but 4 are expected"):
        ensure_topics(Brokers(bench.brokers), {clicks: TopicSpec(4), new: TopicSpec(4)})
    with bench.admin() as topics:
        assert topics.partition_count(new) is None


def test_a_topic_that_the_broker_refuses_is_one_sentence(bench: Bench) -> None:
    topic = f"{bench.prefix}clicks"
    with pytest.raises(UnreachableError, match=f"^Kafka refused to make the topics {topic}: "):
        ensure_topics(Brokers(bench.brokers), {topic: TopicSpec(1, {"max.message.bytes": "much"})})


def test_workers_that_start_together_make_topics_together(bench: Bench) -> None:
    wanted = {f"{bench.prefix}{number}": TopicSpec(2) for number in range(5)}
    failed: list[BaseException] = []

    def work() -> None:
        try:
            ensure_topics(Brokers(bench.brokers), wanted)
        except Exception as error:  # noqa: BLE001 - a thread's failure is shown by the test
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []
    with bench.admin() as topics:
        assert topics.partition_counts(wanted) == dict.fromkeys(wanted, 2)


def test_offsets_are_those_of_the_readable_log(bench: Bench) -> None:
    topic = bench.topic("clicks", 2)
    with bench.producer("writer") as producer:
        in_transaction(producer, TP(topic, 0), range(4))
        with bench.admin() as topics:
            assert topics.begin_offsets(topic) == {TP(topic, 0): 0, TP(topic, 1): 0}
            committed = {TP(topic, 0): 5, TP(topic, 1): 0}
            # The broker writes the marker that ends a transaction after it has answered.
            wait_until(lambda: topics.end_offsets(topic) == committed, "the transaction does not end")
            producer.begin_transaction()
            producer.send(topic, partition=0, value=b"open").get(timeout=30)
            assert topics.end_offsets(topic) == committed
            producer.abort_transaction()
            assert topics.begin_offsets("never-made") == topics.end_offsets("never-made") == {}


def test_a_group_that_nobody_knows_has_committed_nothing(bench: Bench) -> None:
    with bench.admin() as topics:
        assert topics.committed(bench.group) == {}


@pytest.mark.parametrize("wait_s", [0.0, 0.5])
def test_no_broker_is_one_sentence_after_the_wait(wait_s: float) -> None:
    with pytest.raises(
        UnreachableError, match=r"^no Kafka broker answered at 127.0.0.1:9 (at once|within 0.5)"
    ):
        ensure_topics(Brokers(NOBODY), {"clicks": TopicSpec(1)}, wait_s=wait_s)


@pytest.mark.faults
def test_a_broker_that_comes_later_is_waited_for(kafka: KafkaBroker) -> None:
    found: list[int | None] = []

    def ask() -> None:
        with open_topics(Brokers(kafka.bootstrap), wait_s=None) as topics:
            found.append(topics.partition_count("never-made"))

    asking = threading.Thread(target=ask)
    with kafka.down(kill=True):
        asking.start()
    asking.join()
    assert found == [None]

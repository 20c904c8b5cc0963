"""The ground under the integration tests: a real broker and a real Redis, ours, and back after a fault."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from tests.service_process import ServiceError
from tests.services import KafkaBroker, RedisServer

pytestmark = pytest.mark.integration


def test_kafka_returns_what_was_produced(kafka: KafkaBroker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}echo"
    create_topic(kafka, topic, partitions=2)
    sent = [(b"u%d" % number, b"value %d" % number) for number in range(20)]

    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    for number, (key, value) in enumerate(sent):
        producer.send(topic, key=key, value=value, partition=number % 2)
    producer.close()

    assert read_all(kafka, topic, partitions=2) == sorted(sent)


def test_kafka_makes_no_topic_unasked(kafka: KafkaBroker, topic_prefix: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
    try:
        consumer.partitions_for_topic(f"{topic_prefix}unasked")
        assert f"{topic_prefix}unasked" not in admin.list_topics()
    finally:
        consumer.close()
        admin.close()


@pytest.mark.faults
@pytest.mark.parametrize("kill", [False, True])
def test_kafka_keeps_records_and_port_through_a_restart(tmp_path: Path, kill: bool) -> None:
    with KafkaBroker(tmp_path, heap="256m") as broker:
        create_topic(broker, "kept", partitions=1)
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
        producer.send("kept", key=b"k", value=b"v").get(30)
        producer.close()
        before = broker.bootstrap

        with broker.down(kill=kill), pytest.raises(ServiceError, match="not running"):
            _ = broker.pid

        assert broker.bootstrap == before
        assert read_all(broker, "kept", partitions=1) == [(b"k", b"v")]


def test_redis_sets_and_gets(redis_server: RedisServer, topic_prefix: str) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(f"{topic_prefix}key", b"value")
        assert client.get(f"{topic_prefix}key") == b"value"


@pytest.mark.faults
def test_redis_forgets_on_restart_and_keeps_its_port(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", b"value")
        with server.down(kill=True):
            pass
        assert client.get("key") is None


@pytest.mark.faults
def test_another_port_is_taken_when_a_neighbour_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(tmp_path) as neighbour, RedisServer(tmp_path) as spare:
        free_port = spare.port
        spare.stop()
        offered = iter([[neighbour.port], [free_port]])
        monkeypatch.setattr("tests.services.free_ports", lambda _count: next(offered))
        with RedisServer(tmp_path) as server:
            assert server.port == free_port


@pytest.mark.faults
def test_a_service_dies_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from tests.services import RedisServer\n"
        "server = RedisServer(pathlib.Path(sys.argv[1])); server.start()\n"
        "print(server.pid, server.url, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        with redis.Redis.from_url(url) as client:
            connection = client.connection_pool.get_connection()
            parent.send_signal(signal.SIGKILL)
            # The open connection ends when the server does; reading it waits for exactly that.
            with pytest.raises(redis.ConnectionError):
                connection.read_response()
    assert not Path(f"/proc/{pid}/exe").exists()


def create_topic(broker: KafkaBroker, topic: str, *, partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.create_topics(
            {topic: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True
        )
    finally:
        admin.close()


def read_all(broker: KafkaBroker, topic: str, *, partitions: int) -> list[tuple[bytes, bytes]]:
    """Every record up to the log's end as asked before reading, sorted."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    try:
        assigned = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(assigned)
        ends = consumer.end_offsets(assigned)
        rows: list[tuple[bytes, bytes]] = []
        while any(consumer.position(partition) < ends[partition] for partition in assigned):
            for records in consumer.poll(timeout_ms=1_000).values():
                rows += [(record.key, record.value) for record in records]
        return sorted(rows)
    finally:
        consumer.close()

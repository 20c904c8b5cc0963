"""A closed range is read whole, or it is an error; the tail may be anything that Kafka puts into a log."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, TopicPartition

from schemas.errors import DataLossError, UnreachableError
from streams.batches import TP
from streams.brokers import Brokers
from streams.ranges import read_range
from streams.transport import make_app
from tests.integration.transport_bench import Bench, in_transaction

pytestmark = pytest.mark.integration

NOBODY = "127.0.0.1:9"


def offsets(bench: Bench, tp: TP, start: int, end: int) -> list[int]:
    async def read() -> list[int]:
        return [record.offset async for record in read_range(Brokers(bench.brokers), tp, start, end)]

    return asyncio.run(read())


def test_a_range_is_exactly_its_records(bench: Bench) -> None:
    tp = TP(bench.topic("turns", 2), 1)
    bench.send([tp], 5_000)
    assert offsets(bench, tp, 0, 5_000) == list(range(5_000))
    assert offsets(bench, tp, 17, 18) == [17]
    assert offsets(bench, tp, 4_990, 5_000) == list(range(4_990, 5_000))


def test_an_empty_range_asks_nobody() -> None:
    async def read() -> list[int]:
        return [record.offset async for record in read_range(Brokers(NOBODY), TP("turns", 0), 7, 7)]

    assert asyncio.run(read()) == []


def test_a_range_may_end_in_markers_and_aborted_records(bench: Bench) -> None:
    tp = TP(bench.topic("turns", 1), 0)
    with bench.producer("writer") as producer:
        in_transaction(producer, tp, range(3))
        in_transaction(producer, tp, range(3, 6), abort=True)
    # 0 to 2, a marker, three aborted ones, a marker
    assert offsets(bench, tp, 0, 8) == [0, 1, 2]
    assert offsets(bench, tp, 3, 8) == []
    assert offsets(bench, tp, 2, 4) == [2]


def test_a_range_below_the_logs_start_is_lost(bench: Bench) -> None:
    tp = TP(bench.topic("turns", 1), 0)
    bench.send([tp], 20)
    with closing(KafkaAdminClient(bootstrap_servers=bench.brokers)) as admin:
        admin.delete_records({TopicPartition(*tp): 12})
    with pytest.raises(DataLossError, match=r"begins at offset 12, so the records \[10, 12\) are gone"):
        offsets(bench, tp, 10, 15)
    assert offsets(bench, tp, 12, 20) == list(range(12, 20))


def test_a_range_beyond_the_logs_end_is_lost(bench: Bench) -> None:
    tp = TP(bench.topic("turns", 1), 0)
    bench.send([tp], 20)
    with pytest.raises(DataLossError, match=r"ends at offset 20.*\[20, 25\) are gone"):
        offsets(bench, tp, 10, 25)


def test_no_broker_is_one_sentence() -> None:
    async def read() -> None:
        async for _ in read_range(Brokers(NOBODY), TP("turns", 0), 0, 1, wait_s=0):
            raise AssertionError("a record from nowhere")

    with pytest.raises(UnreachableError, match=r"^no Kafka broker answers at 127.0.0.1:9$"):
        asyncio.run(read())


def test_the_apps_producer_writes_records_of_8_mib(bench: Bench) -> None:
    tp = TP(bench.topic("answers", 1, max_message_bytes=9 * 1024 * 1024), 0)
    value = bytes(range(256)) * 32 * 1024

    async def write_and_read() -> list[bytes | None]:
        app = make_app("writer", brokers=Brokers(bench.brokers), group=bench.group)
        await app.producer.start()
        await app.producer.send_and_wait(tp.topic, None, value, tp.partition, None, None)
        await app.producer.stop()
        return [record.value async for record in read_range(Brokers(bench.brokers), tp, 0, 1)]

    assert asyncio.run(write_and_read()) == [value]

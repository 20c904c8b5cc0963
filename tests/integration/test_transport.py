"""Every record exactly once, whatever happens to a worker; workers are processes, the broker is real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource
from kafka.structs import OffsetAndMetadata

from streams.batches import TP
from streams.brokers import Brokers
from streams.ranges import read_range
from tests.integration.transport_bench import Bench, Offsets, in_transaction, send_one, sent, together
from tests.services import KafkaBroker

pytestmark = pytest.mark.integration


def partitions(topic: str, count: int) -> list[TP]:
    return [TP(topic, partition) for partition in range(count)]


@contextmanager
def admin_client(bench: Bench) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=bench.brokers)) as admin:
        yield admin


def cut_log(bench: Bench, tp: TP, first: int) -> None:
    """Delete everything below `first`, as retention would."""
    with admin_client(bench) as admin:
        admin.delete_records({TopicPartition(*tp): first})


def delete_topic(bench: Bench, topic: str) -> None:
    with admin_client(bench) as admin:
        admin.delete_topics([topic])
    with bench.admin() as topics:
        bench.until(lambda: topics.partition_count(topic) is None, "the topic is gone")


def commit_as_group(bench: Bench, tp: TP, offset: int) -> None:
    with admin_client(bench) as admin:
        admin.alter_group_offsets(bench.group, {TopicPartition(*tp): OffsetAndMetadata(offset, "", -1)})


@contextmanager
def eager_cleaner(bench: Bench) -> Iterator[None]:
    """Have the broker compact at once; by default it looks every 15 s."""
    setting = "log.cleaner.backoff.ms"
    with admin_client(bench) as admin:
        admin.alter_configs([ConfigResource("BROKER", "1", {setting: "50"})])
        try:
            yield
        finally:
            admin.alter_configs([ConfigResource("BROKER", "1", {setting: ("DELETE", None)})])


def held_offsets(bench: Bench, tp: TP, end: int) -> set[int]:
    """Return which offsets below `end` the log still has."""

    async def read() -> set[int]:
        return {record.offset async for record in read_range(Brokers(bench.brokers), tp, 0, end)}

    return asyncio.run(read())


def test_sigterm_and_restart_go_on_exactly_where_it_ended(bench: Bench) -> None:
    clicks, buys = bench.topic("clicks", 2), bench.topic("buys", 2)
    tps = partitions(clicks, 2) + partitions(buys, 2)
    first = bench.send(tps, 3_000)
    worker = bench.start("one", [clicks, buys], "--max-records", "100", "--work-ms", "20")
    bench.until(lambda: bench.count() > 1_000, "a part is counted")
    worker.terminate()
    with bench.admin() as admin:
        # What was written is committed, so nothing is delivered twice: the ranges alone are exact.
        assert admin.committed(bench.group) == bench.positions()
    bench.start("two", [clicks, buys])
    second = bench.send(tps, 100)
    bench.until_exact(together(first, second))
    for tp in tps:
        ranges = [there for name in ("one", "two") for there in bench.batches(name) if there[0] == tp]
        assert [start for _, start, _ in ranges] == [0, *(end for _, _, end in ranges[:-1])]


def live_and_die(bench: Bench, topic: str, name: str) -> None:
    worker = bench.start(name, [topic], "--max-records", "50", "--work-ms", "5")
    bench.until(lambda: bool(bench.batches(name)), "the worker writes")
    worker.kill()
    bench.forget_members()


@pytest.mark.faults
def test_kill_9_and_restart_count_nothing_twice(bench: Bench) -> None:
    topic = bench.topic("clicks", 2)
    expected = bench.send(partitions(topic, 2), 4_000)
    for life in range(2):
        live_and_die(bench, topic, f"life-{life}")
    bench.start("last", [topic], "--from-sink")
    bench.until_exact(expected)
    assert bench.values() == {b"%d:%d" % (p, number) for p in range(2) for number in range(4_000)}


def test_a_marker_at_the_committed_offset_is_no_gap(bench: Bench) -> None:
    tp = TP(bench.topic("clicks", 1), 0)
    with bench.producer("writer") as producer:
        expected = in_transaction(producer, tp, range(10))
        # The cut leaves the marker, offset 10, to the next batch, which never comes.
        worker = bench.start("one", [tp.topic], "--max-records", "10")
        bench.until_exact(expected)
        # Only the client's position tells that nothing is left to do.
        bench.until(lambda: bench.happened("one", "caught up")[-1:] == [(tp, 11)], "the worker is idle")
        worker.terminate()
        with bench.admin() as admin:
            assert admin.committed(bench.group) == {tp: 10}
            assert admin.end_offsets(tp.topic) == {tp: 11}
        bench.start("two", [tp.topic])
        expected = together(expected, in_transaction(producer, tp, range(10, 15)))
        bench.until_exact(expected)
    assert bench.batches("one") == [(tp, 0, 10)]
    assert bench.batches("two")[0][1] == 10
    # A marker that came with the records is covered: 11 to 15 and the marker 16.
    assert bench.batches("two")[-1][2] == 17
    assert bench.seen()[tp] == [*range(10), *range(11, 16)]


def test_aborted_transactions_are_never_seen(bench: Bench) -> None:
    tp = TP(bench.topic("clicks", 1), 0)
    bench.start("one", [tp.topic])
    expected: Offsets = {}
    with bench.producer("writer") as producer:
        for number in range(0, 300, 10):
            if number % 30:
                expected = together(expected, in_transaction(producer, tp, range(number, number + 10)))
            else:
                in_transaction(producer, tp, range(number, number + 10), abort=True)
    expected = together(expected, bench.send([tp], 5))
    bench.until_exact(expected)


def test_a_compaction_gap_at_the_committed_offset_is_no_gap(bench: Bench) -> None:
    topic = bench.topic(
        "clicks", 1, cleanup_policy="compact", segment_ms=1, min_cleanable_dirty_ratio="0.001"
    )
    tp = TP(topic, 0)
    with bench.producer() as producer, eager_cleaner(bench):
        for number in range(40):  # one segment each, so that all but the last can be compacted
            producer.send(tp.topic, partition=0, key=b"same", value=b"%d" % number).get(timeout=30)
        bench.until(lambda: len(held_offsets(bench, tp, 40)) < 5, "the log is compacted")
    commit_as_group(bench, tp, 3)
    bench.start("one", [tp.topic])
    bench.until(lambda: bench.positions() == {tp: 40}, "everything is read")
    assert bench.batches("one")[0][1] == 3
    assert bench.seen()[tp] == sorted(held_offsets(bench, tp, 40))


@pytest.mark.faults
def test_a_client_that_loses_what_it_read_is_sent_back(bench: Bench) -> None:
    topic = bench.topic("clicks", 2)
    expected = bench.send(partitions(topic, 2), 1_000)
    worker = bench.start("one", [topic], "--loses", "--max-records", "300")
    bench.until_exact(expected)
    worker.terminate()
    assert "as the test wants it" in worker.log()
    for tp in expected:
        ranges = [there for there in bench.batches("one") if there[0] == tp]
        assert [start for _, start, _ in ranges] == [0, *(end for _, _, end in ranges[:-1])]


def test_a_first_start_may_begin_at_a_time(bench: Bench) -> None:
    topic = bench.topic("clicks", 2, retention_ms=-1)  # its records are years old
    busy, quiet = partitions(topic, 2)
    with bench.producer() as producer:
        for number in range(10):
            producer.send(topic, partition=0, value=b"old", timestamp_ms=1_600_000_000_000 + number * 1_000)
        producer.send(topic, partition=1, value=b"old", timestamp_ms=1_600_000_000_000)
    bench.start("one", [topic], "--from-time-ms", "1600000006500")
    bench.until(lambda: bench.count() >= 3, "the later records are counted")
    more = bench.send([busy, quiet], 1)
    bench.until_exact(together({busy: {7, 8, 9}}, more))


@pytest.mark.faults
def test_workers_that_come_and_go_share_the_partitions_exactly(bench: Bench) -> None:
    topic = bench.topic("clicks", 4)
    tps = partitions(topic, 4)
    stop = threading.Event()
    written: list[Offsets] = []
    writer = threading.Thread(target=keep_writing, args=(bench, tps, stop, written))
    writer.start()
    try:
        stays = bench.start("stays", [topic], "--work-ms", "5")
        bench.until(lambda: len(assigned(bench, "stays")) == 4, "one worker has all")
        dies = bench.start("dies", [topic], "--work-ms", "5")
        bench.until(lambda: len(assigned(bench, "dies")) == 2, "two share")
        bench.until(lambda: bool(bench.batches("dies")), "the second writes")
        dies.kill()
        leaves = bench.start("leaves", [topic], "--work-ms", "5")
        bench.until(lambda: bool(bench.batches("leaves")), "the third writes")
        stays.terminate()
        bench.until(lambda: assigned(bench, "leaves") == set(tps), "the third has all")
    finally:
        stop.set()
        writer.join()
    bench.until_exact(together(*written))
    leaves.terminate()
    bench.require_exact(together(*written))
    with bench.admin() as admin:
        assert admin.committed(bench.group) == admin.end_offsets(topic)


def test_a_log_cut_while_down_stops_the_worker_and_names_the_range(bench: Bench) -> None:
    tp = TP(bench.topic("clicks", 1), 0)
    bench.send([tp], 50)
    worker = bench.start("one", [tp.topic])
    bench.until(lambda: bench.positions() == {tp: 50}, "everything is counted")
    worker.terminate()
    bench.send([tp], 50)
    cut_log(bench, tp, 70)
    worker = bench.start("two", [tp.topic])
    assert worker.exit_code() == 3
    assert f"data lost: {tp.topic}-0 begins at offset 70, so the records [50, 70) are gone" in worker.log()
    assert bench.happened("two", "lost") == [(tp, 20)]
    assert bench.seen()[tp] == list(range(50))


def test_a_sink_beyond_the_end_of_the_log_stops_the_worker(bench: Bench) -> None:
    """A topic made anew: its records look old to a sink, and would be skipped in silence."""
    tp = TP(bench.topic("clicks", 1), 0)
    bench.send([tp], 50)
    worker = bench.start("one", [tp.topic])
    bench.until(lambda: bench.positions() == {tp: 50}, "everything is counted")
    worker.terminate()
    delete_topic(bench, tp.topic)
    bench.topic("clicks", 1)
    bench.send([tp], 20)
    worker = bench.start("two", [tp.topic], "--from-sink")
    assert worker.exit_code() == 3
    assert "ends at offset 20, although everything below 50 was there once" in worker.log()


def test_a_log_cut_under_a_slow_worker_stops_it_after_what_it_holds(bench: Bench, tmp_path: Path) -> None:
    tp = TP(bench.topic("clicks", 1), 0)
    with bench.producer() as producer:  # 4 MiB, of which the client holds one
        for number in range(400):
            producer.send(tp.topic, partition=0, value=b"%010d" % number * 1_024)
    hold = tmp_path / "hold"
    hold.touch()
    worker = bench.start("one", [tp.topic], "--max-records", "10", "--hold", str(hold))
    bench.until(lambda: len(assigned(bench, "one")) == 1, "the worker reads")
    bench.until(lambda: "Worker ready" in worker.log(), "the worker is ready")
    cut_log(bench, tp, 390)
    hold.unlink()
    assert worker.exit_code() == 3
    (held,) = bench.positions().values()
    assert f"begins at offset 390, so the records [{held}, 390) are gone" in worker.log()
    assert bench.seen()[tp] == list(range(held))


def test_a_drain_lets_go_of_a_waiter_and_marks_nothing_of_it(bench: Bench) -> None:
    topic = bench.topic("clicks", 2)
    tps = partitions(topic, 2)
    expected = bench.send(tps, 100)
    worker = bench.start("waits", [topic], "--waits", "--max-records", "10")
    bench.until(lambda: len(bench.happened("waits", "waiting")) == 2, "both partitions wait")
    worker.terminate()
    assert [detail for _, detail in bench.happened("waits", "abandoned")] == [1]
    assert sorted(bench.happened("waits", "waiting")) == [(tp, 0) for tp in tps]
    assert bench.seen() == {}
    with bench.admin() as admin:
        assert admin.committed(bench.group) == dict.fromkeys(tps, 0)
    bench.start("works", [topic])
    bench.until_exact(expected)


def test_an_agent_that_fails_ends_its_process(bench: Bench) -> None:
    tp = TP(bench.topic("clicks", 1), 0)
    bench.send([tp], 10)
    worker = bench.start("fails", [tp.topic], "--fails")
    assert worker.exit_code() == 3
    assert "ValueError: as the test wants it" in worker.log()
    assert bench.seen() == {}


def test_a_group_that_refuses_the_worker_ends_its_process(bench: Bench) -> None:
    worker = bench.start("one", [bench.topic("clicks", 1)], "--session-s", "2")
    assert worker.exit_code() == 3
    assert "Kafka does not let this worker into the group" in worker.log()


@pytest.mark.faults
def test_a_broker_that_restarts_is_waited_for(bench: Bench, kafka: KafkaBroker) -> None:
    tp = TP(bench.topic("clicks", 1), 0)
    first = bench.send([tp], 100)
    worker = bench.start("one", [tp.topic])
    bench.until_exact(first)
    with kafka.down(kill=True):
        bench.until(lambda: "Unable connect" in worker.log(), "the worker misses the broker")
    second = bench.send([tp], 100)
    bench.until_exact(together(first, second))
    worker.terminate()
    assert worker.log().count("Unable connect") < 10


def keep_writing(bench: Bench, tps: list[TP], stop: threading.Event, written: list[Offsets]) -> None:
    with bench.producer() as producer:
        number = 0
        while not stop.wait(0.02):
            written.append(sent([send_one(producer, tp, number + n) for n in range(10) for tp in tps]))
            number += 10


def assigned(bench: Bench, worker: str) -> set[TP]:
    return {tp for tp, _ in bench.happened(worker, "assigned")}

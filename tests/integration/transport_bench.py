"""What the transport's tests share: topics of one test, workers as processes, and the sink they write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import MemberToRemove

from streams.batches import TP
from streams.brokers import Brokers
from streams.topics import Topics, TopicSpec, ensure_topics, open_topics
from tests.integration.transport_worker import open_sink
from tests.services import REPOSITORY

PATIENCE_S = 45.0
POLL_S = 0.05

Offsets = dict[TP, set[int]]


class Bench:
    """Topics with a fresh prefix, a sink, and any number of workers of one group."""

    def __init__(self, brokers: str, prefix: str, folder: Path) -> None:
        self.brokers, self.prefix, self.folder = brokers, prefix, folder
        self.group = f"{prefix}group"
        self._sink = open_sink(folder / "sink.db")
        self._workers: list[Worker] = []

    def topic(self, name: str, partitions: int, **configs: str | int) -> str:
        """Make a topic; configuration names with _ for the dot."""
        topic = f"{self.prefix}{name}"
        spec = TopicSpec(partitions, {key.replace("_", "."): str(value) for key, value in configs.items()})
        ensure_topics(Brokers(self.brokers), {topic: spec})
        return topic

    @contextmanager
    def admin(self) -> Iterator[Topics]:
        with open_topics(Brokers(self.brokers)) as topics:
            yield topics

    @contextmanager
    def producer(self, transactional_id: str | None = None) -> Iterator[KafkaProducer]:
        name = {"transactional_id": f"{self.prefix}{transactional_id}"} if transactional_id else {}
        with closing(KafkaProducer(bootstrap_servers=self.brokers, acks="all", **name)) as producer:
            if transactional_id:
                producer.init_transactions()
            yield producer

    def forget_members(self) -> None:
        """Have the broker forget dead workers at once; by itself it waits for the session to run out."""
        with closing(KafkaAdminClient(bootstrap_servers=self.brokers)) as admin:
            members = admin.describe_groups([self.group])[self.group]["members"]
            dead = [MemberToRemove(member_id=member["member_id"]) for member in members]
            if dead:
                admin.remove_group_members(self.group, dead)

    def send(self, tps: Iterable[TP], count: int) -> Offsets:
        """Write `count` records to each partition and return the offsets that the broker gave them."""
        with self.producer() as producer:
            return sent([send_one(producer, tp, number) for number in range(count) for tp in tps])

    def start(self, name: str, topics: Iterable[str], *options: str) -> Worker:
        """Start a worker; it is killed at the end of the test at the latest."""
        worker = Worker(name, self, ",".join(topics), options)
        self._workers.append(worker)
        return worker

    def seen(self) -> dict[TP, list[int]]:
        """Return the offsets counted so far, per partition ascending and as often as they were counted."""
        found: dict[TP, list[int]] = {}
        for topic, partition, offset in self._sink.execute('select topic, partition, "offset" from seen'):
            found.setdefault(TP(topic, partition), []).append(offset)
        return {tp: sorted(offsets) for tp, offsets in found.items()}

    def count(self) -> int:
        return int(self._sink.execute("select count(*) from seen").fetchone()[0])

    def values(self) -> set[bytes]:
        return {value for (value,) in self._sink.execute("select value from seen")}

    def positions(self) -> dict[TP, int]:
        rows = self._sink.execute("select topic, partition, next from positions")
        return {TP(topic, partition): position for topic, partition, position in rows}

    def batches(self, worker: str) -> list[tuple[TP, int, int]]:
        """Return the ranges that a worker wrote, in its order."""
        rows = self._sink.execute(
            "select topic, partition, start, next from batches where worker = ? order by rowid", (worker,)
        )
        return [(TP(topic, partition), start, end) for topic, partition, start, end in rows]

    def happened(self, worker: str, what: str) -> list[tuple[TP, int]]:
        rows = self._sink.execute(
            "select topic, partition, detail from happened where worker = ? and what = ? order by rowid",
            (worker, what),
        )
        return [(TP(topic, partition), detail) for topic, partition, detail in rows]

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._sink.close()

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for something that other processes bring about; fail with the workers' logs."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline_s:
                logs = "\n".join(worker.log() for worker in self._workers)
                raise AssertionError(f"in vain: {what}\n{logs}")
            time.sleep(POLL_S)

    def until_exact(self, expected: Offsets) -> None:
        """Wait until as many records are counted as expected, then require each exactly once."""
        total = sum(len(offsets) for offsets in expected.values())
        self.until(lambda: self.count() >= total, f"{total} records counted")
        self.require_exact(expected)

    def require_exact(self, expected: Offsets) -> None:
        assert self.seen() == {tp: sorted(offsets) for tp, offsets in expected.items()}


class Worker:
    """One worker process."""

    def __init__(self, name: str, bench: Bench, topics: str, options: Iterable[str]) -> None:
        self.name = name
        self._bench = bench
        self._log = bench.folder / f"{name}.log"
        arguments = {
            "name": name,
            "brokers": bench.brokers,
            "group": bench.group,
            "topics": topics,
            "sink": str(bench.folder / "sink.db"),
        }
        command = [sys.executable, "-m", "tests.integration.transport_worker", *options]
        command += [part for key, value in arguments.items() for part in (f"--{key}", value)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stderr=log, stdout=log)

    def log(self) -> str:
        return f"-- {self.name}\n{self._log.read_text()[-6000:]}"

    def terminate(self) -> None:
        """SIGTERM, and a clean end."""
        self._process.send_signal(signal.SIGTERM)
        assert self.exit_code() == 0, self.log()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        assert self.exit_code() == -signal.SIGKILL

    def exit_code(self) -> int:
        """Wait for the end."""
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end\n{self.log()}") from None

    def end(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


def send_one(producer: KafkaProducer, tp: TP, number: int) -> object:
    """Send a record whose value no other record of the topic has."""
    return producer.send(tp.topic, partition=tp.partition, value=b"%d:%d" % (tp.partition, number))


def sent(futures: Iterable[object]) -> Offsets:
    """Wait for acknowledgements and return their offsets."""
    offsets: Offsets = {}
    for future in futures:
        where = future.get(timeout=30)  # type: ignore[attr-defined]
        offsets.setdefault(TP(where.topic, where.partition), set()).add(where.offset)
    return offsets


def together(*parts: Offsets) -> Offsets:
    """Unite what was sent in several goes."""
    united: Offsets = {}
    for part in parts:
        for tp, offsets in part.items():
            united[tp] = united.get(tp, set()) | offsets
    return united


def in_transaction(producer: KafkaProducer, tp: TP, numbers: range, *, abort: bool = False) -> Offsets:
    """Write one transaction, which puts a marker behind the records, and return the records' offsets."""
    producer.begin_transaction()
    offsets = sent([send_one(producer, tp, number) for number in numbers])
    if abort:
        producer.abort_transaction()
    else:
        producer.commit_transaction()
    return offsets

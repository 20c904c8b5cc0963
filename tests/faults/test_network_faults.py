"""Brokers that stop, networks that break, commits that fail, batches that arrive damaged: waited out, exactly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import MakeRun
from tests.faults.proxy import OFFSET_COMMIT, Proxy
from tests.made_events import made_events
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def between(tmp_path: Path) -> Iterator[tuple[KafkaBroker, Proxy]]:
    """A broker that everybody reaches through a proxy only."""
    with Proxy() as proxy, KafkaBroker(tmp_path, proxy_port=proxy.port) as kafka:
        proxy.target_port = kafka.behind_proxy
        yield kafka, proxy


@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_broker_that_stops_and_comes_back(
    make_run: MakeRun, own_kafka: KafkaBroker, redis_server: RedisServer, kill: bool
) -> None:
    run = make_run(own_kafka, redis_server)
    worker = run.installation.start_worker()
    run.send(made_events(3_000, seed=41))
    run.installation.wait_until_judged(1)
    with own_kafka.down(kill=kill):
        pass
    run.send(made_events(3_000, seed=42))
    run.recover()
    run.wait_until_judged()
    assert run.installation.stop(worker) == 0
    run.prove()


def test_a_connection_to_kafka_that_breaks(
    make_run: MakeRun, between: tuple[KafkaBroker, Proxy], redis_server: RedisServer
) -> None:
    kafka, proxy = between
    run = make_run(kafka, redis_server)
    worker = run.installation.start_worker("--brokers", f"127.0.0.1:{proxy.port}")
    with run.feeding(seed=43):
        for length_s in (0.5, 2.0, 8.0):  # the last one is longer than the session
            run.installation.wait_until_more_is_judged()
            with proxy.cut():
                time.sleep(length_s)
            run.recover()
    run.wait_until_judged()
    assert run.installation.stop(worker) == 0
    run.prove()


@pytest.mark.thorough
def test_commits_that_fail_for_a_while(
    make_run: MakeRun, between: tuple[KafkaBroker, Proxy], redis_server: RedisServer
) -> None:
    kafka, proxy = between
    run = make_run(kafka, redis_server)
    worker = run.installation.start_worker("--brokers", f"127.0.0.1:{proxy.port}")
    with run.feeding(seed=44):
        run.installation.wait_until_more_is_judged()
        with proxy.refusing(OFFSET_COMMIT):
            wait_until(lambda: proxy.refused > 5, "nothing is committed")
        run.recover()
    run.wait_until_judged()
    assert run.installation.stop(worker) == 0
    run.prove()


@pytest.mark.thorough
def test_a_damaged_batch_is_noticed(
    make_run: MakeRun, between: tuple[KafkaBroker, Proxy], redis_server: RedisServer
) -> None:
    kafka, proxy = between
    run = make_run(kafka, redis_server)
    run.installation.start_worker("--brokers", f"127.0.0.1:{proxy.port}")
    damaged = 0

    def flip(data: bytes) -> bytes:
        nonlocal damaged
        at = data.find(b'"event_id"')
        if at < 0 or damaged >= 3:
            return data
        damaged += 1
        return data[: at + 2] + b"X" + data[at + 3 :]

    with run.feeding(seed=46):
        run.installation.wait_until_more_is_judged()
        with proxy.spoiling(flip):
            wait_until(lambda: damaged >= 3, "nothing was damaged")
    # A worker that can not believe what it reads may end; whoever looks after it starts it again.
    run.installation.restart_ended()
    run.wait_until_judged()
    assert [run.installation.stop(worker) for worker in run.installation.running()] == [0]
    run.prove()


def test_a_connection_to_redis_that_breaks(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    with Proxy(redis_server.port) as proxy:
        run = make_run(kafka, redis_server)
        worker = run.installation.start_worker("--redis", f"redis://127.0.0.1:{proxy.port}/0")
        with run.feeding(seed=47):
            for length_s in (0.2, 4.0):
                run.installation.wait_until_more_is_judged()
                with proxy.cut():
                    time.sleep(length_s)
                run.recover()
        run.wait_until_judged()
        assert run.installation.stop(worker) == 0
    run.prove()

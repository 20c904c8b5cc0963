"""Brokers that stop, networks that break, commits that fail, batches that arrive damaged: waited out, exactly."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.conftest import MakeRun
from tests.faults.proof import FaultRun
from tests.faults.proxy import OFFSET_COMMIT, Proxy
from tests.made_events import made_events
from tests.service_process import LOOPBACK
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]


class Proxied(NamedTuple):
    """A run whose worker reaches Kafka through a proxy only; who feeds it goes straight."""

    run: FaultRun
    worker: subprocess.Popen[bytes]
    proxy: Proxy


@pytest.fixture
def proxied(make_run: MakeRun, redis_server: RedisServer, tmp_path: Path) -> Iterator[Proxied]:
    """The worker has been started, and nothing is sent yet."""
    with Proxy() as proxy, KafkaBroker(tmp_path, proxy_port=proxy.port) as kafka:
        proxy.target_port = kafka.behind_proxy
        run = make_run(kafka, redis_server)
        worker = run.installation.start_worker("--brokers", f"{LOOPBACK}:{proxy.port}")
        yield Proxied(run, worker, proxy)


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
    run.finish(worker)


def test_a_connection_to_kafka_that_breaks(proxied: Proxied) -> None:
    run, worker, proxy = proxied
    with run.feeding(seed=43):
        for length_s in (0.5, 2.0, 8.0):  # the last one is longer than the session
            run.installation.wait_until_more_is_judged()
            with proxy.cut():
                time.sleep(length_s)
            run.recover()
    run.finish(worker)


@pytest.mark.thorough
def test_commits_that_fail_for_a_while(proxied: Proxied) -> None:
    run, worker, proxy = proxied
    with run.feeding(seed=44):
        run.installation.wait_until_more_is_judged()
        with proxy.refusing(OFFSET_COMMIT):
            wait_until(lambda: proxy.refused > 5, "nothing is committed")
        run.recover()
    run.finish(worker)


@pytest.mark.thorough
def test_a_damaged_batch_is_noticed(proxied: Proxied) -> None:
    run, _, proxy = proxied
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
    (worker,) = run.installation.running()
    run.finish(worker)


def test_a_connection_to_redis_that_breaks(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    with Proxy(redis_server.port) as proxy:
        run = make_run(kafka, redis_server)
        worker = run.installation.start_worker("--redis", f"redis://{LOOPBACK}:{proxy.port}/0")
        with run.feeding(seed=47):
            for length_s in (0.2, 4.0):
                run.installation.wait_until_more_is_judged()
                with proxy.cut():
                    time.sleep(length_s)
                run.recover()
        run.finish(worker)

"""Redis away, empty, full, older or wrong: the stream waits or mends it, and Redis ends equal to the tables."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from tests.faults.conftest import MakeRun
from tests.faults.processes import memory_mib
from tests.faults.proof import FaultRun
from tests.made_events import made_events
from tests.services import KafkaBroker, RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]

Fault = Callable[[FaultRun, RedisServer], None]


def _restarted_empty(run: FaultRun, server: RedisServer) -> None:
    with server.down(kill=True):
        pass


def _flushed(run: FaultRun, server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def _scripts_gone(run: FaultRun, server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.function_flush()


def _out_of_memory(run: FaultRun, server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1mb")
        run.wait_until_more_is_fed(1_000)
        client.config_set("maxmemory", "0")


def _wrong_type(run: FaultRun, server: RedisServer) -> None:
    """Somebody overwrites what is there with strings, but for the note of whose it is."""
    with redis.Redis.from_url(server.url) as client:
        keys = [key for key in client.scan_iter(count=1000) if not key.endswith(b"}:key")]
        client.mset(dict.fromkeys(keys, "overwritten by somebody"))


def _failed_over_to_an_older_replica(run: FaultRun, server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.save()
        run.wait_until_more_is_fed(1_000)
    with server.down(kill=True):
        pass  # it comes back with what it had saved


def _slow(run: FaultRun, server: RedisServer) -> None:
    """Nothing is answered for half a second, ten times."""
    with redis.Redis.from_url(server.url) as client:
        for _ in range(10):
            client.client_pause(500)
            run.wait_until_more_is_fed(100)


@pytest.mark.parametrize(
    "fault",
    [
        _flushed,
        _wrong_type,
        _out_of_memory,
        pytest.param(_restarted_empty, marks=pytest.mark.thorough),
        pytest.param(_scripts_gone, marks=pytest.mark.thorough),
        pytest.param(_failed_over_to_an_older_replica, marks=pytest.mark.thorough),
        pytest.param(_slow, marks=pytest.mark.thorough),
    ],
)
def test_redis_ends_equal_to_the_tables(
    make_run: MakeRun, kafka: KafkaBroker, own_redis: RedisServer, fault: Fault
) -> None:
    run = make_run(kafka, own_redis)
    worker = run.installation.start_worker()
    run.send(made_events(2_000, seed=21))
    run.wait_until_judged()
    with run.feeding(seed=22):
        run.wait_until_more_is_fed(500)
        fault(run, own_redis)
    run.recover_with_redis()
    run.finish(worker)


def test_what_redis_forgets_while_nothing_happens_is_shown_again(
    make_run: MakeRun, kafka: KafkaBroker, own_redis: RedisServer
) -> None:
    run = make_run(kafka, own_redis)
    worker = run.installation.start_worker()
    run.send(made_events(2_000, seed=41))
    run.wait_until_judged()
    run.recover_with_redis()
    _flushed(run, own_redis)
    run.recover_with_redis()
    run.finish(worker)


@pytest.mark.thorough
@pytest.mark.timeout(1_200)
def test_redis_down_for_five_minutes_is_waited_for_with_flat_memory(
    make_run: MakeRun, kafka: KafkaBroker, own_redis: RedisServer
) -> None:
    run = make_run(kafka, own_redis)
    worker = run.installation.start_worker()
    run.send(made_events(2_000, seed=31))
    run.wait_until_judged()
    with run.feeding(seed=32):  # twice as many would fill windows beyond the 1,024 that are counted exactly
        with own_redis.down(kill=True):
            deadline_s = time.monotonic() + 300
            samples = []
            while time.monotonic() < deadline_s:
                assert worker.poll() is None, run.installation.logs()
                samples.append(memory_mib(worker))
                time.sleep(5)
        early, late = max(samples[: len(samples) // 2]), max(samples[len(samples) // 2 :])
        assert late < 1.3 * early + 50, samples
    run.recover_with_redis()
    run.finish(worker)

"""SIGTERM while Redis or Kafka is away: the worker ends in time, and its successor finishes what was left."""

from __future__ import annotations

import subprocess

import pytest

from tests.faults.conftest import MakeRun
from tests.faults.processes import wait_for_parts, wait_until_gone
from tests.faults.proof import FaultRun
from tests.made_events import made_events
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]

_STOP_S = 30.0
_REDIS_IS_MISSED = "Redis: "
_KAFKA_IS_MISSED = "Unable connect to node"


def _stop_in_time(run: FaultRun, worker: subprocess.Popen[bytes], missed: str) -> None:
    """Stop a worker whose log shows that it misses something: in time, politely, with all of its processes."""
    parts = wait_for_parts(worker)
    wait_until(
        lambda: missed in run.installation.logs(characters=1_000_000), f"the worker never said: {missed}"
    )
    worker.terminate()
    assert worker.wait(_STOP_S) == 0, run.installation.logs()
    wait_until_gone(parts)


def test_sigterm_while_redis_is_away(make_run: MakeRun, kafka: KafkaBroker, own_redis: RedisServer) -> None:
    run = make_run(kafka, own_redis)
    worker = run.installation.start_worker()
    run.send(made_events(1_000, seed=91))
    run.wait_until_judged()
    with run.feeding(seed=92):
        with own_redis.down(kill=True):
            _stop_in_time(run, worker, _REDIS_IS_MISSED)
        last = run.installation.start_worker()
    run.finish(last)


def test_sigterm_while_kafka_is_away(
    make_run: MakeRun, own_kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    run = make_run(own_kafka, redis_server)
    worker = run.installation.start_worker()
    with run.feeding(seed=93):
        run.installation.wait_until_more_is_judged()
        with own_kafka.down(kill=True):
            _stop_in_time(run, worker, _KAFKA_IS_MISSED)
        last = run.installation.start_worker()
    run.finish(last)

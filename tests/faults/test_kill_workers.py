"""Workers are killed, at random and at every step of the way of an event, and started again: nothing changes."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from tests.faults.conftest import MakeRun
from tests.faults.processes import wait_for_parts, wait_until_gone
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]

WRITE_PATH = (
    ("turn.before", 2),
    ("turn.recorded", 2),
    ("turn.asked", 2),
    ("shard.answering", 2),
    ("shard.answered", 2),
    ("dead_letters.sent", 1),
    ("parquet.staging", 2),
    ("parquet.staged", 1),
    ("log.appended", 1),
    ("parquet.committed", 2),
    ("parquet.renaming", 2),
    ("parquet.renamed", 1),
    ("redis.written", 1),
    ("metrics.staged", 2),
    ("metrics.renamed", 2),
    ("rollup.shown", 1),
    ("rollup.durable", 1),
    ("checkpoint.before", 1),
    ("state.staged", 1),
    ("checkpoint.saved", 1),
)
"""Each named place on the way of an event, and at which pass the process dies there."""
_QUICK = (
    "turn.recorded",
    "shard.answered",
    "parquet.committed",
    "redis.written",
    "metrics.staged",
    "state.staged",
)


def _killed_at_random(
    run_of: MakeRun, kafka: KafkaBroker, redis: RedisServer, *, workers: int, kills: int, pause_s: float
) -> None:
    draw = random.Random(20261122)
    run = run_of(kafka, redis, partitions=max(2, workers))
    installation = run.installation
    running = [installation.start_worker() for _ in range(workers)]
    with run.feeding(seed=3):
        for _ in range(kills):
            time.sleep(draw.uniform(0.5 * pause_s, 1.5 * pause_s))  # a kill comes at any moment
            victim = draw.randrange(workers)
            parts = wait_for_parts(running[victim])
            installation.kill(running[victim])
            wait_until_gone(parts)
            running[victim] = installation.start_worker()
    run.finish(*running)


def test_six_kills_change_nothing(make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer) -> None:
    _killed_at_random(make_run, kafka, redis_server, workers=2, kills=6, pause_s=5.5)


@pytest.mark.thorough
def test_a_killed_worker_whose_partitions_go_to_the_other(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    run = make_run(kafka, redis_server, partitions=4)
    victim, other = run.installation.start_worker(), run.installation.start_worker()
    with run.feeding(seed=4):
        logs = [run.folder / f"worker-{number:03d}.log" for number in (1, 2)]
        wait_until(
            lambda: all("recorded turns to take again" in log.read_text() for log in logs),
            "not both workers have judges",
        )
        run.installation.wait_until_more_is_judged()
        parts = wait_for_parts(victim)
        run.installation.kill(victim)
        run.recover()
        wait_until_gone(parts)
    run.finish(other)


@pytest.mark.thorough
def test_twenty_kills_change_nothing(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    _killed_at_random(make_run, kafka, redis_server, workers=2, kills=20, pause_s=5.5)


@pytest.mark.thorough
def test_three_workers_one_killed_every_few_seconds(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    _killed_at_random(make_run, kafka, redis_server, workers=3, kills=10, pause_s=4.0)


@pytest.mark.parametrize(
    "places",
    [
        pytest.param([step for step in WRITE_PATH if step[0] in _QUICK], id="some"),
        pytest.param(WRITE_PATH, id="all", marks=pytest.mark.thorough),
    ],
)
def test_a_kill_at_each_step_changes_nothing(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer, places: Sequence[tuple[str, int]]
) -> None:
    run = make_run(kafka, redis_server)
    for number, (place, passing) in enumerate(places):
        worker = run.installation.start_worker(WOOLWATCH_FAULT=f"{place}:{passing}")
        parts = wait_for_parts(worker)
        with run.feeding(seed=100 + number):
            run.installation.expect_death(worker)
        wait_until_gone(parts)
    last = run.installation.start_worker()
    run.recover()
    run.finish(last)

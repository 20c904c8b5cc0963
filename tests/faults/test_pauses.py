"""Workers that stop politely, freeze, or wake up in another time: nothing is lost, doubled or done again."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from tests.faults.conftest import MakeRun
from tests.faults.processes import frozen, wait_for_parts
from tests.made_events import made_events
from tests.services import REPOSITORY, KafkaBroker, RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]

_WRONG_CLOCK = Path(__file__).with_name("wrong_clock")


def test_sigterm_in_mid_batch_leaves_nothing_to_do_again(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    run = make_run(kafka, redis_server)
    installation = run.installation
    with run.feeding(seed=5):
        for _ in range(2):
            worker = installation.start_worker()
            installation.wait_until_more_is_judged()
            worker.terminate()
            assert worker.wait(30) == 0
        last = installation.start_worker()
    run.finish(last)
    again = re.findall(r"(\d+) recorded turns to take again", installation.logs(characters=1_000_000))
    assert again == ["0"] * 2 * 3, again  # two judges, three workers


@pytest.mark.thorough
def test_a_worker_frozen_past_its_session_disturbs_nobody_when_it_wakes(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    run = make_run(kafka, redis_server)
    workers = [run.installation.start_worker() for _ in range(2)]
    with run.feeding(seed=6):
        run.installation.wait_until_more_is_judged()
        with frozen(workers[0]):
            run.recover()  # the other one has all partitions by then
            time.sleep(40)
    run.wait_until_judged()
    for worker in workers:
        code = run.installation.stop(worker)
        assert code in (0, 3), code  # the one that slept may have ended as fenced
    # Whatever the sleeper did not hand on, its successor does.
    last = run.installation.start_worker()
    wait_for_parts(last)
    run.finish(last)


@pytest.mark.parametrize("shift_s", [-86_400, 7_200], ids=["a day back", "two hours ahead"])
@pytest.mark.thorough
def test_the_clock_of_the_host_does_not_matter(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer, shift_s: int
) -> None:
    run = make_run(kafka, redis_server)
    right = run.installation.start_worker()
    run.send(made_events(2_000, seed=7))
    run.wait_until_judged()
    assert run.installation.stop(right) == 0
    path = f"{_WRONG_CLOCK}:{REPOSITORY}"
    wrong = run.installation.start_worker(PYTHONPATH=path, WRONG_CLOCK_S=str(shift_s))
    run.installation.wait_until_logged(f"test: the clock is wrong by {shift_s} s")
    run.send(made_events(2_000, seed=8))
    run.finish(wrong)


def test_stale_offsets_of_the_group_are_advisory(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    run = make_run(kafka, redis_server)
    for seed, moved_to in ((9, 0), (10, 700)):
        worker = run.installation.start_worker()
        run.send(made_events(2_000, seed=seed))
        run.wait_until_judged()
        assert run.installation.stop(worker) == 0
        run.installation.move_group_offsets(moved_to)
    last = run.installation.start_worker()
    run.send(made_events(500, seed=11))
    run.finish(last)


def test_leaving_while_others_come(make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer) -> None:
    run = make_run(kafka, redis_server, partitions=3)
    first = run.installation.start_worker()
    with run.feeding(seed=12):
        run.installation.wait_until_more_is_judged()
        second, third = run.installation.start_worker(), run.installation.start_worker()
        stopping = threading.Thread(target=run.installation.stop, args=(first,))
        run.installation.wait_until_more_is_judged()
        stopping.start()
        run.recover()
        stopping.join(60)
        assert first.poll() == 0
    run.finish(second, third)

"""Tables and state on an S3-compatible store: a worker is killed within a commit, the store goes away."""

from __future__ import annotations

import subprocess

import pytest

from streams.settings import open_store
from tests.faults.conftest import MakeRun
from tests.faults.processes import wait_for_parts, wait_until_gone
from tests.faults.proof import FaultRun
from tests.made_events import made_events
from tests.services import KafkaBroker, RedisServer, S3Server
from tests.waiting import wait_until

pytestmark = pytest.mark.faults


@pytest.fixture
def run(make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer, s3_uri: str) -> FaultRun:
    """An installation whose tables and state are on the store."""
    run = make_run(kafka, redis_server)
    run.installation.store, run.installation.state_store = s3_uri, f"{s3_uri}-state"
    return run


def _finish(run: FaultRun, worker: subprocess.Popen[bytes], s3_uri: str) -> None:
    run.wait_until_judged()
    assert run.installation.stop(worker) == 0
    assert open_store(s3_uri).names("_staging") == []
    assert not run.installation.state.exists()
    assert open_store(f"{s3_uri}-state").names("checkpoints")
    run.installation.download()
    run.prove()


@pytest.mark.parametrize(
    "place", ["parquet.renaming", pytest.param("metrics.renamed", marks=pytest.mark.thorough)]
)
def test_a_kill_within_a_commit_changes_nothing(run: FaultRun, s3_uri: str, place: str) -> None:
    installation = run.installation
    worker = installation.start_worker(WOOLWATCH_FAULT=f"{place}:2")
    parts = wait_for_parts(worker)
    run.send(made_events(2_000, seed=200))
    installation.expect_death(worker)
    wait_until_gone(parts)
    worker = installation.start_worker()
    run.send(made_events(1_000, seed=201))
    _finish(run, worker, s3_uri)


@pytest.mark.thorough
def test_a_store_that_is_away_is_waited_for(run: FaultRun, s3_uri: str, s3_server: S3Server) -> None:
    installation = run.installation
    worker = installation.start_worker()
    run.send(made_events(1_000, seed=210))
    run.wait_until_judged()
    with s3_server.down(kill=True):
        run.send(made_events(1_000, seed=211))
        wait_until(lambda: "the tables: " in installation.logs(characters=100_000), "the outage was not seen")
        run.send(made_events(500, seed=212))
        assert worker.poll() is None, installation.logs()
    _finish(run, worker, s3_uri)

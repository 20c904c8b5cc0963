"""What fault tests ask for: a run whose harmlessness can be proven, and services of their own to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.proof import FaultRun
from tests.services import KafkaBroker, RedisServer

MakeRun = Callable[..., FaultRun]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that this test may break."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker that this test may break."""
    with KafkaBroker(tmp_path) as broker:
        yield broker


@pytest.fixture
def make_run(tmp_path: Path, topic_prefix: str) -> Iterator[MakeRun]:
    """Make a run on the services given; whatever still runs at the end is ended."""
    made: list[FaultRun] = []

    def make(kafka: KafkaBroker, redis: RedisServer, *, partitions: int = 2) -> FaultRun:
        made.append(FaultRun(tmp_path, kafka, redis, topic_prefix, partitions=partitions))
        return made[-1]

    yield make
    for run in made:
        run.installation.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say of every fault what became of it, as a table."""
    rows = sorted(
        (report.nodeid.rpartition("/")[2], outcome, report.duration)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and "tests/faults/" in report.nodeid
    )
    if not rows:
        return
    terminalreporter.section("faults")
    for name, outcome, seconds in rows:
        terminalreporter.write_line(f"{outcome:<8}{seconds:>7.0f} s  {name}")

"""What fault tests ask for: a run whose harmlessness can be proven, and services of their own to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.proof import RECOVERY, FaultRun
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
def make_run(tmp_path: Path, topic_prefix: str, request: pytest.FixtureRequest) -> Iterator[MakeRun]:
    """Make a run on the services given; whatever still runs at the end is ended."""
    made: list[FaultRun] = []

    def make(kafka: KafkaBroker, redis: RedisServer, *, partitions: int = 2) -> FaultRun:
        run = FaultRun(
            tmp_path, kafka, redis, topic_prefix, notes=request.node.user_properties, partitions=partitions
        )
        made.append(run)
        return run

    yield make
    for run in made:
        run.installation.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say of every fault what became of it, as the table that docs/RELIABILITY.md shows."""
    reports = [
        (report, outcome)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and "tests/faults/" in report.nodeid
    ]
    if not reports:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line("| test | outcome | took, s | recovery, s |")
    terminalreporter.write_line("|---|---|--:|--:|")
    for report, outcome in sorted(reports, key=lambda found: found[0].nodeid):
        name = report.nodeid.rpartition("/")[2].removeprefix("test_").replace(".py::test_", ": ")
        recoveries = sorted(value for key, value in report.user_properties if key == RECOVERY)
        shown = " to ".join(dict.fromkeys(f"{value:.0f}" for value in (*recoveries[:1], *recoveries[-1:])))
        terminalreporter.write_line(f"| {name} | {outcome} | {report.duration:.0f} | {shown} |")

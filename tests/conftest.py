"""What every test may ask for: a Kafka broker, a Redis, a store, fresh names, and the recorded data.

Nothing here lets a test disappear unseen. Tests of recorded data are deselected with a plain line where the
data is not there, and ``WOOLWATCH_REQUIRE=all`` turns that, and every skip, into a failure.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from streams.kernel_cache import use_kernel_cache
from tests.services import REPOSITORY, KafkaBroker, RedisServer, S3Server

DATA_VARIABLE = "WOOLWATCH_DATA"
use_kernel_cache()  # before any test module imports a kernel
REQUIRE_ALL = os.environ.get("WOOLWATCH_REQUIRE") == "all"

# No example fails by the clock: the first one of a kernel compiles it, and neighbours may hold the processor.
# CI draws the same examples each time, developers new ones.
settings.register_profile(
    "woolwatch",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=REQUIRE_ALL,
    print_blob=True,
)
settings.load_profile("woolwatch")


def recorded_data() -> Path | None:
    """The folder of recorded events: as the environment names it, else beside the repository, else none."""
    named = os.environ.get(DATA_VARIABLE)
    folder = REPOSITORY / named if named else REPOSITORY.parent / "shared" / "data"
    if folder.is_dir():
        return folder.resolve()
    if named or REQUIRE_ALL:
        raise pytest.UsageError(f"no recorded data: {DATA_VARIABLE} is {named!r}, and that is not a folder")
    return None


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One Apache Kafka broker for the whole run; take fresh topics and groups from ``topic_prefix``."""
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the whole run; keys begin with ``topic_prefix`` or the test flushes the database."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3-compatible store for the whole run; names begin with ``topic_prefix``."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """Begin topics, groups and keys of this test with it: the test's name and 8 random hex digits."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return f"{name[:60]}-{uuid.uuid4().hex[:8]}-"


@pytest.fixture
def s3_uri(s3_server: S3Server, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh place in the store, with the environment that leads there."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{topic_prefix.rstrip('-')}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of recorded events; where there is none, tests that ask for it are deselected."""
    folder = recorded_data()
    assert folder is not None, "a test asked for recorded data without being marked `recorded`"
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that read recorded data, and deselect them where there is none."""
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("recorded")
    if recorded_data() is not None:
        return
    without = [item for item in items if item.get_closest_marker("recorded")]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(
                f"{len(without)} tests of recorded data left out: {DATA_VARIABLE} names no folder"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what was skipped, or failed as expected, when everything is required."""
    report = yield
    _refuse_skips(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips itself when everything is required."""
    report = yield
    _refuse_skips(report)
    return report


def _refuse_skips(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, but WOOLWATCH_REQUIRE=all: {report.longrepr}"

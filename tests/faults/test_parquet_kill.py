"""kill -9 of a Parquet writer at every step of a commit, and two writers at once: every row once, always."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from sinks.commit_log import account_of, read_accounts
from sinks.store import Store
from streams.settings import open_store
from tests.faults.parquet_writer import PARTITION, TURNS, fault_turn, write_turns
from tests.services import S3Server
from tests.unit.sinks.turns import Row

pytestmark = pytest.mark.faults

MADE = [fault_turn(number) for number in range(TURNS)]
STEPS = (
    "parquet.staging",
    "parquet.staged",
    "log.appended",
    "parquet.committed",
    "parquet.renaming",
    "parquet.renamed",
)


# A server that has imported everything and then forks: a writer starts in a tenth of the time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.faults.parquet_writer"])


class Place(NamedTuple):
    """Where the tables are, and the variables that lead there."""

    uri: str
    variables: Mapping[str, str]

    @property
    def store(self) -> Store:
        return open_store(self.uri)


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A fresh place on a disk, and one on an S3-compatible server."""
    if request.param == "disk":
        return Place(str(tmp_path), {})
    uri: str = request.getfixturevalue("s3_uri")
    server: S3Server = request.getfixturevalue("s3_server")
    return Place(uri, server.environment)


def killed_at(place: Place, step: str, *, cut: int) -> None:
    """Let a process write until it kills itself at a step."""
    process = PROCESSES.Process(target=write_turns, args=(place.uri, cut, step, None, place.variables))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


def rows_seen(store: Store, table: str) -> list[Row]:
    """What a reader who globs sees now; reading fails if a file is not whole."""
    # S3Proxy also lists what is still on its way to its place, under a name of another ending.
    names = [name for name in store.names(table) if name.endswith(".parquet")]
    rows = [row for name in names for row in pq.ParquetFile(store.open(name)).read().to_pylist()]
    return sorted(rows, key=source_of)


def source_of(row: Row) -> tuple[str, int]:
    return row["topic"], row["offset"]


def rows_made(table: str) -> list[Row]:
    return sorted((row for turn in MADE for row in getattr(turn, table)), key=source_of)


def assert_nothing_doubled_or_invented(place: Place) -> None:
    for table in ("verdicts", "late"):
        expected = {source_of(row): row for row in rows_made(table)}
        seen = rows_seen(place.store, table)
        assert len({source_of(row) for row in seen}) == len(seen)
        assert all(expected[source_of(row)] == row for row in seen)


def assert_complete(place: Place) -> None:
    for table in ("verdicts", "late"):
        assert rows_seen(place.store, table) == rows_made(table)
    accounts = read_accounts(place.store)
    assert accounts.sources == account_of(turn.turn for turn in MADE)
    assert (accounts.turns, accounts.problems) == ({PARTITION: TURNS}, ())
    assert place.store.folders(f"_staging/p{PARTITION}") == []


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_loses_nothing_and_doubles_nothing(place: Place, step: str) -> None:
    killed_at(place, f"{step}:3", cut=3)
    assert_nothing_doubled_or_invented(place)

    write_turns(place.uri, cut=5)

    assert_complete(place)


def test_kills_one_after_the_other_also_while_taking_up_the_last_one(place: Place) -> None:
    # Each of the last three dies in `open`, at what the one before it left behind.
    for step in (
        "parquet.staged:2",
        "log.appended:2",
        "parquet.committed",
        "parquet.renaming",
        "parquet.renamed",
    ):
        killed_at(place, step, cut=4)
        assert_nothing_doubled_or_invented(place)
    write_turns(place.uri, cut=1)
    assert_complete(place)


@pytest.mark.parametrize(
    "faults", [("", ""), ("parquet.renaming:9", ""), ("parquet.staged:4", "log.appended:5")]
)
def test_two_writers_at_once_are_as_one(place: Place, faults: tuple[str, str]) -> None:
    together = PROCESSES.Barrier(2)
    writers = [
        PROCESSES.Process(target=write_turns, args=(place.uri, cut, fault, together, place.variables))
        for cut, fault in zip((1, 2), faults, strict=True)
    ]
    for process in writers:
        process.start()
    while any(process.is_alive() for process in writers):
        assert_nothing_doubled_or_invented(place)
        wait([process.sentinel for process in writers], timeout=0.05)
    # Whoever loses every race never comes to the place where it would be killed.
    for process, fault in zip(writers, faults, strict=True):
        assert process.exitcode in ((0, -signal.SIGKILL) if fault else (0,))
        process.close()
    write_turns(place.uri, cut=7)
    assert_complete(place)

"""kill -9 of a Parquet writer at every step of a commit, and two writers at once: every row once, always."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.connection import wait
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sinks.commit_log import account_of, read_accounts
from sinks.local_store import LocalStore
from tests.faults.parquet_writer import PARTITION, TURNS, fault_turn, write_turns
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


def killed_at(root: Path, step: str, *, cut: int) -> None:
    """Let a process write until it kills itself at a step."""
    process = PROCESSES.Process(target=write_turns, args=(root, cut, step))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


def rows_seen(root: Path, table: str) -> list[Row]:
    """What a reader who globs sees now; reading fails if a file is not whole."""
    rows = [
        row for path in root.glob(f"{table}/**/*.parquet") for row in pq.ParquetFile(path).read().to_pylist()
    ]
    return sorted(rows, key=place)


def place(row: Row) -> tuple[str, int]:
    return row["topic"], row["offset"]


def rows_made(table: str) -> list[Row]:
    return sorted((row for turn in MADE for row in getattr(turn, table)), key=place)


def assert_nothing_doubled_or_invented(root: Path) -> None:
    for table in ("verdicts", "late"):
        expected = {place(row): row for row in rows_made(table)}
        seen = rows_seen(root, table)
        assert len({place(row) for row in seen}) == len(seen)
        assert all(expected[place(row)] == row for row in seen)


def assert_complete(root: Path) -> None:
    for table in ("verdicts", "late"):
        assert rows_seen(root, table) == rows_made(table)
    accounts = read_accounts(LocalStore(root))
    assert accounts.sources == account_of(turn.turn for turn in MADE)
    assert (accounts.turns, accounts.problems) == ({PARTITION: TURNS}, ())
    assert list((root / "_staging" / f"p{PARTITION}").iterdir()) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_loses_nothing_and_doubles_nothing(tmp_path: Path, step: str) -> None:
    killed_at(tmp_path, f"{step}:3", cut=3)
    assert_nothing_doubled_or_invented(tmp_path)

    write_turns(tmp_path, cut=5)

    assert_complete(tmp_path)


def test_kills_one_after_the_other_also_while_taking_up_the_last_one(tmp_path: Path) -> None:
    # Each of the last three dies in `open`, at what the one before it left behind.
    for step in (
        "parquet.staged:2",
        "log.appended:2",
        "parquet.committed",
        "parquet.renaming",
        "parquet.renamed",
    ):
        killed_at(tmp_path, step, cut=4)
        assert_nothing_doubled_or_invented(tmp_path)
    write_turns(tmp_path, cut=1)
    assert_complete(tmp_path)


@pytest.mark.parametrize(
    "faults", [("", ""), ("parquet.renaming:9", ""), ("parquet.staged:4", "log.appended:5")]
)
def test_two_writers_at_once_are_as_one(tmp_path: Path, faults: tuple[str, str]) -> None:
    together = PROCESSES.Barrier(2)
    writers = [
        PROCESSES.Process(target=write_turns, args=(tmp_path, cut, fault, together))
        for cut, fault in zip((1, 2), faults, strict=True)
    ]
    for process in writers:
        process.start()
    while any(process.is_alive() for process in writers):
        assert_nothing_doubled_or_invented(tmp_path)
        wait([process.sentinel for process in writers], timeout=0.05)
    # Whoever loses every race never comes to the place where it would be killed.
    for process, fault in zip(writers, faults, strict=True):
        assert process.exitcode in ((0, -signal.SIGKILL) if fault else (0,))
        process.close()
    write_turns(tmp_path, cut=7)
    assert_complete(tmp_path)

"""Disks that are full or slow, files that were left over or torn: waited for, put aside, taken up again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import MakeRun
from tests.faults.processes import wait_for_parts, wait_until_gone
from tests.made_events import made_events
from tests.services import REPOSITORY, KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]

_SLOW_DISK = Path(__file__).with_name("slow_disk")
_TORN = ("judge-0000", "shard-0001")
_DISK_BYTES = 48 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "woolwatch-test", folder], check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _fill(folder: Path) -> Path:
    """Take all the room that there is."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return ballast


@pytest.mark.thorough
def test_a_full_disk_is_waited_for(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer, small_disk: Path
) -> None:
    run = make_run(kafka, redis_server)
    run.installation.out, run.installation.state = small_disk / "out", small_disk / "state"
    worker = run.installation.start_worker()
    run.send(made_events(2_000, seed=51))
    run.wait_until_judged()
    with run.feeding(seed=52):
        ballast = _fill(small_disk)
        refused = ("the tables: ", "the metric tables: ", "the state: ")
        run.installation.wait_until_logged(*(f"{what}[Errno 28]" for what in refused))
        ballast.unlink()
        run.recover()
    run.finish(worker)


@pytest.mark.thorough
def test_a_slow_disk_only_slows(make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer) -> None:
    run = make_run(kafka, redis_server)
    worker = run.installation.start_worker(PYTHONPATH=f"{_SLOW_DISK}:{REPOSITORY}", SLOW_FSYNC_S="0.7")
    with run.feeding(seed=53):
        run.installation.wait_until_more_is_judged()
        run.installation.wait_until_more_is_judged()
    run.installation.wait_until_logged("test: a slow fsync")
    run.finish(worker)


def test_left_over_files_and_torn_checkpoints_are_put_aside(
    make_run: MakeRun, kafka: KafkaBroker, redis_server: RedisServer
) -> None:
    run = make_run(kafka, redis_server)
    worker = run.installation.start_worker()
    with run.feeding(seed=54):
        wait_until(
            lambda: all(len(_checkpoints(run.installation.state, owner)) > 1 for owner in _TORN),
            "no checkpoints are written",
        )
        parts = wait_for_parts(worker)
        run.installation.kill(worker)
        wait_until_gone(parts)
        for owner in _TORN:
            newest = _checkpoints(run.installation.state, owner)[-1]
            os.truncate(newest, newest.stat().st_size * 2 // 3)
        _leave_files_over(run.installation.out, run.installation.state)
        last = run.installation.start_worker()
        run.recover()
    run.finish(last)


def _checkpoints(state: Path, owner: str) -> list[Path]:
    return sorted((state / "checkpoints" / owner).glob("*.state"))


def _leave_files_over(out: Path, state: Path) -> None:
    """What killed writers, and people, leave behind."""
    staged = out / "_staging" / "p0" / f"{0:020d}-leftover"
    staged.mkdir()
    (staged / "0.staged").write_bytes(b"PAR1 half a file")
    (out / "_staging" / "p0" / "notes.txt").write_text("not ours")
    (out / "_staging" / "p0" / "a folder").mkdir()
    staging = state / "_staging" / "checkpoints" / "judge-0001"
    (staging / f"{10**9:020d}.state.999999999.staged").write_bytes(b"half a state")
    (state / "checkpoints" / "judge-0001" / f"{10**9:020d}.state").write_bytes(b"")

"""Processes as fault tests see them: children, whether they live, waiting until they are gone, pausing a whole tree."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until


def children_of(pid: int) -> list[int]:
    """Process ids of the direct children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            _, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid:
                found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_parts(worker: subprocess.Popen[bytes], *, patience_s: float = 180.0) -> list[int]:
    """Wait until a worker runs its engine and its rollup; returns their process ids."""

    def both() -> bool:
        assert worker.poll() is None, "the worker ended before it began"
        return len(children_of(worker.pid)) >= 2

    wait_until(both, "the worker does not start its parts", patience_s=patience_s)
    return children_of(worker.pid)


def wait_until_gone(pids: Iterable[int], *, patience_s: float = 10.0) -> None:
    """Fail if one of these processes outlives its parent."""
    watched = list(pids)
    wait_until(
        lambda: not any(alive(pid) for pid in watched),
        "a killed worker left children behind",
        patience_s=patience_s,
    )


@contextmanager
def frozen(worker: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a worker and its parts as a debugger or a hypervisor would (SIGSTOP), and let them go on afterwards."""
    pids = [worker.pid, *wait_for_parts(worker)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def memory_mib(worker: subprocess.Popen[bytes]) -> float:
    """Resident memory of a worker and its parts."""
    return sum(memory_by_part(worker).values())


def memory_by_part(worker: subprocess.Popen[bytes]) -> dict[str, float]:
    """Resident memory in MiB of the worker itself, its engine and its rollup; what has ended is not there."""
    found = {}
    for pid in (worker.pid, *children_of(worker.pid)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            status = Path(f"/proc/{pid}/status").read_text().splitlines()
            resident_kib = [int(line.split()[1]) for line in status if line.startswith("VmRSS")]
            part = words[words.index("streams.child") + 1] if "streams.child" in words else "worker"
            if resident_kib:
                found[part] = resident_kib[0] / 1024
    return found

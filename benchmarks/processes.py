"""What other processes cost: CPU time, wall time and memory; one command, or a tree that goes on running."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

SAMPLE_S = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MB = 1 << 20
KEY = "00112233445566778899aabbccddeeff" * 2
"""Of all installations that benchmarks make."""


def command(name: str) -> str:
    """A command of this installation."""
    return str(Path(sys.executable).with_name(name))


def environment() -> Mapping[str, str]:
    """What the commands run with: one key, and no setting of whoever calls."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WOOLWATCH_")}
    return {**kept, "WOOLWATCH_KEY": KEY, "PYTHONUNBUFFERED": "1"}


class Cost(NamedTuple):
    """Of one command from start to end; CPU is user and system time, its children's included."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    said: str


class CommandError(Exception):
    """A command that is measured failed; the message ends with what it said."""


def run(arguments: Sequence[str]) -> Cost:
    """Run a command and say what it cost.

    Raises
    ------
    CommandError
        It did not end with 0.
    """
    begin_s = time.monotonic()
    process = subprocess.Popen(
        arguments,
        env=dict(environment()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    # Not by the kernel's ru_maxrss: a child begins with what its parent had.
    with process.stdout, TreeUsage([process.pid]) as usage:
        said = process.stdout.read().decode(errors="replace")
        _, status, spent = os.wait4(process.pid, 0)
    wall_s = time.monotonic() - begin_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise CommandError(f"{' '.join(arguments)} ended with {process.returncode}\n{said[-4000:]}")
    return Cost(wall_s, spent.ru_utime + spent.ru_stime, usage.peak_mb, said)


def peak_of_this_mb() -> float:
    """The most memory that this process has had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class _Sample(NamedTuple):
    at_s: float
    cpu_s: float
    rss_mb: float


class TreeUsage:
    """CPU time and memory of some processes and all that they started, sampled while it is open.

    What a process used between the last sample and its end is not seen: at most SAMPLE_S of it.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._roots = set(pids)
        self._cpu_s: dict[int, float] = {}
        self._samples: list[_Sample] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def cpu_s(self, first_s: float, last_s: float) -> float:
        """CPU seconds used between two times (``time.time``)."""
        return self._cpu_at(last_s) - self._cpu_at(first_s)

    @property
    def peak_mb(self) -> float:
        """The most memory that all had together; pages that they share count for each."""
        return max((sample.rss_mb for sample in self._samples), default=0.0)

    def _cpu_at(self, at_s: float) -> float:
        return max((sample.cpu_s for sample in self._samples if sample.at_s <= at_s), default=0.0)

    def _watch(self) -> None:
        tree: set[int] = set()
        for number in range(1_000_000_000):
            if number % 10 == 0:
                tree = _descendants(self._roots)
            rss = 0
            for pid in tree:
                if (found := _stat(pid)) is not None:
                    self._cpu_s[pid] = (int(found[11]) + int(found[12])) / _TICKS_PER_S
                    rss += int(found[21]) * _PAGE_BYTES
            self._samples.append(_Sample(time.time(), sum(self._cpu_s.values()), rss / _MB))
            if self._ended.wait(SAMPLE_S):
                return


def _descendants(roots: set[int]) -> set[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (found := _stat(int(folder.name))) is not None:
            parents[int(folder.name)] = int(found[1])
    tree = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in tree and pid not in tree}:
        tree |= more
    return tree


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat behind the name: state, parent, ...; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None

"""Processes that a command starts and must not leave behind, whatever ends it and whenever.

Not a list of what was started, which a signal could cut short between start and note, but what the kernel says: every
process below this one is a child of it or, once its own parent is gone, becomes one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every process below whose own parent ends (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start_tied(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a program that the kernel kills when this process ends, however it ends; output goes to ``log``.

    It gets a session of its own, so that Ctrl-C reaches this process alone.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "console.tied", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )


def end_all() -> None:
    """Kill every child, and every child of theirs as it is orphaned; returns when none is left."""
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    """Children of this process that were not waited for yet."""
    processes = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [int(folder.name) for folder in processes if _parent(folder) == os.getpid()]


def _parent(folder: Path) -> int:
    try:
        stat = (folder / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return 0
    # The command's name stands in brackets and may hold anything, brackets too.
    return int(stat.rpartition(b")")[2].split()[1])

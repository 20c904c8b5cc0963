"""Memory that a child does not use any more goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys

from streams.allocation import child_environment

_PROGRAM = """
from pathlib import Path
import numpy as np

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256

np.ones(30 << 17)  # freed at once: by itself, the C library would from now on keep arrays of up to 30 MiB together
before, arrays, between = resident_mib(), [], []
for _ in range(10):
    arrays.append(np.ones(8 << 17))
    between.append(np.ones(1 << 13))
held = resident_mib() - before
arrays.clear()
print(held, resident_mib() - before)
"""


def _held_and_left_mib(environment: dict[str, str]) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    held, left = map(float, done.stdout.split())
    return held, left


def test_arrays_that_are_gone_leave_nothing_behind_though_small_ones_lie_between_them() -> None:
    held, left = _held_and_left_mib(child_environment(os.environ))

    assert held > 75
    assert left < 8


def test_what_the_environment_says_stands() -> None:
    assert child_environment({"MALLOC_MMAP_THRESHOLD_": "7", "A": "b"}) == {
        "MALLOC_MMAP_THRESHOLD_": "7",
        "A": "b",
    }

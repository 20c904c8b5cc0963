"""Named places at which a test may kill the process, to prove that being killed there harms nothing.

``WOOLWATCH_FAULT=parquet.staged`` kills at the first pass of that place, ``parquet.staged:3`` at the third.
Without the variable every place is a comparison that fails. The environment is read once, at the first pass.
"""

from __future__ import annotations

import itertools
import os
import signal
from functools import cache

FAULT_VARIABLE = "WOOLWATCH_FAULT"

_passes = itertools.count(1)


def fault_point(name: str) -> None:
    """Kill this process, as by ``kill -9``, when the environment names this place and its pass has come."""
    fatal_name, fatal_pass = _fatal()
    if name == fatal_name and next(_passes) == fatal_pass:
        os.kill(os.getpid(), signal.SIGKILL)


@cache
def _fatal() -> tuple[str | None, int]:
    name, _, number = os.environ.get(FAULT_VARIABLE, "").partition(":")
    return name or None, int(number or 1)

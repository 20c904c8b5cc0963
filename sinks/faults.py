"""Named places at which a test may kill the process, to prove that being killed there harms nothing.

``WOOLWATCH_FAULT=parquet.staged`` kills at the first pass of that place, ``parquet.staged:3`` at the third.
Without the variable every place is a comparison that fails.
"""

from __future__ import annotations

import itertools
import os
import signal

FAULT_VARIABLE = "WOOLWATCH_FAULT"

_name, _, _count = os.environ.get(FAULT_VARIABLE, "").partition(":")
_fatal_pass = int(_count or 1)
_passes = itertools.count(1)


def fault_point(name: str) -> None:
    """Kill this process, as by ``kill -9``, when the environment names this place and its pass has come."""
    if _name and name == _name and next(_passes) == _fatal_pass:
        os.kill(os.getpid(), signal.SIGKILL)

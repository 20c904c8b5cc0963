"""Named places at which a test may kill the process, to prove that being killed there harms nothing.

``WOOLWATCH_FAULT=parquet.after_stage`` kills at the first pass of that place, ``parquet.after_stage:3`` at the third.
Without the variable every place is a comparison that fails.
"""

from __future__ import annotations

import os
import signal

FAULT_VARIABLE = "WOOLWATCH_FAULT"

_name, _, _count = os.environ.get(FAULT_VARIABLE, "").partition(":")
_passes_left = int(_count or 1)


def fault_point(name: str) -> None:
    """Kill this process, as by ``kill -9``, when the environment names this place and its pass has come."""
    global _passes_left
    if name == _name:
        _passes_left -= 1
        if _passes_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

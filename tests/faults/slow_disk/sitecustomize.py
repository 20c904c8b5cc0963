"""Python loads this by its name when its folder is on the path: every fsync takes SLOW_FSYNC_S longer."""

import os
import sys
import time
from typing import Any

_slow_s = float(os.environ["SLOW_FSYNC_S"])
_fsync = os.fsync


def _slow_fsync(fd: Any) -> None:
    sys.stderr.write("test: a slow fsync\n")  # so that a test can know that it had an effect
    time.sleep(_slow_s)
    _fsync(fd)


os.fsync = _slow_fsync

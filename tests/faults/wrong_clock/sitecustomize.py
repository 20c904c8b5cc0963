"""Python loads this by its name when its folder is on the path: the wall clock is wrong by WRONG_CLOCK_S."""

import os
import sys
import time

_shift_s = int(os.environ["WRONG_CLOCK_S"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift_s
time.time_ns = lambda: _time_ns() + _shift_s * 1_000_000_000
sys.stderr.write(f"test: the clock is wrong by {time.time() - _time():.0f} s\n")

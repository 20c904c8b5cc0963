"""What Ctrl-C does before a command has anything to tidy up: it ends the process at once, with one plain line.

Python's own way, an exception between any two instructions, is printed as a traceback while modules are loaded, and
lost where it comes up in code that may not raise. Only what has begun something asks for exceptions.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

EXIT_CODE = 128 + signal.SIGINT
"""As shells say it."""
_SAID = b"ended by SIGINT\n"


def end_at_once() -> None:
    """From now on Ctrl-C ends the process there and then; nothing is tidied up."""
    signal.signal(signal.SIGINT, _end)


def raise_in_main_thread() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, Python's own way."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as Python calls it
    # Neither print, which may be what was interrupted, nor sys.exit, which runs what was half loaded.
    os.write(2, _SAID)
    os._exit(EXIT_CODE)

"""Waiting for what tells nobody when it comes: looked at again and again, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 180.0
"""So much that only what never comes fails, on a busy machine too."""
LOOK_AGAIN_S = 0.05


def wait_until(
    holds: Callable[[], bool], otherwise: str | Callable[[], str], *, patience_s: float = PATIENCE_S
) -> None:
    """Wait until a condition holds.

    Parameters
    ----------
    holds
        Looks; may itself fail the test when waiting has become vain.
    otherwise
        What a failure says, or what makes it up at that moment.
    """
    deadline_s = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(LOOK_AGAIN_S)

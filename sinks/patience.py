"""Waiting for what is away: the one place that tries again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from schemas.errors import UnreachableError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
REPEAT_LOG_S = 60.0


_away_since: dict[str, tuple[int, float]] = {}
"""Who is waited for at present in this process: by how many, and since when."""


def away() -> dict[str, float]:
    """Who is waited for at present in this process, and for how many seconds."""
    now = time.monotonic()
    return {what: now - since for what, (_, since) in _away_since.items()}


@contextmanager
def _as_away() -> Iterator[Callable[[str], None]]:
    """Gives what notes somebody as away; at the end, however it comes, the note is taken back."""
    noted: list[str] = []

    def note(what: str) -> None:
        if not noted:
            noted.append(what)
            waiting, since = _away_since.get(what, (0, time.monotonic()))
            _away_since[what] = waiting + 1, since

    try:
        yield note
    finally:
        for what in noted:
            waiting, since = _away_since.pop(what)
            if waiting > 1:
                _away_since[what] = waiting - 1, since


async def patiently(
    what: str,
    attempt: Callable[[], Awaitable[Result]],
    *,
    give_up_after_s: float | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Try until it succeeds, with growing pauses; nothing is dropped and nothing piles up meanwhile.

    Parameters
    ----------
    what
        Who is waited for, for the log and for :func:`away`.
    attempt
        Makes one try; must do no harm when repeated. UnreachableError and OSError (a full disk, a lost connection) are
        waited out; whatever else it raises is raised.
    give_up_after_s
        Raise the last failure when so much time has passed; None: for ever.
    sleep, clock
        For tests.

    Raises
    ------
    UnreachableError
        Time is up.
    """
    began_s = clock()
    logged_s: float | None = None
    pause_s = FIRST_PAUSE_S
    with _as_away() as note:
        while True:
            try:
                result = await attempt()
            except (UnreachableError, OSError) as error:
                note(what)
                waited_s = clock() - began_s
                if give_up_after_s is not None and waited_s >= give_up_after_s:
                    raise UnreachableError(f"{what}: gave up after {waited_s:.0f} s: {error}") from error
                if logged_s is None or clock() - logged_s >= REPEAT_LOG_S:
                    log.warning("%s: %s; waiting since %.0f s, trying again", what, error, waited_s)
                    logged_s = clock()
                # Spread, so that many who lost the same server do not come back at the same moment.
                await sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load, protects nothing)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                if logged_s is not None:
                    log.info("%s: back after %.0f s", what, clock() - began_s)
                return result

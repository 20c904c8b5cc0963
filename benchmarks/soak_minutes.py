"""What a soak sees in its minutes, and whether memory stayed flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MOST_GROWTH = 10.0
"""Percent that memory may grow by over the second half; it breathes by some as workers come and go."""
_LEAST_MINUTES = 4
"""In the second half: a line through fewer tells of chance."""


@dataclass(frozen=True, kw_only=True)
class Minute:
    """One minute, and how things stand at its end.

    Parameters
    ----------
    sent
        Events sent in it.
    on_their_way
        Events sent, in it or before, that are not yet in the tables.
    memory_mib
        Resident memory of each worker by part: the worker itself, its engine, its rollup.
    recovery_s
        From the kill until all that was sent before it was in the tables.
    """

    sent: int
    on_their_way: int
    memory_mib: Sequence[Mapping[str, float]]
    recovery_s: float

    @property
    def total_mib(self) -> float:
        """Memory of all workers with all their parts."""
        return sum(sum(worker.values()) for worker in self.memory_mib)

    @property
    def backlog(self) -> float:
        """What is on its way, in percent of what this minute sent."""
        return 100 * self.on_their_way / max(1, self.sent)

    def __str__(self) -> str:
        parts = ", ".join(
            f"{part} {' + '.join(f'{worker.get(part, 0):,.0f}' for worker in self.memory_mib)}"
            for part in ("engine", "rollup")
        )
        return (
            f"{self.sent:,} sent, {self.on_their_way:,} on their way ({self.backlog:.0f} %), "
            f"{self.total_mib:,.0f} MiB ({parts}), recovered in {self.recovery_s:.0f} s"
        )


def growth(memory_mib: Sequence[float]) -> float | None:
    """Of memory over the second half of the minutes, in percent of its middle, by a straight line through them.

    None if these are too few. The first half is not looked at: windows and caches fill.

    >>> growth([100, 200, 300, 400, 400, 400, 400, 400])
    0.0
    >>> growth([400, 400, 400, 400, 380, 400, 400, 420])
    9.0
    """
    half = np.array(memory_mib[len(memory_mib) // 2 :])
    if len(half) < _LEAST_MINUTES:
        return None
    slope = np.polyfit(np.arange(len(half)), half, 1)[0]
    return round(float(100 * slope * (len(half) - 1) / np.median(half)), 1) + 0.0


def what_grew(minutes: Sequence[Minute]) -> list[str]:
    """A sentence if memory did not stay flat."""
    totals = [minute.total_mib for minute in minutes]
    found = growth(totals)
    if found is None or found <= MOST_GROWTH:
        return []
    seen = ", ".join(f"{mib:,.0f}" for mib in totals[len(totals) // 2 :])
    return [f"memory grew by {found:.1f} % over the second half, more than {MOST_GROWTH:.0f} %: {seen} MiB"]


def table(minutes: Sequence[Minute], *, sent: int, wrong: int) -> list[str]:
    """The soak in one row of Markdown."""
    found = growth([minute.total_mib for minute in minutes])
    cells = {
        "events": f"{sent:,}",
        "kills": str(len(minutes)),
        "recovery, s": _spread([minute.recovery_s for minute in minutes]),
        "on their way, % of a minute": _spread([minute.backlog for minute in minutes]),
        "memory, MiB": _spread([minute.total_mib for minute in minutes]),
        "growth in the second half": "too short to say" if found is None else f"{found:+.1f} %",
        "wrong": str(wrong),
    }
    return [f"| {' | '.join(row)} |" for row in (cells, ["--:"] * len(cells), cells.values())]


def _spread(values: Sequence[float]) -> str:
    return f"{np.median(values):,.0f} [{min(values):,.0f}..{max(values):,.0f}]"

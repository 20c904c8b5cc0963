"""Results as tables, plain or as Markdown, and what they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("aiokafka", "confluent-kafka", "faust-streaming", "numba", "numpy", "orjson", "pyarrow", "redis")


@dataclass(frozen=True)
class Spread:
    """What repeats gave: the median, and how far they lie apart."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def text(self, digits: int = 0) -> str:
        """Median [smallest..largest]."""
        low, high = min(self.values), max(self.values)
        middle = f"{self.median:,.{digits}f}"
        return middle if len(self.values) == 1 else f"{middle} [{low:,.{digits}f}..{high:,.{digits}f}]"


def spread(values: Sequence[float]) -> Spread:
    """Repeats of one measurement."""
    return Spread(tuple(values))


@dataclass(frozen=True)
class Table:
    """One table of results; the first column names what was measured."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def as_text(self) -> str:
        """For a terminal."""
        widths = [max(len(row[i]) for row in (self.head, *self.rows)) for i in range(len(self.head))]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (self.head, *self.rows)
        ]
        return "\n".join([self.title, *lines, *self.notes, ""])

    def as_markdown(self) -> str:
        """For a document."""
        rule = ["---", *("--:" for _ in self.head[1:])]
        lines = ["| " + " | ".join(row) + " |" for row in (self.head, rule, *self.rows)]
        notes = ["", *self.notes] if self.notes else []
        return "\n".join([f"**{self.title}**", "", *lines, *notes, ""])


def machine() -> str:
    """Where and with what this was measured, in two lines."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = next(iter(names), model)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores ({model}), load {load}, "
        f"Python {platform.python_version()}\n{libraries}"
    )

"""Spans of time as the config writes them (``24h``, ``500ms``) and as all code counts them: in ms."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

UNITS_MS: Final = MappingProxyType({"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1})
LONGEST_MS: Final = 100 * 365 * UNITS_MS["d"]
"""A hundred years: longer is a slip of the pen, and would not fit beside timestamps for ever."""
EXPECTED: Final = "a duration: a whole number above 0 and its unit, such as 24h, 10m, 30d, 90s or 500ms"

_WRITTEN = re.compile(r"([0-9]{1,13})(ms|[dhms])")


def parse_duration(text: str) -> int:
    """Milliseconds of a written duration.

    Raises
    ------
    ValueError
        If it is not a whole number above 0 with a unit, or longer than a hundred years.

    Examples
    --------
    >>> parse_duration("24h"), parse_duration("500ms")
    (86400000, 500)
    """
    written = _WRITTEN.fullmatch(text.strip())
    length_ms = int(written[1]) * UNITS_MS[written[2]] if written else 0
    if not 0 < length_ms <= LONGEST_MS:
        raise ValueError(f"expected {EXPECTED}")
    return length_ms


def format_duration(length_ms: int) -> str:
    """Write a duration in the largest unit that divides it.

    Examples
    --------
    >>> format_duration(86_400_000), format_duration(90_000)
    ('1d', '90s')
    """
    unit, size_ms = next((unit, size) for unit, size in UNITS_MS.items() if length_ms % size == 0)
    return f"{length_ms // size_ms}{unit}"

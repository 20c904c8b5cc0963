"""Durations as the config writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.durations import LONGEST_MS, UNITS_MS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "length_ms"),
    [
        ("24h", 86_400_000),
        ("10m", 600_000),
        ("30d", 2_592_000_000),
        ("1d", 86_400_000),
        ("90s", 90_000),
        ("500ms", 500),
        (" 1h ", 3_600_000),
        ("36500d", LONGEST_MS),
    ],
)
def test_a_number_and_a_unit_is_so_many_milliseconds(text: str, length_ms: int) -> None:
    assert parse_duration(text) == length_ms


@pytest.mark.parametrize(
    "text",
    ["", "24", "h", "0h", "-1h", "1.5h", "1 h", "1H", "1w", "1hh", "36501d", "9" * 40 + "ms", "٣h", "1h30m"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number above 0"):
        parse_duration(text)


@given(st.integers(1, LONGEST_MS))
def test_what_is_written_reads_back(length_ms: int) -> None:
    assert parse_duration(format_duration(length_ms)) == length_ms


@given(st.integers(1, 999), st.sampled_from(sorted(UNITS_MS)))
def test_the_largest_unit_that_fits_is_written(count: int, unit: str) -> None:
    written = format_duration(count * UNITS_MS[unit])
    assert parse_duration(written) == count * UNITS_MS[unit]
    assert len(written) <= len(f"{count}{unit}")

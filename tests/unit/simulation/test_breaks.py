"""``--break``: what is understood, and what is said about the rest."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from simulation.breaks import Break, parse_break

CHANNELS, STEPS = ("ads", "search"), ("click", "signup")


def parsed(text: str) -> Break:
    return parse_break(text, start_ms=1_000, channels=CHANNELS, steps=STEPS)


def test_words_in_any_order() -> None:
    expected = Break("ads", "signup", 1_000 + 3_600_000, 1_000 + 3_600_000 + 60_000)
    assert parsed("channel=ads, step=signup, from=1h, for=1m") == expected
    assert parsed("for=1m,from = 1h,step=signup , channel=ads") == expected
    assert parsed("channel=ads, step=signup, from=0, for=1m").from_ms == 1_000


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("", "$", "''"),
        ("channel=ads, step=signup, from=1h", "$", "no for"),
        ("channel=ads, channel=ads, step=signup, from=1h, for=1m", "$", "channel twice"),
        ("channel=ads; step=signup", "$", "no step and no from and no for"),
        ("channel=tv, step=signup, from=1h, for=1m", "$.channel", "'tv'"),
        ("channel=ads, step=dance, from=1h, for=1m", "$.step", "'dance'"),
        ("channel=ads, step=signup, from=soon, for=1m", "$.from", "'soon'"),
        ("channel=ads, step=signup, from=1h, for=0", "$.for", "'0'"),
        ("channel=ads, step=signup, from=1h, for=1m, while=2", "$", "'while=2'"),
    ],
)
def test_what_is_wrong_is_named(text: str, place: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert (caught.value.file, caught.value.path, caught.value.exit_code) == ("--break", place, 2)
    assert caught.value.found == found

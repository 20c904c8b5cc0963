"""A conversion step that is broken in one channel for a while, as ``--break`` writes it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.durations import parse_duration
from schemas.errors import ConfigError

_KEYS = ("channel", "step", "from", "for")
_EXAMPLE = "channel=ads, step=participate, from=44h, for=2h"


@dataclass(frozen=True, slots=True)
class Break:
    """From ``from_ms`` to before ``to_ms`` (epoch), nobody of ``channel`` gets through ``step``."""

    channel: str
    step: str
    from_ms: int
    to_ms: int


def parse_break(text: str, *, start_ms: int, channels: tuple[str, ...], steps: tuple[str, ...]) -> Break:
    """Read ``channel=ads, step=participate, from=44h, for=2h``; ``from`` counts from the campaign's start.

    Parameters
    ----------
    text
        All four words, in any order.
    start_ms
        The campaign's start.
    channels, steps
        What there is to break.

    Raises
    ------
    ConfigError
        Naming the word that is wrong, and what would do.

    Examples
    --------
    >>> parse_break("step=click, channel=ads, from=2h, for=5m", start_ms=0, channels=("ads",), steps=("click",))
    Break(channel='ads', step='click', from_ms=7200000, to_ms=7500000)
    """
    words: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in _KEYS or name in words:
            found = f"{name} twice" if name in words else repr(part.strip())
            raise _wrong("$", found, f"each of {', '.join(_KEYS)} once, as in {_EXAMPLE!r}")
        words[name] = value
    if missing := [name for name in _KEYS if name not in words]:
        raise _wrong("$", f"no {' and no '.join(missing)}", f"all of {', '.join(_KEYS)}, as in {_EXAMPLE!r}")
    for name, choices in (("channel", channels), ("step", steps)):
        if words[name] not in choices:
            raise _wrong(f"$.{name}", repr(words[name]), f"one of {', '.join(choices)}")
    from_ms = start_ms if words["from"] == "0" else start_ms + _duration("from", words["from"])
    return Break(words["channel"], words["step"], from_ms, from_ms + _duration("for", words["for"]))


def _duration(name: str, text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise _wrong(f"$.{name}", repr(text), "a duration such as 26h, 90m or 30s") from error


def _wrong(path: str, found: str, expected: str) -> ConfigError:
    return ConfigError(file="--break", path=path, found=found, expected=expected)

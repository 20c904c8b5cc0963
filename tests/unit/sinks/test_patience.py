"""Trying again: how long, how often, and what is not tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from schemas.errors import FencedError, UnreachableError
from sinks.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, away, patiently


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


def failing(times: int, error: Exception) -> Callable[[], Awaitable[str]]:
    left = iter(range(times))

    async def attempt() -> str:
        if next(left, None) is not None:
            raise error
        return "there"

    return attempt


def run(attempt: Callable[[], Awaitable[str]], time: Time, give_up_after_s: float | None = None) -> str:
    return asyncio.run(
        patiently("Redis", attempt, give_up_after_s=give_up_after_s, sleep=time.sleep, clock=time.clock)
    )


@pytest.mark.parametrize("error", [UnreachableError("away"), OSError(28, "full")])
def test_it_tries_until_it_succeeds(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    with caplog.at_level(logging.INFO):
        assert run(failing(200, error), time) == "there"
    assert len(time.pauses_s) == 200
    assert FIRST_PAUSE_S / 2 <= time.pauses_s[0] <= FIRST_PAUSE_S
    assert LONGEST_PAUSE_S / 2 <= time.pauses_s[-1] <= LONGEST_PAUSE_S
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert 1 < len(warnings) <= 1 + time.now_s / 60, "one a minute, not one a try"
    assert "back after" in caplog.text


def test_success_at_once_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    with caplog.at_level(logging.INFO):
        assert run(failing(0, OSError()), time) == "there"
    assert (time.pauses_s, caplog.text) == ([], "")


def test_it_gives_up_when_told_to() -> None:
    time = Time()
    with pytest.raises(UnreachableError, match=r"Redis: gave up after .* away"):
        run(failing(10**6, UnreachableError("away")), time, give_up_after_s=60)
    assert 60 <= time.now_s <= 60 + LONGEST_PAUSE_S


def test_no_patience_is_one_try() -> None:
    time = Time()
    with pytest.raises(UnreachableError):
        run(failing(1, UnreachableError("away")), time, give_up_after_s=0)
    assert time.pauses_s == []


@pytest.mark.parametrize("error", [FencedError("a later owner"), ValueError("a bug")])
def test_what_trying_again_does_not_cure_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        run(failing(1, error), Time())


def test_who_is_waited_for_can_be_asked() -> None:
    seen: list[dict[str, float]] = []
    answers = [UnreachableError("away"), UnreachableError("away"), None]

    async def attempt() -> None:
        seen.append(away())
        if (error := answers.pop(0)) is not None:
            raise error

    async def at_once(_: float) -> None:
        """Wait for nothing."""

    asyncio.run(patiently("Redis", attempt, sleep=at_once))
    assert [list(there) for there in seen] == [[], ["Redis"], ["Redis"]]
    assert away() == {}

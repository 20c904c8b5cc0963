"""A signal is an exception until it is time to tidy up; one that Python loses comes again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from console.interruption import SIGNALS, Interrupted, Interruption


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    made = Interruption()
    yield made
    made.disarm()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_was_swallowed_is_raised_again(interruption: Interruption) -> None:
    interruption.arm()
    with pytest.raises(Interrupted, match="SIGINT"):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGINT") as again:
        signal.pause()
    assert again.value.exit_code == 130


def test_what_came_before_is_raised_when_it_is_armed(interruption: Interruption) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"):
        interruption.arm()


def test_disarmed_it_only_remembers(interruption: Interruption) -> None:
    interruption.arm()
    interruption.disarm()
    os.kill(os.getpid(), signal.SIGHUP)
    with pytest.raises(Interrupted, match="SIGHUP") as raised:
        interruption.check()
    assert raised.value.exit_code == 129

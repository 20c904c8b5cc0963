from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from streams.log_limit import NOISY_LOGGERS, RepeatLimit, limit_noisy_loggers


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def noisy(clock: Clock, lines: Lines) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.noisy")
    limit = RepeatLimit(30.0, monotonic=clock)
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    logger.addFilter(limit)
    yield logger
    logger.removeFilter(limit)
    logger.removeHandler(lines)


def test_a_message_comes_once_an_interval_and_says_how_often_it_did_not(
    noisy: logging.Logger, clock: Clock, lines: Lines
) -> None:
    for second in range(61):
        clock.now_s = float(second)
        noisy.error("Unable connect to %s: 100%% %s", "host", second)
    assert lines.lines == [
        "Unable connect to host: 100% 0",
        "Unable connect to host: 100% 30 (29 more like it in between)",
        "Unable connect to host: 100% 60 (29 more like it in between)",
    ]


def test_other_messages_and_information_are_not_held_back(noisy: logging.Logger, lines: Lines) -> None:
    for _ in range(2):
        noisy.info("joined")
    noisy.error("one thing")
    noisy.error("another thing")
    assert lines.lines == ["joined", "joined", "one thing", "another thing"]


def test_the_noisy_loggers_are_limited_once() -> None:
    limit_noisy_loggers()
    limit_noisy_loggers()
    for name in NOISY_LOGGERS:
        assert sum(isinstance(each, RepeatLimit) for each in logging.getLogger(name).filters) == 1

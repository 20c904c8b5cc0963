"""Keep a client that cannot connect from filling the log: one line of a kind in a while, with a count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

NOISY_LOGGERS = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
    "streams.batch_thread",
)
INTERVAL_S = 30.0


class RepeatLimit(logging.Filter):
    """Let a message template pass once per interval; the next that passes says how many did not.

    Parameters
    ----------
    interval_s
        Quiet time after a message, in seconds.
    monotonic
        The clock; replaced by tests.
    """

    def __init__(
        self, interval_s: float = INTERVAL_S, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._passed_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let information through; of warnings and errors the first of its kind in an interval."""
        if record.levelno < logging.WARNING:
            return True
        kind = str(record.msg)
        now_s = self._monotonic()
        passed_at_s = self._passed_at.get(kind)
        if passed_at_s is not None and now_s - passed_at_s < self._interval_s:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return False
        self._passed_at[kind] = now_s
        held_back = self._held_back.pop(kind, 0)
        if held_back:
            record.msg = f"{record.getMessage()} ({held_back} more like it in between)"
            record.args = None
        return True


def limit_noisy_loggers() -> None:
    """Limit each logger that repeats itself while a broker is away; calling it again changes nothing."""
    for name in NOISY_LOGGERS:
        noisy = logging.getLogger(name)
        if not any(isinstance(present, RepeatLimit) for present in noisy.filters):
            noisy.addFilter(RepeatLimit())

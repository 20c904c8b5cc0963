"""Ctrl-C and its like as an exception in the main thread, until it is time to tidy up, which nothing may cut short."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHELLS_BASE = 128


class Interrupted(BaseException):  # not an Exception: nobody may take it for an error and go on
    """Somebody asked the command to end.

    Parameters
    ----------
    number
        The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells say it: 130 after Ctrl-C, 143 after SIGTERM."""
        return _SHELLS_BASE + self.number


class Interruption:
    """From its making until :meth:`disarm` a signal raises :class:`Interrupted`; after that none does anything."""

    def __init__(self) -> None:
        self._armed, self._asked = True, 0
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def disarm(self) -> None:
        """From now on no signal does anything."""
        self._armed = False

    def check(self) -> None:
        """Raise what was asked before; Python drops an exception that comes up while it collects garbage."""
        if self._asked:
            raise Interrupted(self._asked)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as Python calls it
        if self._armed:
            self._asked = number
            raise Interrupted(number)

"""Ctrl-C and its like as an exception in the main thread, until it is time to tidy up, which nothing may cut short."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_S = 0.5
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
    """From :meth:`arm` until :meth:`disarm` a signal raises :class:`Interrupted`; before and after it is remembered.

    Python drops an exception that comes up in code that may not raise, such as what collects garbage. So it is raised
    again, twice a second, until somebody disarms. Of the main thread.
    """

    def __init__(self) -> None:
        self._armed, self._asked = False, 0
        signal.signal(signal.SIGALRM, self._again)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def arm(self) -> None:
        """From now on a signal raises; one that came before does now."""
        self._armed = True
        self.check()

    def disarm(self) -> None:
        """From now on no signal cuts anything short."""
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def check(self) -> None:
        """Raise what was asked and has not ended anything yet."""
        if self._asked:
            raise Interrupted(self._asked)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = self._asked or number
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
            self._again(number, frame)

    def _again(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as Python calls it
        if self._armed:
            raise Interrupted(self._asked)

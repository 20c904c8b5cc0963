"""Which topics of a partition are idle: everything in them was read, and nothing came for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping

IDLE_S = 10.0
"""A topic from which a busy one gets less than this behind is not taken for silent."""


class IdleTopics:
    """Looks at the topics now and then.

    Parameters
    ----------
    clock
        Monotonic seconds.
    idle_s
        How long a topic must have stood still at its end.
    """

    def __init__(self, clock: Callable[[], float], *, idle_s: float = IDLE_S) -> None:
        self._clock, self._idle_s = clock, idle_s
        self._since: dict[int, tuple[int, float]] = {}

    def look(self, positions: Mapping[int, int], caught_up: Callable[[int], bool]) -> frozenset[int]:
        """Which topics are idle now.

        Parameters
        ----------
        positions
            Topic number to the offset up to which its events are counted.
        caught_up
            Whether everything in that topic was read and finished.
        """
        now = self._clock()
        for topic, position in positions.items():
            if not caught_up(topic):
                self._since.pop(topic, None)
            elif self._since.get(topic, (-1, 0.0))[0] != position:
                self._since[topic] = position, now
        return frozenset(topic for topic, (_, since) in self._since.items() if now - since >= self._idle_s)

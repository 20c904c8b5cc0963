"""Which topics of a partition are idle: everything in them was read, and nothing came for a while.

And which of them is in the way: windows of the metrics wait for both topics, so one that is never used keeps all open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from schemas.config import Config
from schemas.events import TOPICS

log = logging.getLogger(__name__)

IDLE_S = 10.0
"""A topic from which a busy one gets less than this behind is not taken for silent."""

_BEHIND_MS = 86_400_000


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


class UnusedTopic:
    """Tells once of a topic that is in the way.

    Parameters
    ----------
    partition
        For the message.
    """

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._told = False

    def look(self, idle: Collection[int], newest_ms: Mapping[int, int | None], config: Config) -> bool:
        """Tell if an idle topic lies a day behind the other, or never had an event; True when it is told now.

        ``newest_ms``: topic number to the largest event time in it; None: no event yet.
        """
        latest_ms = max((ms for ms in newest_ms.values() if ms is not None), default=None)
        if self._told or latest_ms is None or config.topics.only is not None:
            return False
        for topic in sorted(idle):
            if latest_ms - (newest_ms[topic] or 0) > _BEHIND_MS:
                other = TOPICS[1 - topic]
                log.warning(
                    "judge %d: nothing comes in %s, and windows of the metrics stay open for it; if all events come in "
                    "%s, say so in the config, topics: {only: %s} "
                    "(%s 长期没有事件，统计窗口因此无法关闭；若不使用它，请配置 topics.only)",
                    self._partition,
                    TOPICS[topic],
                    other,
                    other,
                    TOPICS[topic],
                )
                self._told = True
        return self._told

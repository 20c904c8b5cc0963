from __future__ import annotations

from streams.idle_topics import IdleTopics


def test_a_topic_is_idle_only_after_standing_at_its_end_for_a_while() -> None:
    now = 100.0
    topics = IdleTopics(lambda: now, idle_s=10)
    read: set[int] = {0, 1}
    assert topics.look({0: 5, 1: 7}, read.__contains__) == frozenset()
    now = 109.0
    assert topics.look({0: 6, 1: 7}, read.__contains__) == frozenset()
    now = 111.0
    assert topics.look({0: 6, 1: 7}, read.__contains__) == {1}
    now = 119.0
    assert topics.look({0: 6, 1: 7}, read.__contains__) == {0, 1}
    read.remove(1)  # something came, though nothing of it is counted yet: whoever lags is not idle
    assert topics.look({0: 6, 1: 7}, read.__contains__) == {0}
    read.add(1)
    now = 120.0
    assert topics.look({0: 6, 1: 7}, read.__contains__) == {0}

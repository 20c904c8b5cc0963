from __future__ import annotations

import pytest

from schemas.config import Config, Topics
from schemas.events import TOPICS
from streams.idle_topics import IdleTopics, UnusedTopic

DAY_MS = 86_400_000


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


@pytest.mark.parametrize(
    ("idle", "newest_ms", "found"),
    [
        ({1}, {0: 90 * DAY_MS, 1: None}, 1),
        ({0, 1}, {0: 90 * DAY_MS, 1: None}, 1),
        ({0, 1}, {0: 90 * DAY_MS, 1: 89 * DAY_MS - 1}, 1),
        ({0, 1}, {0: 90 * DAY_MS, 1: 89 * DAY_MS}, None),
        ({0}, {0: 90 * DAY_MS, 1: None}, None),
        ({0, 1}, {0: None, 1: None}, None),
    ],
)
def test_a_topic_is_in_the_way_when_it_is_idle_and_a_day_behind(
    caplog: pytest.LogCaptureFixture, idle: set[int], newest_ms: dict[int, int | None], found: int | None
) -> None:
    unused = UnusedTopic(3)
    assert unused.look(idle, newest_ms, Config()) is (found is not None)
    assert not unused.look(idle, newest_ms, Config()), "once is enough"
    said = [message for message in caplog.messages if "nothing comes in" in message]
    assert len(said) == (found is not None)
    assert found is None or f"nothing comes in {TOPICS[found]}" in said[0]


def test_who_says_that_one_topic_is_used_is_told_nothing() -> None:
    config = Config(topics=Topics(only="clicks"))
    assert not UnusedTopic(3).look({1}, {0: 90 * DAY_MS, 1: None}, config)

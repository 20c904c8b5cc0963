"""PartitionMetrics against sets and brute force: disorder, ties, time zones, any cut, any restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.partition_metrics import PartitionMetrics
from schemas.config import Config, parse_config
from schemas.partials import Block
from tests.unit.metrics.batches import RING, feed
from tests.unit.metrics.oracle import count_minutes, count_users, read_minutes, read_users

HOUR_MS = 3_600_000
LATENESS_MS = 2 * HOUR_MS
BEGIN_MS = 1_711_836_000_000  # 2024-03-30T22:00Z: two hours before Berlin's night of 23 hours

CONFIG = b"""
lateness: 2h
restate: 5h
funnels:
  strict: {steps: [a, b, c], within: 3h, by: [channel], windows: [all, 1d, 2h]}
  ties: {steps: [a, b, a, c], within: 4h, by: [channel, platform], order: ties_allowed, windows: [2h]}
  twice: {steps: [a, a, b], within: 2h}
  twice_ties: {steps: [b, a, b, b], within: 2h, order: ties_allowed}
  endless: {steps: [c, a], windows: [all, 1d]}
  seen: {steps: [a], by: [platform], windows: [1h], within: 1h}
dau: {by: [channel, event]}
retention: {days: 3}
campaigns:
  berlin: {timezone: Europe/Berlin}
  shanghai: {timezone: Asia/Shanghai}
"""


def config_of(text: bytes) -> Config:
    return parse_config({"metrics.yaml": text})[0]


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events in judged order: none more than the lateness behind the latest one before it."""
    quarters = st.integers(0, 4 * 30)
    events: list[dict[str, Any]] = []
    now_ms = BEGIN_MS
    for _ in range(draw(st.integers(1, 40))):
        now_ms += draw(st.sampled_from((0, 0, 1, HOUR_MS // 4, HOUR_MS, 7 * HOUR_MS)))
        behind_ms = draw(st.sampled_from((0, 0, 0, 1, HOUR_MS // 4, HOUR_MS, LATENESS_MS)))
        events.append(
            {
                "event": draw(st.sampled_from("aaabbbccd")),
                "user_id": draw(st.sampled_from(("u", "u", "v"))),
                "campaign": draw(st.sampled_from((None, "berlin", "berlin", "shanghai"))),
                "channel": draw(st.sampled_from((None, "x", "y"))),
                "platform": draw(st.sampled_from(("ios", "web"))),
                "ts": now_ms - behind_ms,
                "level": draw(st.sampled_from((0, 0, 0, 0, 1, 2, 3))),
                "dwell_ms": draw(st.none() | quarters | st.integers(0, 2**53)),
                "amount_minor": draw(st.none() | st.sampled_from((0, 5, 2**53))),
                "cost_minor": draw(st.none() | st.sampled_from((1, 2**53))),
            }
        )
    return events


def counted(events: Sequence[dict[str, Any]], config: Config, size: int) -> list[Block]:
    """The newest version of every block ever handed over, as the rollup would hold them."""
    metrics = PartitionMetrics(config, RING, source=0)
    newest: dict[Any, Block] = {}
    for at in range(0, len(events), size):
        feed(metrics, events[: at + size], size=size, lateness_ms=LATENESS_MS, first=at)
        newest |= {block.key: block for block in metrics.changed_blocks(at)}
    return list(newest.values())


@given(histories())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_counts_equal_brute_force(events: list[dict[str, Any]]) -> None:
    config = config_of(CONFIG)
    metrics = PartitionMetrics(config, RING, source=0)
    feed(metrics, events, size=len(events), lateness_ms=LATENESS_MS)
    blocks = metrics.all_blocks()
    assert read_users(blocks) == count_users(events, config)
    assert read_minutes(blocks) == count_minutes(events)
    assert metrics.outdated_events == metrics.ignored_step_events == 0


@given(histories(), st.sampled_from((1, 2, 7)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_cut_with_publishing_in_between_gives_the_same(events: list[dict[str, Any]], size: int) -> None:
    config = config_of(CONFIG)
    blocks = counted(events, config, size)
    assert read_users(blocks) == count_users(events, config)
    assert read_minutes(blocks) == count_minutes(events)


@given(histories(), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_restart_anywhere_changes_nothing(events: list[dict[str, Any]], data: st.DataObject) -> None:
    config = config_of(CONFIG)
    cut = data.draw(st.integers(0, len(events)))
    whole, first = (PartitionMetrics(config, RING, source=3) for _ in range(2))
    feed(whole, events, size=5, lateness_ms=LATENESS_MS)
    feed(first, events[:cut], size=5, lateness_ms=LATENESS_MS)
    second = PartitionMetrics(config, RING, source=3)
    second.restore(first.snapshot())
    assert second.all_blocks() == first.all_blocks()
    feed(second, events, size=5, lateness_ms=LATENESS_MS, first=cut)
    rows = {block.key: block.rows for block in whole.changed_blocks(99)}
    assert {block.key: block.rows for block in second.changed_blocks(99)} == rows


@pytest.mark.parametrize("most", [1, 3])
@given(events=histories(), size=st.sampled_from((1, 3, 7)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_ignored_beyond_the_limit_does_not_hang_on_the_cut(
    events: list[dict[str, Any]], size: int, most: int
) -> None:
    config = config_of(CONFIG)
    whole, cut = (PartitionMetrics(config, RING, source=0, most_events=most) for _ in range(2))
    feed(whole, events, size=len(events), lateness_ms=LATENESS_MS)
    for at in range(0, len(events), size):
        feed(cut, events[: at + size], size=size, lateness_ms=LATENESS_MS, first=at)
        again = PartitionMetrics(config, RING, source=0, most_events=most)
        again.restore(cut.snapshot())
        cut = again
    assert cut.ignored_step_events == whole.ignored_step_events
    assert read_users(cut.all_blocks()) == read_users(whole.all_blocks())

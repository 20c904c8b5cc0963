"""Funnels of one busy user, pruned after every event: what is dropped must never have mattered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.partition_metrics import PartitionMetrics
from schemas.config import parse_config
from tests.unit.metrics.batches import RING, feed
from tests.unit.metrics.oracle import count_users, read_users

BEGIN_MS = 1_704_067_200_000 - 12
LATENESS_MS = 6

FUNNELS = {
    "three steps": "{steps: [a, b, c], within: 12ms, by: [channel], windows: [all, 10ms]}",
    "four steps": "{steps: [a, b, c, d], within: 25ms, windows: [all, 15ms]}",
    "without an end": "{steps: [a, b, c], by: [channel]}",
    "the same name twice": "{steps: [a, b, a], within: 12ms, by: [channel], windows: [all, 10ms]}",
    "a name again at once": "{steps: [a, b, b, c], within: 15ms}",
    "ties": "{steps: [a, b, c], within: 10ms, by: [channel], order: ties_allowed}",
    "ties and the same name": (
        "{steps: [b, a, b, a, c], within: 10ms, order: ties_allowed, windows: [all, 10ms]}"
    ),
}


@st.composite
def busy_users(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events of a few ms, many at the same time or out of order, none later than the lateness."""
    moves = st.tuples(st.integers(0, 3), st.integers(0, LATENESS_MS), st.sampled_from("aaabbbccd"))
    size = draw(st.integers(0, 45))
    steps = draw(st.lists(moves, min_size=size, max_size=size))
    events: list[dict[str, Any]] = []
    now_ms = BEGIN_MS
    for step_ms, behind_ms, name in steps:
        now_ms += step_ms
        channel = draw(st.sampled_from("xxy"))
        events.append({"event": name, "user_id": "u", "ts": now_ms - behind_ms, "channel": channel})
    return events


@pytest.mark.parametrize("funnel", FUNNELS)
@given(events=busy_users())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_pruning_never_changes_a_count(funnel: str, events: list[dict[str, Any]]) -> None:
    config, _ = parse_config({"metrics.yaml": f"funnels: {{f: {FUNNELS[funnel]}}}\nlateness: 6ms".encode()})
    metrics = PartitionMetrics(config, RING, source=0)
    for at in range(len(events)):
        feed(metrics, events[: at + 1], size=1, lateness_ms=LATENESS_MS, first=at)
        metrics.funnels[0].tidy(metrics.watermark_ms)
    assert read_users(metrics.all_blocks()) == count_users(events, config)


def test_a_busy_user_keeps_few_events() -> None:
    """Of looks alone the last one below the watermark is kept, of purchases alone the first."""
    config, _ = parse_config({"metrics.yaml": b"funnels: {f: {steps: [a, b, c], within: 1d}}\nlateness: 6ms"})
    metrics = PartitionMetrics(config, RING, source=0)
    names = "a" * 500 + "b" * 500 + "a" * 500
    events = [{"event": name, "user_id": "u", "ts": BEGIN_MS + i} for i, name in enumerate(names)]
    feed(metrics, events, size=100, lateness_ms=LATENESS_MS)
    metrics.funnels[0].tidy(metrics.watermark_ms)
    kept = metrics.funnels[0].in_use()["arena"]
    slab = kept[: metrics.funnels[0].slabs.slabs["used"][0]]["ts_ms"] - BEGIN_MS
    assert slab.tolist() == [499, 500, *range(1_492, 1_500)]

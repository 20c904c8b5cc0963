"""Counts of users under a bound: the same in any cut and through any restart, exact below it, near the truth above."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.members import USERS
from metrics.merged_rows import UserRow, merge_users
from metrics.partition_metrics import PartitionMetrics
from schemas.config import Config, parse_config
from schemas.partials import DAU, EVENTS, Block, BlockKey
from tests.unit.metrics.batches import RING, feed
from tests.unit.metrics.oracle import count_users, read_users

MINUTE_MS, DAY_MS = 60_000, 86_400_000
BEGIN_MS = 1_700_006_400_000
LATENESS_MS = 10 * MINUTE_MS

CONFIG = b"""
lateness: 10m
restate: 1h
funnels:
  buy: {steps: [look, cart, pay], within: 20m, by: [channel], windows: [all, 1h]}
  ties: {steps: [look, pay], within: 20m, order: ties_allowed, windows: [all]}
dau: {by: [channel]}
retention: {days: 2}
"""


def config_of(max_users: int) -> Config:
    return parse_config({"metrics.yaml": CONFIG + b"memory: {max_users: %d}\n" % max_users})[0]


def events_of(
    draw: random.Random, count: int, *, users: int, step_ms: int, bad: float = 0.1
) -> list[dict[str, Any]]:
    """Events of random users, out of order by less than the lateness."""
    return [
        {
            "event": draw.choice(("look", "look", "cart", "pay")),
            "user_id": f"u{draw.randrange(users)}",
            "campaign": draw.choice(("a", "a", "b")),
            "channel": "rare" if draw.random() < 0.02 else "usual",
            "ts": BEGIN_MS + i * step_ms - draw.randrange(LATENESS_MS),
            "level": 2 if draw.random() < bad else 0,
        }
        for i in range(count)
    ]


def fed(metrics: PartitionMetrics, events: Sequence[dict[str, Any]], size: int) -> PartitionMetrics:
    feed(metrics, events, size=size, lateness_ms=LATENESS_MS)
    return metrics


def newest_rows(blocks: Sequence[Block], into: dict[BlockKey, list[UserRow]]) -> None:
    into |= {block.key: merge_users([block]) for block in blocks if block.key.metric != EVENTS}


def counted(
    events: Sequence[dict[str, Any]], config: Config, *, size: int, restart: bool
) -> tuple[dict[BlockKey, list[UserRow]], int, int]:
    """Newest rows of every block, events ignored and suspects forgotten."""
    metrics, found = PartitionMetrics(config, RING, source=0, topics=1), dict[BlockKey, list[UserRow]]()
    for at in range(0, len(events), size):
        feed(metrics, events[: at + size], size=size, lateness_ms=LATENESS_MS, first=at)
        newest_rows(metrics.changed_blocks(at), found)
        if restart:
            again = PartitionMetrics(config, RING, source=0, topics=1)
            again.restore(metrics.snapshot())
            metrics = again
    return found, metrics.ignored_step_events, metrics.forgotten_suspects


@given(
    seed=st.integers(0, 2**32),
    max_users=st.sampled_from((1, 8, 16, 24)),
    users=st.sampled_from((30, 300)),
    step_ms=st.sampled_from((MINUTE_MS, 5 * MINUTE_MS, 20 * MINUTE_MS)),
    size=st.sampled_from((3, 7, 50)),
    restart=st.booleans(),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_cut_and_no_restart_changes_what_is_counted_at_the_bound(
    seed: int, max_users: int, users: int, step_ms: int, size: int, restart: bool
) -> None:
    events = events_of(random.Random(seed), 200, users=users, step_ms=step_ms)
    config = config_of(max_users)
    assert counted(events, config, size=size, restart=restart) == counted(
        events, config, size=len(events), restart=False
    )


def test_below_the_bound_counts_are_exact() -> None:
    events = events_of(random.Random(1), 3_000, users=200, step_ms=1_000)
    metrics = fed(PartitionMetrics(config_of(2_000), RING, source=0, topics=1), events, 70)
    assert read_users(metrics.all_blocks()) == count_users(events, config_of(2_000))
    assert metrics.sampling_level == 0


@pytest.mark.parametrize("part", ["gross", "suspect"])
def test_above_the_bound_counts_lie_within_the_error_that_is_stated(part: str) -> None:
    events = events_of(random.Random(2), 30_000, users=8_000, step_ms=100, bad=0.05)
    bound = 1_000
    metrics = fed(PartitionMetrics(config_of(bound), RING, source=0, topics=1), events, 997)
    truth = fed(PartitionMetrics(config_of(10**6), RING, source=0, topics=1), events, 997)
    rows, exact = dict[BlockKey, list[UserRow]](), dict[BlockKey, list[UserRow]]()
    newest_rows(metrics.all_blocks(), rows)
    newest_rows(truth.all_blocks(), exact)
    deviations, estimated = [], 0
    for key, of_key in exact.items():
        estimates = {row[:3]: row for row in rows[key]}
        for row in of_key:
            true = row[4] if part == "gross" else row[5]
            if row[:3] not in estimates:  # nobody of the sample is there
                assert true < 100
                continue
            estimate = estimates[row[:3]]
            found = estimate[4] if part == "gross" else estimate[5]
            if estimate[6] == 0:
                assert found == true
            elif true >= 100:
                # The error is that of gross; of a part of the users, the variance is that part of it.
                error = estimate[6] * (max(estimate[4], 1) * found) ** 0.5
                deviations.append((found - true) / error)
                estimated += 1
    assert estimated > 10
    assert max(map(abs, deviations)) < 4
    assert sum(d * d for d in deviations) / estimated < 3
    assert metrics.users.members.used.max() <= 20 * bound + 10 * bound // 4
    assert all(row[6] == 0 for key in rows if key.metric == DAU for row in rows[key] if row[1] == "rare")
    assert metrics.sampling_level > 0
    assert metrics.forgotten_suspects == 0


def test_suspects_who_are_forgotten_are_counted_and_change_no_gross_count() -> None:
    events = events_of(random.Random(3), 6_000, users=5_000, step_ms=60_000, bad=0.5)
    metrics = fed(PartitionMetrics(config_of(200), RING, source=0, topics=1), events, 500)
    assert metrics.forgotten_suspects > 500
    assert int(metrics.users.members.used[USERS]) <= 7 * 200
    harmless = [event | {"level": 0} for event in events]
    clean = fed(PartitionMetrics(config_of(200), RING, source=0, topics=1), harmless, 500)
    rows, gross = dict[BlockKey, list[UserRow]](), dict[BlockKey, list[UserRow]]()
    newest_rows(metrics.all_blocks(), rows)
    newest_rows(clean.all_blocks(), gross)
    assert {key: [row[4] for row in rows[key]] for key in rows} == {
        k: [row[4] for row in gross[k]] for k in gross
    }

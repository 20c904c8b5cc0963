"""Single cases of funnels that random events seldom meet; each is pruned after every event."""

from __future__ import annotations

import pytest

from metrics.partition_metrics import PartitionMetrics
from schemas.config import parse_config
from tests.unit.metrics.batches import RING, feed
from tests.unit.metrics.oracle import count_users, read_users

BEGIN_MS = 1_704_067_200_000
CASES = {
    "within is inclusive": ("abc", "strict", [("a", 0), ("b", 10), ("c", 20)], 3),
    "one ms more is too long": ("abc", "strict", [("a", 0), ("b", 10), ("c", 21)], 2),
    "a later start has longer": ("abc", "strict", [("a", 0), ("a", 5), ("b", 10), ("c", 25)], 3),
    "equal times do not follow": ("ab", "strict", [("a", 0), ("b", 0)], 1),
    "unless ties are allowed": ("ab", "ties_allowed", [("b", 0), ("a", 0)], 2),
    "an event is used once": ("aa", "ties_allowed", [("a", 0)], 1),
    "ties in any order": ("abab", "ties_allowed", [("b", 0), ("b", 0), ("a", 0), ("a", 0)], 4),
    "too few for all steps": ("abab", "ties_allowed", [("b", 0), ("b", 0), ("a", 0)], 2),
    "a tie at the oldest start stays": ("abc", "ties_allowed", [("a", 0), ("b", 0), ("d", 6), ("c", 7)], 3),
    "a start between two steps": ("abc", "strict", [("b", 0), ("b", 4), ("d", 8), ("a", 3), ("c", 8)], 3),
    "a start between two steps on the edge": (
        "abc",
        "strict",
        [("b", 0), ("b", 4), ("d", 9), ("a", 3), ("c", 9)],
        3,
    ),
    "a step between two starts on the edge": (
        "abc",
        "strict",
        [("a", 0), ("a", 4), ("d", 10), ("b", 4), ("c", 11)],
        3,
    ),
    "a second step is kept for a start to come": (
        "abc",
        "strict",
        [("a", 0), ("b", 1), ("b", 5), ("d", 9), ("a", 3), ("c", 22)],
        3,
    ),
    "backwards": ("abc", "strict", [("c", 5), ("b", 3), ("a", 1)], 3),
    "the middle comes last": ("abc", "strict", [("a", 1), ("c", 5), ("b", 3)], 3),
    "the earlier step helps": ("abc", "strict", [("a", 0), ("b", 6), ("c", 4), ("b", 2)], 3),
    "one step": ("a", "strict", [("b", 0), ("a", 0)], 1),
    "never begun": ("abc", "strict", [("b", 0), ("c", 1)], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_best_chain(case: str) -> None:
    steps, order, moves, reached = CASES[case]
    config, _ = parse_config(
        {"m.yaml": f"funnels: {{f: {{steps: [{', '.join(steps)}], within: 20ms, order: {order}}}}}".encode()}
    )
    events = [{"event": name, "user_id": "u", "ts": BEGIN_MS + ts_ms} for name, ts_ms in moves]
    metrics = PartitionMetrics(config, RING, source=0)
    for at in range(len(events)):
        feed(metrics, events[: at + 1], size=1, lateness_ms=6, first=at)
        metrics.funnels[0].tidy(metrics.watermark_ms)
    found = read_users(metrics.all_blocks())
    assert found == count_users(events, config)
    assert sum(key.metric == "funnel" for key, *_ in found) == reached


def test_a_chain_stays_in_one_campaign() -> None:
    config, _ = parse_config({"m.yaml": b"funnels: {f: {steps: [a, b], within: 20ms}}"})
    events = [
        {"event": name, "user_id": "u", "ts": BEGIN_MS + ts_ms, "campaign": campaign}
        for ts_ms, (name, campaign) in enumerate(
            [("a", "x"), ("b", "y"), ("a", None), ("b", "x"), ("b", None)]
        )
    ]
    metrics = PartitionMetrics(config, RING, source=0)
    feed(metrics, events, size=5, lateness_ms=6)
    found = {
        (key.campaign, step): n
        for (key, _, _, step), n in read_users(metrics.all_blocks()).items()
        if key.metric == "funnel"
    }
    assert found == {("x", 1): (1, 0), ("x", 2): (1, 0), (None, 1): (1, 0), (None, 2): (1, 0)}

"""Verdicts that labels take back: counted again the slow way, from verdicts and labels alone, in whatever order."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from metrics import overruled as module
from metrics.members import NEVER_MS
from metrics.overruled import Overruled
from metrics.partition_metrics import PartitionMetrics
from schemas.config import parse_config
from schemas.labels import Labels, labels_of
from schemas.verdicts import REVIEW
from tests.unit.metrics.batches import RING, feed
from tests.unit.metrics.oracle import count_users, read_users

BEGIN_MS, DAY_MS, HOUR_MS = 1_704_067_200_000, 86_400_000, 3_600_000
CONFIG, _ = parse_config(
    {
        "a.yaml": b"""
funnels: {buy: {steps: [look, buy], within: 3h, windows: [all, 1d]}}
dau: {}
retention: {days: 2}
restate: 2d
"""
    }
)
Label = tuple[str | None, str | None, int, int]
"""Event, user, ts, value."""


def _events(draw: random.Random, count: int) -> list[dict[str, Any]]:
    return [
        {
            "event": draw.choice(("look", "buy")),
            "event_id": f"e{i}",
            "user_id": f"u{draw.randrange(40)}",
            "campaign": "c",
            "ts": BEGIN_MS + i * 10 * 60_000 - draw.randrange(30) * 60_000,
            "level": REVIEW if draw.random() < 0.15 else 0,
        }
        for i in range(count)
    ]


def _labels(draw: random.Random, events: Sequence[Mapping[str, Any]]) -> list[Label]:
    """Each not before its event; some for a user alone, some twice, some for events that nobody knows."""
    labels: list[Label] = []
    for event in events:
        if draw.random() < 0.4:
            ts_ms, whose = (
                event["ts"] + draw.choice((0, HOUR_MS, DAY_MS)),
                draw.choice((None, event["user_id"])),
            )
            labels.append((event["event_id"], whose, ts_ms, draw.randrange(2)))
        if draw.random() < 0.02:
            labels.append((None, event["user_id"], event["ts"] + draw.randrange(HOUR_MS), draw.randrange(2)))
    return [*labels, *labels[:5], ("unknown", "u1", BEGIN_MS, 0), (None, "nobody", BEGIN_MS, 0)]


def _packed(labels: Sequence[Label]) -> Labels:
    return labels_of(
        [
            (RING.key_of("event_id", event or ""), RING.key_of("user_id", user or ""), ts_ms, label)
            for event, user, ts_ms, label in labels
        ]
    )


def _overruled(events: Sequence[Mapping[str, Any]], labels: Sequence[Label]) -> list[dict[str, Any]]:
    found = []
    for event in events:
        about = [
            (ts_ms, label)
            for of_event, of_user, ts_ms, label in labels
            if of_event == event["event_id"] or (of_event is None and of_user == event["user_id"])
        ]
        ts_ms, label = max(about, default=(0, 1))
        found.append({**event, "level": 0 if label == 0 and ts_ms >= event["ts"] else event["level"]})
    return found


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_a_function_of_verdicts_and_labels(seed: int) -> None:
    draw = random.Random(seed)
    events = _events(draw, 150)
    labels = _labels(draw, events)
    want = count_users(_overruled(events, labels), CONFIG)
    assert want != count_users(events, CONFIG)
    waiting = sorted(labels, key=lambda _: draw.random())
    metrics = PartitionMetrics(CONFIG, RING, source=0)
    for first in range(0, len(events), 30):
        taken, waiting = waiting[: len(labels) // 5 + 1], waiting[len(labels) // 5 + 1 :]
        # A label of an event to come waits only as long as the event would not be late.
        metrics.take_labels(_packed(taken))
        feed(
            metrics, events[: first + 30], size=draw.choice((1, 7, 30)), lateness_ms=10 * DAY_MS, first=first
        )
        kept, metrics = metrics.snapshot(), PartitionMetrics(CONFIG, RING, source=0)
        metrics.restore(kept)
    metrics.take_labels(_packed(waiting))
    assert read_users(metrics.all_blocks()) == want


def test_only_what_changed_is_handed_over_again() -> None:
    metrics = PartitionMetrics(CONFIG, RING, source=0)
    events = _events(random.Random(9), 40)
    feed(metrics, events, size=40, lateness_ms=DAY_MS)
    metrics.changed_blocks(1)
    bad = next(event for event in events if event["level"])
    metrics.take_labels(_packed([(bad["event_id"], None, bad["ts"], 1)]))
    assert metrics.changed_blocks(2) == []
    metrics.take_labels(_packed([(None, bad["user_id"], BEGIN_MS + 30 * DAY_MS, 0)]))
    assert metrics.changed_blocks(3) != []


def test_windows_that_are_over_stay_as_they_were() -> None:
    metrics = PartitionMetrics(CONFIG, RING, source=0)
    old = {"event": "look", "event_id": "e", "user_id": "u", "campaign": "c", "ts": BEGIN_MS, "level": REVIEW}
    new = {**old, "event_id": "f", "ts": BEGIN_MS + 9 * DAY_MS, "level": 0}
    feed(metrics, [old, new], size=1, lateness_ms=HOUR_MS)
    before = read_users(metrics.all_blocks())
    metrics.take_labels(_packed([("e", "u", BEGIN_MS + 10 * DAY_MS, 0)]))
    changed = {place for place, users in read_users(metrics.all_blocks()).items() if before[place] != users}
    assert {place[0].start_ms for place in changed} == {None, BEGIN_MS + 9 * DAY_MS}


def test_old_verdicts_are_final_wherever_batches_end() -> None:
    draw = random.Random(4)
    users = np.array([draw.randrange(1, 5) for _ in range(100)], np.uint64)
    events, ts_ms = np.arange(1, 101, dtype=np.uint64), np.array([draw.randrange(1000) for _ in range(100)])
    every = labels_of([(event, 0, 10_000, 0) for event in events.tolist()])
    found = []
    for size in (1, 7, 100):
        overruled = Overruled(most_flags=40)
        for at in range(0, 100, size):
            cut = slice(at, at + size)
            held = overruled.judged(events[cut], users[cut], ts_ms[cut], np.ones(len(events[cut]), np.bool_))
            assert held.all()
        _, lowest = overruled.take(every, 0)
        found.append(lowest.tolist())
    final = {int(user): int(min(ts_ms[:80][users[:80] == user])) for user in np.unique(users)}
    assert found == [list(final.values())] * 3
    assert NEVER_MS not in found[0]


def _random_takes(overruled: Overruled, *, seed: int, rounds: int) -> list[Any]:
    """Verdicts and labels as they may come, the watermark an hour behind; what was answered."""
    draw, answers = random.Random(seed), []
    for hour in range(rounds):
        now_ms = hour * HOUR_MS
        judged = [(draw.randrange(1, 30), draw.randrange(1, 5)) for _ in range(6)]
        event, user = (np.array(column, np.uint64) for column in zip(*judged, strict=True))
        ts_ms = np.array([now_ms - draw.randrange(HOUR_MS) for _ in judged])
        bad = np.array([draw.random() < 0.5 for _ in judged])
        answers.append(overruled.judged(event, user, ts_ms, bad).tolist())
        rows = [
            (
                draw.randrange(30),
                draw.randrange(1, 40),
                now_ms + draw.randrange(-2, 3) * HOUR_MS,
                draw.randrange(2),
            )
            for _ in range(6)
        ]
        users, lowest_ms = overruled.take(labels_of(rows), now_ms - HOUR_MS)
        answers.append((users.tolist(), lowest_ms.tolist()))
    return answers


def test_labels_that_are_let_go_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Overruled()
    want = _random_takes(kept, seed=3, rounds=200)
    monkeypatch.setattr(module, "_FEW_LABELS", 0)
    bounded = Overruled()
    assert _random_takes(bounded, seed=3, rounds=200) == want
    assert len(kept.snapshot()["waiting"]) > 3 * len(bounded.snapshot()["waiting"])
    assert bounded.dropped == 0


def test_beyond_the_bound_the_oldest_labels_go_and_are_counted() -> None:
    overruled = Overruled(most_labels=8)
    for ts_ms in range(9):
        overruled.take(labels_of([(0, 100 + ts_ms, ts_ms, 0), (200 + ts_ms, 0, ts_ms, 0)]), 0)
    assert overruled.dropped == 2 * 3
    event = np.arange(200, 209, dtype=np.uint64)
    held = overruled.judged(event, event, np.zeros(9, np.int64), np.ones(9, np.bool_))
    assert held.tolist() == [True] * 3 + [False] * 6


def test_a_label_waits_for_the_event_of_its_own_user() -> None:
    overruled = Overruled()
    one, two = np.array([1], np.uint64), np.array([2], np.uint64)
    event, ts_ms, bad = np.array([7], np.uint64), np.array([10]), np.ones(1, np.bool_)
    overruled.judged(event, one, ts_ms, bad)
    overruled.take(labels_of([(7, 2, 20, 0), (7, 3, 30, 1)]), 0)
    assert overruled.judged(event, np.array([4], np.uint64), ts_ms, bad).tolist() == [True]
    assert overruled.judged(event, two, ts_ms, bad).tolist() == [False]

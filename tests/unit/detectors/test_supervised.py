"""Labels that wait for their events: which may be let go, and which are."""

from __future__ import annotations

import random

import numpy as np
import pytest

from detectors import supervised as module
from detectors.supervised import JudgedRows, Supervised
from schemas.config import parse_config
from schemas.labels import labels_of
from tests.labelled_events import CONFIG

HOUR_MS = 3_600_000
PARSED, _ = parse_config({"a.yaml": CONFIG.encode()})


def _supervised() -> Supervised:
    return Supervised(PARSED, learns_here=True, horizon_ms=1000 * HOUR_MS)


def _lessons(models: Supervised, *, rounds: int) -> list[tuple[int, list[float]]]:
    """Labels before and after their events, many of events that nobody judges; all lessons, in order."""
    draw, found = random.Random(5), []
    for hour in range(rounds):
        now_ms = hour * HOUR_MS
        rows = [
            (
                draw.randrange(1, 400),
                draw.randrange(3),
                now_ms + draw.randrange(-HOUR_MS, HOUR_MS),
                draw.randrange(2),
            )
            for _ in range(20)
        ]
        models.take_labels(labels_of(rows), now_ms - HOUR_MS)
        event, user = ([draw.randrange(1, most) for _ in range(5)] for most in (400, 3))
        judged = JudgedRows(
            event=np.array(event, np.uint64),
            user=np.array(user, np.uint64),
            ts_ms=np.array([now_ms - draw.randrange(HOUR_MS) for _ in range(5)]),
            late=np.zeros(5, np.uint8),
            x=np.array([[draw.random() for _ in models.inputs] for _ in range(5)]),
        )
        models.judge(judged)
        found += [(label, x.tolist()) for label, x in models.lessons]
    return found


@pytest.mark.parametrize("label_first", [True, False])
@pytest.mark.parametrize(("ts_ms", "lessons"), [(9, 0), (10, 1)])
def test_a_label_dated_before_its_event_teaches_nothing(label_first: bool, ts_ms: int, lessons: int) -> None:
    models, label = _supervised(), labels_of([(7, 0, ts_ms, 1)])
    one, none = np.ones(1, np.uint64), np.zeros(1, np.uint8)
    event = JudgedRows(7 * one, one, np.array([10]), none, np.zeros((1, len(models.inputs))))
    if label_first:
        models.take_labels(label, 0)
    models.judge(event)
    if not label_first:
        models.take_labels(label, 0)
    models.judge(event._replace(event=8 * one))
    assert len(models.lessons) == lessons


def _waiting(models: Supervised) -> int:
    return len(models.snapshot()["waiting/event"])


def test_labels_of_late_events_are_let_go_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _supervised()
    want = _lessons(kept, rounds=60)
    assert len(want) > 60
    monkeypatch.setattr(module, "_FEW_WAITING", 0)
    pruned = _supervised()
    assert _lessons(pruned, rounds=60) == want
    assert _waiting(kept) > 3 * _waiting(pruned)
    assert pruned.dropped == 0


def test_beyond_the_bound_the_oldest_labels_go_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 8)
    models = _supervised()
    models.take_labels(labels_of([(event, 0, 100 - event, 1) for event in range(1, 10)]), 0)
    assert models.dropped == 3
    assert sorted(models.snapshot()["waiting/event"]) == [1, 2, 3, 4, 5, 6]


def test_labels_whose_time_never_comes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DUE", 3)
    models, one = _supervised(), np.ones(1, np.uint64)
    models.judge(
        JudgedRows(one, one, np.array([10]), np.zeros(1, np.uint8), np.zeros((1, len(models.inputs))))
    )
    monkeypatch.setattr(module, "REMEMBERED", 1)
    models.take_labels(labels_of([(1, 0, 1000, value % 2) for value in range(8)]), 0)
    assert len(models.snapshot()["due/label"]) == 3
    assert models.dropped == 3  # the others are repeats of the last that was taken

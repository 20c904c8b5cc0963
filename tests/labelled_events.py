"""A labelled recording for tests: two kinds of people, disorder, repeats; and River itself over what was judged."""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from river import linear_model, preprocessing

START_MS = 1_760_000_000_000
DAY_MS = 86_400_000
INPUTS = ("device_other_users", "dwell_ms", "amount_minor")
CONFIG = """
features:
  device_other_users: {entity: device_id, distinct: user_id, exclude: self}
rules:
  shared_device: {when: device_other_users >= 4, weight: 0.3}
models:
  labelled: {kind: river, class: linear_model.LogisticRegression, scale: true,
    features: [device_other_users, dwell_ms, amount_minor], learns: labels, weight: 0.6}
  anomaly: {kind: half_space_trees, trees: 3, height: 4, features: [dwell_ms], weight: 0.1}
  small: {kind: river, class: tree.HoeffdingTreeClassifier, features: [dwell_ms], weight: 0.1}
dau: {}
"""


def labelled_events(rows: int, *, seed: int = 5, step_ms: int = 400_000) -> list[dict[str, Any]]:
    """Events of some days, about half of them labelled; some repeated, late or out of order."""
    draw = random.Random(seed)
    events: list[dict[str, Any]] = []
    for i in range(rows):
        fraud = draw.random() < 0.3
        event: dict[str, Any] = {
            "event_id": f"e{i}",
            "event": "purchase",
            "ts": START_MS + i * step_ms - draw.choice((0, 0, 900_000, 7_200_000)),
            "user_id": f"{'f' if fraud else 'u'}{draw.randrange(40)}",
            "device_id": f"d{draw.randrange(3)}" if fraud else f"own{draw.randrange(400)}",
            "amount_minor": draw.randrange(5000),
        }
        if draw.random() < 0.9:
            event["dwell_ms"] = draw.randrange(800) if fraud else draw.randrange(60_000)
        if draw.random() < 0.6:
            event["label"] = int(fraud)
        events.append(event)
        if draw.random() < 0.05:
            events.append(dict(draw.choice(events[-20:])))
    return events


def write_labelled(path: Path, events: Iterable[dict[str, Any]]) -> Path:
    """The events as a JSONL file."""
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def river_strengths(
    judged: Sequence[tuple[int, bool, list[float | None], int | None]], delay_ms: int
) -> list[float]:
    """Strength of each judged row by River itself, row by row: rows are (ts, late, inputs, label)."""
    model: Any = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    waiting: list[tuple[int, int, dict[str, float], int]] = []
    strengths, learned = [], 0
    for order, (ts, late, values, label) in enumerate(judged):
        while waiting and waiting[0][0] <= ts:
            _, _, x, y = heapq.heappop(waiting)
            model.learn_one(x, y)
            learned += 1
        x = dict(zip(INPUTS, (value or 0.0 for value in values), strict=True))
        strengths.append(model.predict_proba_one(x)[True] if learned else 0.0)
        if label is not None and not late:
            heapq.heappush(waiting, (ts + delay_ms, order, x, label))
    assert learned > 50
    return strengths

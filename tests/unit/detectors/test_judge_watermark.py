"""How far the windows of a judge may close."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detectors.judge import Judge
from detectors.lists import NO_LISTS
from schemas.config import Config, Topics
from schemas.decode import decode_json
from schemas.events import TOPICS, EventBatch
from schemas.keys import KeyRing

NEVER_MS = 0
AT_MS = 1_700_000_000_000


def batch(topic: str, ts_ms: int) -> EventBatch:
    event = {"event_id": f"{topic}{ts_ms}", "ts": ts_ms, "event": "view", "user_id": "u"}
    lines = [json.dumps(event).encode()]
    return decode_json(
        lines,
        topic=topic,
        partition=0,
        start=0,
        next=1,
        offsets=np.zeros(1, np.int64),
        record_ts_ms=np.array([ts_ms]),
    )


@pytest.mark.parametrize(
    ("only", "topics", "clicks_alone", "both"),
    [
        (None, 2, None, AT_MS - 50_000),
        ("clicks", 2, AT_MS, AT_MS),
        ("participations", 2, None, AT_MS - 50_000),
        ("participations", 1, AT_MS, AT_MS),
    ],
)
def test_windows_wait_for_the_topics_that_are_used(
    only: str | None, topics: int, clicks_alone: int | None, both: int
) -> None:
    config = Config(topics=Topics(only=only))  # type: ignore[arg-type]
    judge = Judge(
        config, KeyRing(b"a key of sixteen bytes"), partition=0, owners=1, lists=NO_LISTS, topics=topics
    )
    judge.ask(batch(TOPICS[0], AT_MS))
    if clicks_alone is None:
        assert judge.watermark_ms < NEVER_MS
    else:
        assert judge.watermark_ms == clicks_alone - config.lateness_ms
    if topics == 2:
        judge.ask(batch(TOPICS[1], AT_MS - 50_000))
    assert judge.watermark_ms == both - config.lateness_ms

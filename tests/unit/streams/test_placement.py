"""Misplaced events are counted by a second murmur2, and said once in a while."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from kafka.partitioner.default import murmur2

from schemas.decode import decode_json
from schemas.events import EventBatch
from streams.placement import REPEAT_S, Placement

PARTITIONS = 4
USERS = [f"u{number}" for number in range(200)] + ["微信用户", "x" * 128]


def batch_of(users: list[str], topic: str = "clicks") -> EventBatch:
    events = [
        {"event_id": f"e{i}", "event": "view", "ts": 1_760_000_000_000, "user_id": u}
        for i, u in enumerate(users)
    ]
    raw = [json.dumps(event).encode() for event in events] + [b"{"]
    return decode_json(raw, topic=topic, partition=0, start=0, next=len(raw), offsets=np.arange(len(raw)))


def home(user: str) -> int:
    return int((murmur2(user.encode()) & 0x7FFFFFFF) % PARTITIONS)


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_events_of_other_partitions_are_counted(partition: int) -> None:
    placement = Placement(partition, PARTITIONS)
    assert placement.look(batch_of(USERS)) == sum(home(user) != partition for user in USERS)
    assert placement.look(batch_of([user for user in USERS if home(user) == partition])) == 0


def test_one_source_is_complained_about_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    placement = Placement(0, PARTITIONS, clock=lambda: now)
    astray = next(user for user in USERS if home(user) != 0)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            placement.look(batch_of([astray]))
        assert len(caplog.records) == 1
        placement.look(batch_of([astray], "participations"))
        assert len(caplog.records) == 2
        now += REPEAT_S
        placement.look(batch_of([astray, astray]))
    first, other, again = (record.getMessage() for record in caplog.records)
    assert first.startswith("clicks-0: 1 events so far belong to another partition")
    assert "murmur2_random" in first
    assert other.startswith("participations-0: 1 ")
    assert again.startswith("clicks-0: 7 ")
    assert astray not in first

"""Whatever comes on the labels topic is a label or says what is wrong with it; ids leave as the hashes of events."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from detectors.entities import entity_keys
from schemas.decode import decode_json
from schemas.events import RejectCode
from schemas.keys import KeyRing
from schemas.labels import Fault, decode_label

RING = KeyRing(bytes(range(32)))
NOW_MS = 1_760_000_000_000


def _decoded(record: Any) -> tuple[int, int, int, int] | Fault:
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    return decode_label(raw, RING, record_ts_ms=NOW_MS)


def test_ids_are_hashed_as_those_of_events() -> None:
    event = {"event_id": "e-1", "user_id": "小王", "ts": NOW_MS, "event": "view"}
    batch = decode_json(
        [json.dumps(event).encode()],
        topic="clicks",
        partition=0,
        start=0,
        next=1,
        offsets=np.zeros(1, np.int64),
        record_ts_ms=np.full(1, NOW_MS),
        attributes=(),
        fields={},
        strict_names=None,
    )
    keys = [int(entity_keys(batch, kind, RING)[0]) for kind in ("event_id", "user_id")]
    assert _decoded({**event, "label": 1, "source": "desk"}) == (*keys, NOW_MS, 1)
    assert _decoded({"user_id": "小王", "label": 0, "ts": NOW_MS}) == (0, keys[1], NOW_MS, 0)


@pytest.mark.parametrize(
    ("record", "code", "path"),
    [
        (b"", RejectCode.NOT_JSON, "$"),
        (b'{"event_id":"\xff"}', RejectCode.NOT_JSON, "$"),
        (b"[" * 60_000, RejectCode.NOT_JSON, "$"),
        (b" " * 65_537, RejectCode.TOO_LARGE, "$"),
        ([], RejectCode.NOT_AN_OBJECT, "$"),
        ({"label": 1, "ts": NOW_MS}, RejectCode.MISSING, "$.event_id"),
        ({"event_id": "", "user_id": None, "label": 1, "ts": NOW_MS}, RejectCode.MISSING, "$.event_id"),
        ({"event_id": 5, "label": 1, "ts": NOW_MS}, RejectCode.WRONG_TYPE, "$.event_id"),
        ({"event_id": "e", "user_id": ["u"], "label": 1, "ts": NOW_MS}, RejectCode.WRONG_TYPE, "$.user_id"),
        ({"event_id": "e" * 65, "label": 1, "ts": NOW_MS}, RejectCode.TOO_LONG, "$.event_id"),
        ({"event_id": "e", "source": "s" * 65, "label": 1, "ts": NOW_MS}, RejectCode.TOO_LONG, "$.source"),
        ({"event_id": "e", "ts": NOW_MS}, RejectCode.MISSING, "$.label"),
        ({"event_id": "e", "label": 1}, RejectCode.MISSING, "$.ts"),
        ({"event_id": "e", "label": True, "ts": NOW_MS}, RejectCode.WRONG_TYPE, "$.label"),
        ({"event_id": "e", "label": 1.0, "ts": NOW_MS}, RejectCode.WRONG_TYPE, "$.label"),
        ({"event_id": "e", "label": -1, "ts": NOW_MS}, RejectCode.OUT_OF_RANGE, "$.label"),
        ({"event_id": "e", "label": 1, "ts": "now"}, RejectCode.WRONG_TYPE, "$.ts"),
        ({"event_id": "e", "label": 1, "ts": 2**64}, RejectCode.WRONG_TYPE, "$.ts"),
        ({"event_id": "e", "label": 1, "ts": NOW_MS // 1000}, RejectCode.TOO_OLD, "$.ts"),
        ({"event_id": "e", "label": 1, "ts": NOW_MS + 300_001}, RejectCode.IN_THE_FUTURE, "$.ts"),
    ],
)
def test_what_is_wrong_is_named(record: Any, code: RejectCode, path: str) -> None:
    fault = _decoded(record)
    assert isinstance(fault, Fault)
    assert (fault.code, fault.path) == (code, path)


def test_no_record_timestamp_makes_every_time_good() -> None:
    raw = b'{"event_id": "e", "label": 1, "ts": 9223372036854775900}'
    fault = decode_label(raw, RING, record_ts_ms=2**63 - 1)
    assert isinstance(fault, Fault)
    assert fault.code == RejectCode.IN_THE_FUTURE


def test_five_minutes_ahead_are_allowed() -> None:
    assert not isinstance(_decoded({"event_id": "e", "label": 1, "ts": NOW_MS + 300_000}), Fault)

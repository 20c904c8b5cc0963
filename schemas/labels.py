"""Labels: what somebody found out later about an event, or about a user (CONTRACT 1, topic ``labels``).

``{"event_id" and/or "user_id", "label": 0|1, "ts": epoch ms, "source"}``. 1 is fraud, 0 is none. ``ts`` is when it was
found out, on the clock of the events, and so not before the event itself. Only keyed hashes leave this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.events import (
    EARLIEST_TS_MS,
    FUTURE_TOLERANCE_MS,
    MAX_EVENT_BYTES,
    STRING_FIELDS,
    EventBatch,
    RejectCode,
    Rejection,
)
from schemas.keys import KeyRing

LABELS = "labels"
"""The topic's role."""
_LATEST_TS_MS = 1 << 53
_LONGEST = {"event_id": 64, "user_id": 128, "source": 64}


class Labels(NamedTuple):
    """n labels as columns.

    ``event`` and ``user`` uint64[n] are the keyed hashes that events have, 0 where absent (never both); ``ts_ms``
    int64[n]; ``label`` uint8[n], 0 or 1.
    """

    event: NDArray[np.uint64]
    user: NDArray[np.uint64]
    ts_ms: NDArray[np.int64]
    label: NDArray[np.uint8]


class Fault(NamedTuple):
    """Why a record is no label; as :class:`schemas.events.Rejection` has it."""

    code: RejectCode
    path: str
    expected: str


def labels_of(rows: Sequence[tuple[int, int, int, int]]) -> Labels:
    """Columns of rows (event, user, ts, label)."""
    event, user, ts_ms, label = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Labels(
        np.array(event, np.uint64),
        np.array(user, np.uint64),
        np.array(ts_ms, np.int64),
        np.array(label, np.uint8),
    )


def decode_label(raw: bytes, ring: KeyRing, *, record_ts_ms: int) -> tuple[int, int, int, int] | Fault:
    """One record as (event, user, ts, label), or what is wrong with it. About 25 us.

    Parameters
    ----------
    raw
        Any bytes.
    ring
        Hashes the ids as those of events.
    record_ts_ms
        The Kafka record's own timestamp: a label from more than five minutes later is refused.
    """
    if len(raw) > MAX_EVENT_BYTES:
        return Fault(RejectCode.TOO_LARGE, "$", f"at most {MAX_EVENT_BYTES} bytes")
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Fault(RejectCode.NOT_JSON, "$", "JSON in UTF-8")
    if not isinstance(record, dict):
        return Fault(RejectCode.NOT_AN_OBJECT, "$", "an object")
    fault = _text_fault(record) or _number_fault(record, record_ts_ms)
    if fault is not None:
        return fault
    event, user = (ring.key_of(name, record.get(name) or "") for name in ("event_id", "user_id"))
    return event, user, record["ts"], record["label"]


def _text_fault(record: dict[str, Any]) -> Fault | None:
    for name, longest in _LONGEST.items():
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            return Fault(RejectCode.WRONG_TYPE, f"$.{name}", "a string")
        if value is not None and len(value) > longest:
            return Fault(RejectCode.TOO_LONG, f"$.{name}", f"at most {longest} characters")
    if not record.get("event_id") and not record.get("user_id"):
        return Fault(RejectCode.MISSING, "$.event_id", "an event_id, a user_id or both")
    return None


def _number_fault(record: dict[str, Any], record_ts_ms: int) -> Fault | None:
    for name in ("label", "ts"):
        if record.get(name) is None:
            return Fault(RejectCode.MISSING, f"$.{name}", "a whole number")
        if type(record[name]) is not int:
            return Fault(RejectCode.WRONG_TYPE, f"$.{name}", "a whole number")
    if record["label"] not in (0, 1):
        return Fault(RejectCode.OUT_OF_RANGE, "$.label", "0 or 1")
    if record["ts"] < EARLIEST_TS_MS:
        return Fault(RejectCode.TOO_OLD, "$.ts", "epoch milliseconds from 2000 on")
    if record["ts"] > min(record_ts_ms + FUTURE_TOLERANCE_MS, _LATEST_TS_MS):  # whoever sends sets the first
        return Fault(RejectCode.IN_THE_FUTURE, "$.ts", "at most 5 minutes after the record's own timestamp")
    return None


def rejection_of(raw: bytes, fault: Fault, *, row: int) -> Rejection:
    """What the dead letter of a bad label needs."""
    digest = hashlib.sha256(raw).digest()
    return Rejection(row, fault.code, fault.path, fault.expected, raw[:MAX_EVENT_BYTES], len(raw), digest)


def batch_without_events(
    *, partition: int, start: int, next: int, offsets: Sequence[int], rejections: Sequence[Rejection]
) -> EventBatch:
    """A stretch of the labels as a batch that has no events, only what was rejected."""
    rows = len(rejections)
    return EventBatch(
        topic=LABELS,
        partition=partition,
        start=start,
        next=next,
        offsets=np.array(offsets, np.int64),
        buffer=np.zeros(16, np.uint8),
        starts=np.zeros((len(STRING_FIELDS), rows), np.int32),
        lengths=np.zeros((len(STRING_FIELDS), rows), np.int32),
        integers=np.full((4, rows), -1, np.int64),
        floats=np.full((2, rows), np.nan),
        attributes=(),
        attribute_numbers=np.empty((0, rows)),
        labels=np.full(rows, -1, np.int8),
        rejected=np.array([rejection.code for rejection in rejections], np.uint8),
        rejections=tuple(rejections),
    )

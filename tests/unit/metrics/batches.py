"""Event batches made by hand, without the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.partition_metrics import PartitionMetrics
from schemas.events import BUFFER_PADDING, CLICKS, INTEGER_FIELDS, STRING_FIELDS, EventBatch
from schemas.keys import KeyRing

RING = KeyRing(b"a key for tests only, of 32 bytes.")


def make_batch(
    events: Sequence[Mapping[str, Any]], *, start: int = 0, attributes: tuple[str, ...] = ()
) -> EventBatch:
    """Put events into columns; strings are put down once each."""
    fields = [*STRING_FIELDS, *(f"attrs.{name}" for name in attributes)]
    places: dict[str, tuple[int, int]] = {"": (0, 0)}
    buffer = bytearray()
    spans = np.zeros((2, len(fields), len(events)), np.int32)
    for column, field in enumerate(fields):
        for row, event in enumerate(events):
            value = event.get(field)
            text = value if isinstance(value, str) else ""
            if text not in places:
                encoded = text.encode()
                places[text] = (len(buffer), len(encoded))
                buffer += encoded
            spans[:, column, row] = places[text]
    integers = [
        [-1 if event.get(name) is None else event[name] for event in events] for name in INTEGER_FIELDS
    ]
    numbers = [
        [float(v) if isinstance(v := event.get(f"attrs.{name}"), int | float) else np.nan for event in events]
        for name in attributes
    ]
    return EventBatch(
        topic=CLICKS,
        partition=0,
        start=start,
        next=start + len(events),
        offsets=np.arange(start, start + len(events)),
        buffer=np.frombuffer(bytes(buffer) + bytes(BUFFER_PADDING), np.uint8),
        starts=spans[0],
        lengths=spans[1],
        integers=np.array(integers, np.int64).reshape(len(INTEGER_FIELDS), len(events)),
        floats=np.full((2, len(events)), np.nan),
        attributes=attributes,
        attribute_numbers=np.array(numbers, np.float64).reshape(len(attributes), len(events)),
        labels=np.full(len(events), -1, np.int8),
        rejected=np.zeros(len(events), np.uint8),
        rejections=(),
    )


def user_keys(events: Sequence[Mapping[str, Any]]) -> NDArray[np.uint64]:
    """A key for each user, equal for equal users."""
    return np.array([RING.key_of("user_id", event["user_id"]) for event in events], np.uint64)


def feed(
    metrics: PartitionMetrics,
    events: Sequence[Mapping[str, Any]],
    *,
    size: int,
    lateness_ms: int,
    first: int = 0,
    attributes: tuple[str, ...] = (),
) -> None:
    """Hand over events from ``first`` on in batches of ``size``.

    ``level`` of an event is that of its verdict, ``pass`` by default.
    """
    for at in range(first, len(events), size):
        cut = events[at : at + size]
        metrics.update(
            make_batch(cut, start=at, attributes=attributes),
            np.arange(len(cut)),
            user_keys(cut),
            np.array([event.get("level", 0) for event in cut], np.uint8),
            turn=at,
            watermark_ms=max(event["ts"] for event in events[: at + size]) - lateness_ms,
        )

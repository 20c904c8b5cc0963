"""The labels of a recording as records of the labels topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from schemas.config import Config
from schemas.events import MAX_INTEGER


def label_records(
    chunk: Sequence[tuple[bytes, Mapping[str, Any] | None]], config: Config, delay_ms: int | None
) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the label records of some events, each so long after its event; none without a delay."""
    if delay_ms is not None:
        found = (_label(event, config, delay_ms) for _, event in chunk)
        yield from (label for label in found if label is not None)


def _label(event: Mapping[str, Any] | None, config: Config, delay_ms: int) -> tuple[bytes, bytes] | None:
    """Key and value of an event's label record; None where it has none, or is no event."""
    event_id, user_id, ts, label = _fields(event or {}, config)
    is_event = _is_text(event_id, 64) and _is_text(user_id, 128) and type(ts) is int and 0 <= ts < MAX_INTEGER
    if label not in (0, 1) or not is_event:
        return None
    record = {"event_id": event_id, "user_id": user_id, "label": int(label), "ts": ts + delay_ms}
    return user_id.encode(), orjson.dumps({**record, "source": "recording"})


def _fields(event: Mapping[str, Any], config: Config) -> Iterator[Any]:
    return (event.get(config.fields.get(name, name)) for name in ("event_id", "user_id", "ts", "label"))


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest

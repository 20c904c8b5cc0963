"""Which topic an event belongs to (CONTRACT 1), for whoever publishes or replays a recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.entities import entity_keys
from schemas.config import Config
from schemas.events import CLICKS, MAX_EVENT_BYTES, TOPICS, EventBatch
from schemas.keys import KeyRing
from schemas.tabular import NO_TOPIC


def json_object(raw: bytes) -> dict[str, Any] | None:
    """What a line of a recording says; None where it is too large or no JSON object."""
    if len(raw) > MAX_EVENT_BYTES:
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def topic_of(event: Mapping[str, Any] | None, config: Config) -> str:
    """Topic of one event: its own word, else by its name; what has neither is seen rejected among the clicks."""
    if event is None:
        return CLICKS
    named, name = event.get("topic"), event.get(config.fields.get("event", "event"))
    if named in TOPICS:
        return str(named)
    return config.topic_of(name) if isinstance(name, str) else CLICKS


def topics_of(batch: EventBatch, named: NDArray[np.int8], config: Config, ring: KeyRing) -> NDArray[np.uint8]:
    """uint8[n]: the same for the rows of a batch, as indexes into TOPICS.

    Parameters
    ----------
    batch
        The events; of rejected ones the original is asked.
    named
        int8[n]: the recording's own word for each row, NO_TOPIC where it has none.
    config, ring
        Where names belong; how the batch is hashed.
    """
    keys = entity_keys(batch, "event", ring)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    by_name = np.zeros(len(first), np.uint8)
    for place, row in enumerate(first):
        if (name := batch.text("event", int(row))) is not None:
            by_name[place] = TOPICS.index(config.topic_of(name))
    topics = by_name[which]
    for rejection in batch.rejections:
        original = json_object(rejection.raw) if rejection.length == len(rejection.raw) else None
        topics[rejection.row] = TOPICS.index(topic_of(original, config))
    return np.where(named == NO_TOPIC, topics, named.astype(np.uint8)).astype(np.uint8)

"""Which topic and which partition an event belongs to (CONTRACT 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.entities import entity_keys
from schemas.config import Config
from schemas.events import TOPICS, EventBatch
from schemas.keys import KeyRing
from schemas.tabular import NO_TOPIC


def topics_of(batch: EventBatch, named: NDArray[np.int8], config: Config, ring: KeyRing) -> NDArray[np.uint8]:
    """uint8[n]: index into TOPICS for each row, by the recording's own word or else by the event's name.

    A row without a name (it is broken) counts as a click.
    """
    keys = entity_keys(batch, "event", ring)
    names, first, which = np.unique(keys, return_index=True, return_inverse=True)
    by_name = np.zeros(len(names), np.uint8)
    for place, row in enumerate(first):
        if (name := batch.text("event", int(row))) is not None:
            by_name[place] = TOPICS.index(config.topic_of(name))
    return np.where(named == NO_TOPIC, by_name[which], named.astype(np.uint8)).astype(np.uint8)

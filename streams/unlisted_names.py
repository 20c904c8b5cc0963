"""Event names that the config's ``events:`` block does not list: judged like all others, and told once each."""

from __future__ import annotations

import logging

import numpy as np

from detectors.columns import NameFinder
from detectors.entities import entity_keys
from schemas.config import Config
from schemas.config_findings import show
from schemas.events import EventBatch
from schemas.keys import KeyRing

log = logging.getLogger(__name__)

MAX_TOLD = 100
"""Names that are told one by one; whoever invents names must not fill the log."""


class UnlistedNames:
    """What one judge partition told; costs nothing without an ``events:`` block, else some 20 ns an event.

    Parameters
    ----------
    partition
        For messages.
    ring
        Of the installation.
    """

    def __init__(self, partition: int, ring: KeyRing) -> None:
        self._partition, self._ring = partition, ring
        self._told: set[int] = set()
        self._of = ""
        self._known: NameFinder | None = None

    def look(self, batch: EventBatch, config: Config, config_hash: str) -> list[str]:
        """Tell the names of a batch that are new and not listed; returns them."""
        if config_hash != self._of:
            self._of = config_hash
            listed = tuple(config.known_event_names) if config.events.names else ()
            self._known = NameFinder(listed, self._ring) if listed else None
        if self._known is None or len(self._told) >= MAX_TOLD:
            return []
        rows = np.flatnonzero(batch.rejected == 0)
        rows = rows[self._known.find(batch, rows, other=-1) < 0]
        keys, first = np.unique(entity_keys(batch, "event", self._ring)[rows], return_index=True)
        new = [row for key, row in zip(keys.tolist(), rows[first].tolist(), strict=True) if self._is_new(key)]
        names = [show(batch.text("event", row)) for row in sorted(new)]
        for name in names:
            log.warning(
                "judge %d: event name %s is not listed under events: it is counted and judged all the same "
                "(事件名 %s 未列入 events，仍照常计数和判定)",
                self._partition,
                name,
                name,
            )
        if len(self._told) >= MAX_TOLD:
            log.warning(
                "judge %d: %d unlisted event names, no more are told (未列入的事件名过多，不再逐一提示)",
                self._partition,
                MAX_TOLD,
            )
        return names

    def _is_new(self, key: int) -> bool:
        if key in self._told or len(self._told) >= MAX_TOLD:
            return False
        self._told.add(key)
        return True

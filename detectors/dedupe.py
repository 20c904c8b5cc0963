"""Event time of one judge: which events are late, which were there before.

The memory of ids is one open table of (id, time) pairs. An id is *alive* while its time is not below the
lowest watermark of the topics that have had an event; a dead id is as if it had never been seen, whether or
not its place was reclaimed already. So growing, shrinking and purging the table change no outcome. (The
lowest watermark falls only when a topic has its first event; what is dead then is purged just before, and
stays dead.)

A bound makes the lateness shorter where it must: once ids were forgotten to make room, whatever is not later than the
latest of them is late in every topic. So a repeat is a duplicate or late, never a second verdict, and what suffers
is only what comes out of order by more than the memory holds; it is judged, but counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.events import TOPICS
from schemas.kernels import kernel
from schemas.prefetch import prefetch

FRESH, LATE, DUPLICATE, SKIPPED = 0, 1, 2, 3
"""Outcomes of a row; SKIPPED: it was not eligible."""

FORMAT = 1
NEVER, _NO_BOUND = np.iinfo(np.int64).min, np.iinfo(np.int64).max

_GONE = np.int64(NEVER).view(np.uint64)
"""Time of an id that is about to be left out of the table."""
_SPREAD, _ONE = np.uint64(0x9E3779B97F4A7C15), np.uint64(1)
_LEAST_SLOTS = 1 << 10


class _Before(NamedTuple):
    """The last batch screened, with its outcome, and what was before."""

    keys: NDArray[np.uint64]
    outcome: NDArray[np.uint8]
    max_ts_ms: NDArray[np.int64]
    held: int


class Dedupe:
    """Late and duplicate events of one judge partition, over all its topics.

    Cost: 32 to 64 bytes an id that is alive (32 at the bound, if it is a power of two or little below), about 0.05 us
    a row.

    Parameters
    ----------
    lateness_ms
        A topic's watermark is its largest event time minus this.
    max_ids
        Bound of ids held; None: as many as the horizon keeps alive. At the bound the dead go, and if that
        leaves more than three quarters, the oldest go too, down to three quarters or fewer where times are
        equal (``dropped`` counts them).
    """

    def __init__(self, lateness_ms: int, *, max_ids: int | None = None) -> None:
        self._lateness_ms, self._max_ids = lateness_ms, max_ids
        self._max_ts_ms: NDArray[np.int64] = np.full(len(TOPICS), NEVER, np.int64)
        self._forgotten_ms: NDArray[np.int64] = np.full(1, NEVER, np.int64)
        self._held: NDArray[np.int64] = np.zeros(1, np.int64)
        self._ids: NDArray[np.uint64] = np.zeros((_LEAST_SLOTS, 2), np.uint64)
        self._before: _Before | None = None
        self.dropped = 0

    @property
    def held(self) -> int:
        """Ids in memory, dead ones among them that were not purged yet."""
        return int(self._held[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self._ids.nbytes

    @property
    def forgotten_ms(self) -> int | None:
        """Latest time of an id that was forgotten to make room: what is not later is late. None: none was."""
        latest = int(self._forgotten_ms[0])
        return None if latest == NEVER else latest

    def max_ts_ms(self, topic: int) -> int | None:
        """Largest event time of a topic's fresh events; None: it had none."""
        largest = int(self._max_ts_ms[topic])
        return None if largest == NEVER else largest

    def watermark_ms(self, topic: int) -> int | None:
        """Events of this topic before this time are late; None: it had no event yet."""
        largest = self.max_ts_ms(topic)
        return None if largest is None else largest - self._lateness_ms

    def screen(
        self,
        topic: int,
        keys: NDArray[np.uint64],
        ts_ms: NDArray[np.int64],
        eligible: NDArray[np.uint8],
    ) -> NDArray[np.uint8]:
        """Outcome of each row of a batch, decided row by row.

        A row is late if its time is below its topic's watermark or not above :attr:`forgotten_ms`, else a duplicate
        if its id is alive, else fresh. Only a fresh row moves the watermark and is remembered.

        Parameters
        ----------
        topic
            Index into schemas.events.TOPICS.
        keys
            uint64[n]: hash of (event id, user id); 0 counts as 1.
        ts_ms
            int64[n]: event time.
        eligible
            uint8[n]: 0 where the row is no event at all.

        Returns
        -------
        NDArray[np.uint8]
            FRESH, LATE, DUPLICATE or SKIPPED for each row.
        """
        outcome = np.empty(len(keys), np.uint8)
        self._before = _Before(keys, outcome, self._max_ts_ms.copy(), self.held)
        if len(keys) and self._max_ts_ms[topic] == NEVER:
            self._make_room()
        limit = _NO_BOUND if self._max_ids is None else self._max_ids
        first = 0
        while first < len(keys):
            first = _screen(
                first,
                keys,
                ts_ms,
                eligible,
                topic,
                self._lateness_ms,
                limit,
                self._forgotten_ms,
                self._max_ts_ms,
                self._held,
                self._ids,
                outcome,
            )
            if first < len(keys):
                self._make_room()
        return outcome

    def take_back(self) -> bool:
        """Be as before the last batch was screened. False, and nothing is changed, where too little is known for that.

        That is where room was made, or a dead id came again.
        """
        before = self._before
        if before is None:
            return False
        fresh = np.maximum(before.keys[before.outcome == FRESH], _ONE)
        if self.held != before.held + len(fresh):
            return False
        _insert(np.stack([fresh, np.full(len(fresh), _GONE)], axis=1), NEVER, self._ids)
        self._max_ts_ms, self._before = before.max_ts_ms, None
        self._fill(self._ids, before.held, len(self._ids), NEVER + 1)
        return True

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """Copies of everything that later outcomes depend on."""
        return {
            "format": np.array([FORMAT], np.int64),
            "ids": self._ids[self._ids[:, 0] != 0],
            "slots": np.array([len(self._ids)], np.int64),
            "max_ts_ms": self._max_ts_ms.copy(),
            "dropped": np.array([self.dropped], np.int64),
            "forgotten_ms": self._forgotten_ms.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any] | bytes]) -> None:
        """Take up a snapshot; lateness and bound stay those of this object.

        Raises
        ------
        StateError
            The snapshot is of another format.
        """
        number = {name: int(np.asarray(state[name])[0]) for name in ("format", "slots", "dropped")}
        if number["format"] != FORMAT:
            raise StateError(f"a snapshot of event ids of format {number['format']}; expected {FORMAT}")
        self._max_ts_ms = np.array(state["max_ts_ms"], np.int64)
        self.dropped = number["dropped"]
        # A checkpoint from before there was a bound has none.
        self._forgotten_ms = np.array(state.get("forgotten_ms", self._forgotten_ms), np.int64)
        pairs = np.array(state["ids"], np.uint64).reshape(-1, 2)
        # As large as it was, neither more nor less: when room is made next is part of the outcomes at the bound.
        self._fill(pairs, len(pairs), number["slots"], NEVER)

    def _make_room(self) -> None:
        """Purge the dead, and at the bound the oldest; then a table of which a quarter at most is taken."""
        self._before = None
        alive_since = _lowest_watermark(self._max_ts_ms, self._lateness_ms)
        alive = _count_alive(self._ids, alive_since)
        if (
            self._max_ids is not None
            and self.held >= self._max_ids
            and alive > (keep := self._max_ids * 3 // 4)
        ):
            pairs = self._ids[(self._ids[:, 0] != 0) & (self._ids[:, 1].view(np.int64) >= alive_since)]
            ts_ms = pairs[:, 1].view(np.int64)
            self._forgotten_ms[0] = np.partition(ts_ms, alive - keep - 1)[alive - keep - 1]
            kept = pairs[ts_ms > self._forgotten_ms[0]]
            self._fill(kept, len(kept), self._slots_for(len(kept)), NEVER)
            self.dropped += alive - len(kept)
        else:
            self._fill(self._ids, alive, self._slots_for(alive), alive_since)

    def _slots_for(self, alive: int) -> int:
        """Size of a table with room for as many ids again."""
        slots, most = _LEAST_SLOTS, _NO_BOUND if self._max_ids is None else 2 * self._max_ids
        while slots < 4 * alive and (slots < most or slots < 2 * alive):
            slots *= 2
        return slots

    def _fill(self, pairs: NDArray[np.uint64], alive: int, slots: int, alive_since: int) -> None:
        """Make a table of those pairs that are alive."""
        self._ids = np.zeros((slots, 2), np.uint64)
        self._held[0] = alive
        _insert(pairs, alive_since, self._ids)


@kernel
def _screen(
    first: int,
    keys: NDArray[np.uint64],
    ts_ms: NDArray[np.int64],
    eligible: NDArray[np.uint8],
    topic: int,
    lateness_ms: int,
    limit: int,
    forgotten_ms: NDArray[np.int64],
    max_ts_ms: NDArray[np.int64],
    held: NDArray[np.int64],
    ids: NDArray[np.uint64],
    outcome: NDArray[np.uint8],
) -> int:
    """Screen rows from ``first`` on; returns the row that needs a new table first, or the number of rows."""
    horizon_ms = _lowest_watermark(max_ts_ms, lateness_ms)
    for i in range(first, keys.shape[0]):
        if i + 16 < keys.shape[0]:
            prefetch(ids, 2 * np.int64(_home(keys[i + 16], ids)))
        if not eligible[i]:
            outcome[i] = SKIPPED
            continue
        below = max_ts_ms[topic] != NEVER and ts_ms[i] < max_ts_ms[topic] - lateness_ms
        if below or ts_ms[i] <= forgotten_ms[0]:
            outcome[i] = LATE
            continue
        slot = _find(keys[i], ids)
        seen = ids[slot, 0] != 0
        if seen and np.int64(ids[slot, 1]) >= horizon_ms:
            outcome[i] = DUPLICATE
            continue
        if not seen:
            if held[0] >= limit or 2 * held[0] >= ids.shape[0]:
                return i
            ids[slot, 0] = max(keys[i], _ONE)
            held[0] += 1
        ids[slot, 1] = np.uint64(ts_ms[i])
        outcome[i] = FRESH
        if ts_ms[i] > max_ts_ms[topic]:
            max_ts_ms[topic] = ts_ms[i]
            horizon_ms = _lowest_watermark(max_ts_ms, lateness_ms)
    return int(keys.shape[0])


@kernel
def _lowest_watermark(max_ts_ms: NDArray[np.int64], lateness_ms: int) -> int:
    """Of the topics that have had an event; NEVER: none has. Ids with a time before it are dead."""
    lowest = _NO_BOUND
    for topic in range(max_ts_ms.shape[0]):
        if max_ts_ms[topic] != NEVER:
            lowest = min(lowest, max_ts_ms[topic] - lateness_ms)
    return NEVER if lowest == _NO_BOUND else lowest


@kernel
def _count_alive(ids: NDArray[np.uint64], alive_since: int) -> int:
    alive = 0
    for i in range(ids.shape[0]):
        if ids[i, 0] and np.int64(ids[i, 1]) >= alive_since:
            alive += 1
    return alive


@kernel
def _insert(pairs: NDArray[np.uint64], alive_since: int, ids: NDArray[np.uint64]) -> None:
    """Put those of different ids that are alive into an empty table."""
    for i in range(pairs.shape[0]):
        if pairs[i, 0] and np.int64(pairs[i, 1]) >= alive_since:
            slot = _find(pairs[i, 0], ids)
            ids[slot, 0] = pairs[i, 0]
            ids[slot, 1] = pairs[i, 1]


@kernel
def _find(key: np.uint64, ids: NDArray[np.uint64]) -> np.uint64:
    """Slot of an id, or the empty one where it belongs."""
    slot, last, wanted = _home(key, ids), np.uint64(ids.shape[0] - 1), max(key, _ONE)
    while ids[slot, 0] and ids[slot, 0] != wanted:
        slot = (slot + _ONE) & last
    return slot


@kernel
def _home(key: np.uint64, ids: NDArray[np.uint64]) -> np.uint64:
    return ((max(key, _ONE) * _SPREAD) >> np.uint64(20)) & np.uint64(ids.shape[0] - 1)

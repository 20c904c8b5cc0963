"""What judged events looked like to supervised models, until their labels come: columns by keyed event id.

New rows are appended to a *tail*; from time to time the tail is sealed into a *segment*, sorted by event, which never
changes. Whoever owns the files writes segments down and gives them back as memory maps, so that a month of events costs
disk, not memory: a look-up is a binary search in each segment. 32 bytes a row and 8 for each input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.labels import Labels

LARGEST_SEGMENT = 1 << 20
"""Rows; segments are not merged beyond."""
NOT_KEPT = np.inf
"""Stands for an input that was not asked for when its event was judged."""
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Rows of judged events, sorted by ``event`` and then by ``order``.

    Parameters
    ----------
    inputs
        What the columns of ``x`` are: definitions, as :func:`detectors.supervised.inputs_of` gives them.
    event, user
        uint64[n]: keyed hashes.
    ts_ms
        int64[n]: event time.
    order
        int64[n]: as which number the event was judged in its partition.
    x
        float64[n, inputs]; NaN is null.
    newest_ms
        Largest event time; of sealed segments only.
    name
        Under which it is kept.
    """

    inputs: tuple[str, ...]
    event: NDArray[np.uint64]
    user: NDArray[np.uint64]
    ts_ms: NDArray[np.int64]
    order: NDArray[np.int64]
    x: NDArray[np.float64]
    newest_ms: int = _NEVER
    name: str = ""

    def __len__(self) -> int:
        """Rows."""
        return len(self.event)


@dataclass(frozen=True, slots=True)
class Found:
    """One judged event: as which number it was judged, when it was, and its numbers."""

    order: int
    ts_ms: int
    x: NDArray[np.float64]


def fitted(x: NDArray[np.float64], kept: Sequence[str], inputs: Sequence[str]) -> NDArray[np.float64]:
    """float64[n, inputs] of float64[n, kept]; infinite where an input was not kept, as no judged number is."""
    if tuple(kept) == tuple(inputs):
        return x
    found = np.full((len(x), len(inputs)), NOT_KEPT)
    for place, name in enumerate(inputs):
        if name in kept:
            found[:, place] = x[:, kept.index(name)]
    return found


def joined(parts: Sequence[Segment]) -> Segment:
    """Parts of the same inputs as one, in their order."""
    return Segment(
        parts[0].inputs,
        np.concatenate([part.event for part in parts]),
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.ts_ms for part in parts]),
        np.concatenate([part.order for part in parts]),
        np.concatenate([part.x for part in parts]),
    )


def sealed(rows: Segment) -> Segment:
    """The rows, at least one, sorted as a segment must be."""
    at = np.lexsort((rows.order, rows.event))
    newest_ms = int(rows.ts_ms.max())
    return Segment(
        rows.inputs, rows.event[at], rows.user[at], rows.ts_ms[at], rows.order[at], rows.x[at], newest_ms
    )


class JudgedFeatures:
    """Judged events of one partition, as far back as the horizon.

    Parameters
    ----------
    inputs
        What is kept of each event.
    horizon_ms
        How long by event time; what is older is forgotten by whole segments.
    """

    def __init__(self, inputs: tuple[str, ...], *, horizon_ms: int) -> None:
        self._inputs, self._horizon_ms = inputs, horizon_ms
        self._tail: list[Segment] = []
        self._sorted: Segment | None = None
        self._newest_ms: int = _NEVER
        self.tail_rows = 0
        self.segments: list[Segment] = []
        """Oldest first."""

    def add(self, rows: Segment) -> None:
        """Append judged events, in judged order."""
        if len(rows):
            self._tail.append(rows)
            self.tail_rows += len(rows)
            self._sorted = None
            self._newest_ms = max(self._newest_ms, int(rows.ts_ms.max()))

    def find(self, labels: Labels) -> list[Found | None]:
        """The judged event of each label, the latest where there are several; None where it is not known (yet)."""
        found: list[Found | None] = [None] * len(labels.event)
        for segment in (*self.segments, *self._sorted_tail()):
            first = np.searchsorted(segment.event, labels.event, "left")
            last = np.searchsorted(segment.event, labels.event, "right")
            for i in np.flatnonzero(last > first).tolist():
                for row in range(first[i], last[i]):
                    if labels.user[i] in (0, segment.user[row]):
                        x = fitted(np.array(segment.x[row : row + 1]), segment.inputs, self._inputs)[0]
                        found[i] = Found(int(segment.order[row]), int(segment.ts_ms[row]), x)
        return found

    def seal(self) -> Segment | None:
        """Make a segment of the tail; None when it is empty."""
        for segment in self._sorted_tail():
            self.segments.append(segment)
            self._tail, self._sorted, self.tail_rows = [], None, 0
            return segment
        return None

    def forget(self) -> None:
        """Drop segments that are older than the horizon as a whole."""
        oldest_ms = self._newest_ms - self._horizon_ms
        self.segments = [segment for segment in self.segments if segment.newest_ms >= oldest_ms]

    def mergeable(self) -> list[Segment]:
        """The newest segments that are better one: as many as are no larger than all those behind them together."""
        rows, count = 0, 0
        for segment in reversed(self.segments):
            if count and (len(segment) > rows or rows + len(segment) > LARGEST_SEGMENT):
                break
            if count and segment.inputs != self.segments[-1].inputs:
                break
            rows, count = rows + len(segment), count + 1
        return self.segments[-count:] if count > 1 else []

    def replace(self, parts: Sequence[Segment], whole: Segment) -> None:
        """Put one segment in the place of the newest ones."""
        self.segments[-len(parts) :] = [whole]

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """A copy of the tail; segments are not part of it."""
        tail = self._joined_tail()
        return {
            "newest_ms": np.array([self._newest_ms], np.int64),
            "event": tail.event,
            "user": tail.user,
            "ts_ms": tail.ts_ms,
            "order": tail.order,
            "x": tail.x,
        }

    def restore(self, state: Mapping[str, NDArray[Any]], inputs: tuple[str, ...]) -> None:
        """Take up a tail that was kept with these inputs."""
        self._newest_ms = int(state["newest_ms"][0])
        x = fitted(state["x"], inputs, self._inputs)
        self.add(Segment(self._inputs, state["event"], state["user"], state["ts_ms"], state["order"], x))

    def _joined_tail(self) -> Segment:
        if not self._tail:
            none = np.empty(0, np.uint64)
            integers = np.empty(0, np.int64)
            return Segment(self._inputs, none, none, integers, integers, np.empty((0, len(self._inputs))))
        if len(self._tail) > 1:
            self._tail = [joined(self._tail)]
        return self._tail[0]

    def _sorted_tail(self) -> tuple[Segment, ...]:
        if self._sorted is None and self.tail_rows:
            self._sorted = sealed(self._joined_tail())
        return () if self._sorted is None else (self._sorted,)

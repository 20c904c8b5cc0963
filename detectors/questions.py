"""The rows of one turn, arranged by kind: what the state tables are asked, one line of memory a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.kernels import kernel
from schemas.sightings import LOOK_ONLY, NO_NAME, Sightings

# Columns of ``Questions.rows``.
ENTITY, TS_MS, WATERMARK_MS, ANSWER, EVENT, NAME, LOOK = range(7)
_COLUMNS = 8
_MISFIT = -1

NO_OTHERS = np.iinfo(np.int64).max
"""``others_max_ts_ms`` where there is no other source."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What one turn asks.

    Parameters
    ----------
    rows
        int64[r, 8], rows of one kind together and in the order of the record: ENTITY (the hash's bits),
        TS_MS, WATERMARK_MS (the lowest largest time of all sources as of this event), ANSWER (where the row's
        answers begin), EVENT, NAME, LOOK (1: count nothing).
    edges
        Rows of kind k are ``rows[edges[k]:edges[k + 1]]``.
    members
        uint64[members, e], of the turn's events.
    answers
        Number of answers to all rows.
    max_ts_ms
        Largest event time of the source after this turn; NEVER: none.
    """

    rows: NDArray[np.int64]
    edges: list[int]
    members: NDArray[np.uint64]
    answers: int
    max_ts_ms: int


def arrange(
    sightings: Sightings,
    *,
    widths: NDArray[np.int64],
    names: int,
    members: int,
    max_ts_ms: int,
    others_max_ts_ms: int,
) -> Questions:
    """Arrange a turn by kind.

    Parameters
    ----------
    sightings
        The turn.
    widths
        int64[kinds]: how many features a row of each kind asks.
    names, members
        How many of each the config of the turn has.
    max_ts_ms
        Largest event time of the turn's source before it; NEVER: none.
    others_max_ts_ms
        The lowest of the largest event times of all other sources; NO_OTHERS: there are none.

    Raises
    ------
    StateError
        A row names a kind, an event or a name that does not exist: the record does not fit its config.
    """
    rows = np.empty((len(sightings.event), _COLUMNS), np.int64)
    edges = np.zeros(len(widths) + 1, np.int64)
    # Columns of a record are read-only; kernels are compiled for writable arrays, so each is copied or read
    # here.
    after, answers = _arrange(
        sightings.ts_ms,
        sightings.name,
        sightings.flags,
        sightings.event,
        sightings.kind,
        sightings.entity,
        widths,
        names,
        max_ts_ms,
        others_max_ts_ms,
        np.empty(len(sightings.ts_ms), np.int64),
        rows,
        edges,
    )
    if answers == _MISFIT or len(sightings.members) != members:
        raise StateError(
            f"turn {sightings.turn} of source {sightings.source} has rows that its config "
            f"{sightings.config.hex()} does not know; expected kinds, members and names of that config"
        )
    return Questions(rows, edges.tolist(), np.array(sightings.members), answers, after)


@kernel
def _arrange(
    ts_ms: NDArray[np.int64],
    name: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    event: NDArray[np.uint32],
    kind: NDArray[np.uint8],
    entity: NDArray[np.uint64],
    widths: NDArray[np.int64],
    names: int,
    max_ts_ms: int,
    others_max_ts_ms: int,
    watermark_ms: NDArray[np.int64],
    rows: NDArray[np.int64],
    edges: NDArray[np.int64],
) -> tuple[int, int]:
    """Counting sort by kind. Returns the source's largest time after the turn, and the answers or _MISFIT."""
    for i in range(event.shape[0]):
        if kind[i] >= widths.shape[0] or event[i] >= ts_ms.shape[0]:
            return max_ts_ms, _MISFIT
        edges[kind[i] + 1] += 1
    for k in range(widths.shape[0]):
        edges[k + 1] += edges[k]
    for e in range(ts_ms.shape[0]):
        if name[e] >= names and name[e] != NO_NAME:
            return max_ts_ms, _MISFIT
        if flags[e] & LOOK_ONLY == 0:
            max_ts_ms = max(max_ts_ms, ts_ms[e])
        watermark_ms[e] = min(max_ts_ms, others_max_ts_ms)
    next_row, answers = edges.copy(), 0
    for i in range(event.shape[0]):
        row_event, row_kind = np.int64(event[i]), np.int64(kind[i])
        r = next_row[row_kind]
        next_row[row_kind] += 1
        rows[r, ENTITY] = np.int64(entity[i])
        rows[r, TS_MS] = ts_ms[row_event]
        rows[r, WATERMARK_MS] = watermark_ms[row_event]
        rows[r, ANSWER] = answers
        rows[r, EVENT] = row_event
        rows[r, NAME] = name[row_event]
        rows[r, LOOK] = flags[row_event] & LOOK_ONLY
        answers += widths[row_kind]
    return max_ts_ms, answers

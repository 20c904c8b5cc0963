"""The three kinds of questions to an entity: distinct members, number of events, time since an event.

Each kernel goes through rows in their order: answers from the state just before, then applies the row. It
stops before a row for which the arrays could be too short and returns its number, so that they can be made
longer.

``asked`` is int64[f, 3], one line for each feature: its place among the answers of a row, its window in ms
(EVER: none), and whether the event's own member is left out. An answer is the value times two, plus one where
it is an estimate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.entity_rows import (
    Index,
    Lines,
    fetch_index,
    fetch_row,
    fetch_slab,
    find_row,
    has_room,
    insert_row,
)
from detectors.questions import ANSWER, ENTITY, EVENT, LOOK, NAME, TS_MS, WATERMARK_MS
from detectors.slabs import (
    FORGOTTEN,
    HORIZON_MS,
    NEVER,
    STATE,
    TIMED,
    TOTAL,
    USED,
    Words,
    add_member,
    count_since,
    find_member,
    level,
    place,
)
from schemas.kernels import kernel
from schemas.sightings import NULL_ANSWER

EVER = -1
"""A window without a beginning."""
ANY = -1
"""Every event's name."""
SLOT, WINDOW_MS, EXCLUDE_SELF = 0, 1, 2


@kernel
def distinct_rows(
    first: int,
    stop: int,
    rows: Words,
    members: NDArray[np.uint64],
    member: int,
    asked: Words,
    answers: Words,
    arena: Words,
    index: Index,
    lines: Lines,
    meta: Words,
) -> int:
    """How many different members came with the entity; ``member``: which line of ``members`` is counted."""
    for i in range(first, stop):
        if not has_room(meta, arena.shape[0], index.shape[0], lines.shape[0]):
            return i
        _fetch_ahead(i, stop, rows, arena, index, meta)
        key, ts_ms, own = rows[i, ENTITY], rows[i, TS_MS], int(np.int64(members[member, rows[i, EVENT]]))
        row = find_row(arena, index, meta, key)
        own_time = _answer_distinct(rows[i, ANSWER], ts_ms, own, asked, answers, arena, row)
        if rows[i, LOOK]:
            continue
        if row:
            arena[row + STATE] |= USED
        if own_time:
            arena[own_time] = max(arena[own_time], ts_ms)
        elif own:
            if row == 0:
                row = insert_row(arena, index, lines, meta, key)
            add_member(arena, meta, row, own, ts_ms, _floor(meta, rows[i, WATERMARK_MS]))
    return stop


@kernel
def count_rows(
    first: int,
    stop: int,
    rows: Words,
    name: int,
    asked: Words,
    answers: Words,
    arena: Words,
    index: Index,
    lines: Lines,
    meta: Words,
) -> int:
    """How many events of a name the entity had; ``name``: an index into the plan's names, or ANY."""
    every = name == ANY
    for i in range(first, stop):
        if not has_room(meta, arena.shape[0], index.shape[0], lines.shape[0]):
            return i
        _fetch_ahead(i, stop, rows, arena, index, meta)
        row = find_row(arena, index, meta, rows[i, ENTITY])
        _answer_count(rows[i, ANSWER], rows[i, TS_MS], asked, answers, arena, row)
        if rows[i, LOOK]:
            continue
        if row:
            arena[row + STATE] |= USED
        if every or rows[i, NAME] == name:
            if row == 0:
                row = insert_row(arena, index, lines, meta, rows[i, ENTITY])
            if meta[TIMED]:
                # The running number is the member: sampling by its low bits takes every second event.
                floor_ms = _floor(meta, rows[i, WATERMARK_MS])
                add_member(arena, meta, row, arena[row + TOTAL], rows[i, TS_MS], floor_ms)
            arena[row + TOTAL] += 1
    return stop


@kernel
def since_rows(
    first: int,
    stop: int,
    rows: Words,
    name: int,
    asked: Words,
    answers: Words,
    arena: Words,
    index: Index,
    lines: Lines,
    meta: Words,
) -> int:
    """Milliseconds since the entity's latest event of a name; ``name`` as in :func:`count_rows`."""
    every = name == ANY
    for i in range(first, stop):
        if not has_room(meta, arena.shape[0], index.shape[0], lines.shape[0]):
            return i
        _fetch_ahead(i, stop, rows, arena, index, meta)
        row, ts_ms = find_row(arena, index, meta, rows[i, ENTITY]), rows[i, TS_MS]
        for f in range(asked.shape[0]):
            answer = (ts_ms - arena[row + TOTAL]) * 2 if row else NULL_ANSWER
            answers[rows[i, ANSWER] + asked[f, SLOT]] = answer
        if rows[i, LOOK]:
            continue
        if row:
            arena[row + STATE] |= USED
        if every or rows[i, NAME] == name:
            if row:
                arena[row + TOTAL] = max(arena[row + TOTAL], ts_ms)
            else:
                row = insert_row(arena, index, lines, meta, rows[i, ENTITY])
                arena[row + TOTAL] = ts_ms
    return stop


@kernel
def _fetch_ahead(i: int, stop: int, rows: Words, arena: Words, index: Index, meta: Words) -> None:
    if i + 16 < stop:
        fetch_index(index, meta, rows[i + 16, ENTITY])
        fetch_row(arena, index, meta, rows[i + 8, ENTITY])
        fetch_slab(arena, index, meta, rows[i + 4, ENTITY])


@kernel
def _floor(meta: Words, watermark_ms: int) -> int:
    """Times below this are asked for by no event that is in time; NEVER where all are kept."""
    return watermark_ms - meta[HORIZON_MS] if meta[HORIZON_MS] >= 0 else NEVER


@kernel
def _answer_distinct(
    answer: int, ts_ms: int, own: int, asked: Words, answers: Words, arena: Words, row: int
) -> int:
    """Answer one row; returns the address of the own member's time, 0 if it is not there."""
    members, times, count = place(arena, row)
    halved = level(arena, row)
    own_at = find_member(arena, members, count, own)
    for f in range(asked.shape[0]):
        window_ms, since = asked[f, WINDOW_MS], ts_ms - asked[f, WINDOW_MS]
        n = count if window_ms == EVER else count_since(arena, times, count, since)
        if own_at >= 0 and asked[f, EXCLUDE_SELF] and (window_ms == EVER or arena[times + own_at] >= since):
            n -= 1
        estimate = halved > 0 or (window_ms != EVER and since <= arena[row + FORGOTTEN])
        answers[answer + asked[f, SLOT]] = (n << halved) * 2 + estimate
    return times + own_at if own_at >= 0 else 0


@kernel
def _answer_count(answer: int, ts_ms: int, asked: Words, answers: Words, arena: Words, row: int) -> None:
    _members, times, count = place(arena, row)
    halved = level(arena, row)
    for f in range(asked.shape[0]):
        window_ms = asked[f, WINDOW_MS]
        if window_ms == EVER:
            answers[answer + asked[f, SLOT]] = arena[row + TOTAL] * 2
        else:
            since = ts_ms - window_ms
            estimate = halved > 0 or since <= arena[row + FORGOTTEN]
            n = count_since(arena, times, count, since) << halved
            answers[answer + asked[f, SLOT]] = n * 2 + estimate

"""Memory of one state table: rows of one cache line, and slabs for members that do not fit into it.

One int64 array, the arena, holds both; addresses are indexes into it. A row of 8 words::

    KEY  STATE  TOTAL  FORGOTTEN  member member  time time

STATE packs the place of the members, a used bit for eviction, and level, class and count of the members.
Class 0 is the two pairs in the row itself, class c a slab of ``2 << c`` members followed by their times, up
to 1,024. There is no structure for expiry: a question scans the slab, so any number of windows and any
disorder of time cost the same.

A full slab, in this order: forgets what no event in time can ask for (only at 1,024 members or when half of
the slab budget is taken, so that late events too are answered exactly while memory is no concern); doubles;
and at last keeps one member in two by its low bits, its *level* counting how often. What was forgotten or
sampled is recorded, and answers that it touches say that they are estimates.

All of this is a function of the calls alone: budgets are counted in words taken, never by the size of the
arena, which may grow at any time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.kernels import kernel

Words = NDArray[np.int64]

NEVER = np.iinfo(np.int64).min
"""No time at all."""

# Words of a row.
ROW_WORDS = 8
KEY, STATE, TOTAL, FORGOTTEN, INLINE = 0, 1, 2, 3, 4

# STATE, from the low bits: count 11, class 4, level 6, used 1, place of the members 42.
COUNT_MASK, CLASS_SHIFT, CLASS_MASK = 0x7FF, 11, 0xF
LEVEL_SHIFT, LEVEL_MASK, USED, PLACE_SHIFT = 15, 0x3F, 1 << 21, 22

TOP_CLASS = 9
LARGEST_SLAB_WORDS = 4 << TOP_CLASS

# Words of ``meta``, the counters of one table. BUMP is the first word of the arena that was never given out.
BUMP, CARVED, SLAB_LIMIT, COARSENED, FREE = 0, 1, 2, 3, 4  # FREE: heads of the free lists, one a class
ROWS, MAX_ROWS, HAND, EVICTED, INDEX_SHIFT, HORIZON_MS, TIMED = 16, 17, 18, 19, 20, 21, 22
META_WORDS = 24
"""Length of ``meta``; the words from ROWS on belong to the rows and the tables."""


@kernel
def place(arena: Words, row: int) -> tuple[int, int, int]:
    """Where a row's members begin, where their times begin, and how many there are."""
    state = arena[row + STATE]
    members = state >> PLACE_SHIFT
    return int(members), int(members + (2 << ((state >> CLASS_SHIFT) & CLASS_MASK))), int(state & COUNT_MASK)


@kernel
def level(arena: Words, row: int) -> int:
    """How often the row's members were halved."""
    return int((arena[row + STATE] >> LEVEL_SHIFT) & LEVEL_MASK)


@kernel
def find_member(arena: Words, members: int, count: int, member: int) -> int:
    """Position of a member in a slab, -1 if it is not there."""
    # An unsigned index has no negative value to check for, and a sum has no early exit: so the loop can use
    # SIMD.
    at, found = np.uint64(members), 0
    for i in range(count):
        found += i + 1 if arena[at + np.uint64(i)] == member else 0
    return found - 1


@kernel
def count_since(arena: Words, times: int, count: int, since: int) -> int:
    """How many times of a slab are at ``since`` or later."""
    at, n = np.uint64(times), 0
    for i in range(count):
        n += arena[at + np.uint64(i)] >= since
    return n


@kernel
def clear_row(arena: Words, row: int, key: int) -> None:
    """Make an empty row of eight words."""
    arena[row + KEY] = key
    arena[row + STATE] = (row + INLINE) << PLACE_SHIFT
    arena[row + TOTAL] = 0
    arena[row + FORGOTTEN] = NEVER


@kernel
def add_member(arena: Words, meta: Words, row: int, member: int, ts_ms: int, floor_ms: int) -> None:
    """Give a row one more member, which it does not hold.

    Times below ``floor_ms`` may be forgotten; NEVER: none. The arena must have LARGEST_SLAB_WORDS left behind
    BUMP.
    """
    if member & ((1 << level(arena, row)) - 1):
        return
    if arena[row + STATE] & COUNT_MASK == 2 << ((arena[row + STATE] >> CLASS_SHIFT) & CLASS_MASK):
        _make_room(arena, meta, row, floor_ms)
        if member & ((1 << level(arena, row)) - 1):
            return
    members, times, count = place(arena, row)
    arena[members + count] = member
    arena[times + count] = ts_ms
    arena[row + STATE] += 1


@kernel
def free_slab(arena: Words, meta: Words, row: int) -> None:
    """Take a row's slab back, if it has one; the row must be cleared or get another one next."""
    state = arena[row + STATE]
    size_class = (state >> CLASS_SHIFT) & CLASS_MASK
    if size_class:
        arena[state >> PLACE_SHIFT] = meta[FREE + size_class]
        meta[FREE + size_class] = state >> PLACE_SHIFT


@kernel
def _make_room(arena: Words, meta: Words, row: int, floor_ms: int) -> None:
    size_class = (arena[row + STATE] >> CLASS_SHIFT) & CLASS_MASK
    capacity = 2 << size_class
    if floor_ms != NEVER and (size_class == TOP_CLASS or 2 * meta[CARVED] > meta[SLAB_LIMIT]):
        _keep(arena, row, floor_ms, 0)
    # Three quarters: a slab that is nearly full again after forgetting would be searched at every second
    # call.
    if size_class < TOP_CLASS and 4 * (arena[row + STATE] & COUNT_MASK) > 3 * capacity:
        _double(arena, meta, row)
        capacity = 2 << ((arena[row + STATE] >> CLASS_SHIFT) & CLASS_MASK)
    while arena[row + STATE] & COUNT_MASK == capacity:
        arena[row + STATE] += 1 << LEVEL_SHIFT
        meta[COARSENED] += 1
        _keep(arena, row, NEVER, (1 << level(arena, row)) - 1)


@kernel
def _keep(arena: Words, row: int, floor_ms: int, mask: int) -> None:
    """Keep the members whose time is not below the floor and whose masked bits are zero, in their order."""
    members, times, count = place(arena, row)
    kept = 0
    for i in range(count):
        member, ts_ms = arena[members + i], arena[times + i]
        if ts_ms < floor_ms:
            arena[row + FORGOTTEN] = max(arena[row + FORGOTTEN], ts_ms)
        elif member & mask == 0:
            arena[members + kept] = member
            arena[times + kept] = ts_ms
            kept += 1
    arena[row + STATE] += kept - count


@kernel
def _double(arena: Words, meta: Words, row: int) -> None:
    """Move a row's members into a slab of the next class, unless the budget is used up."""
    members, times, count = place(arena, row)
    state = arena[row + STATE]
    size_class = ((state >> CLASS_SHIFT) & CLASS_MASK) + 1
    slab = _take_slab(arena, meta, size_class)
    if slab == 0:
        return
    for i in range(count):
        arena[slab + i] = arena[members + i]
        arena[slab + (2 << size_class) + i] = arena[times + i]
    free_slab(arena, meta, row)
    flags = state & ((1 << PLACE_SHIFT) - 1) & ~(CLASS_MASK << CLASS_SHIFT)
    arena[row + STATE] = slab << PLACE_SHIFT | flags | size_class << CLASS_SHIFT


@kernel
def _take_slab(arena: Words, meta: Words, size_class: int) -> int:
    """Address of a slab, from the free list or the end of the arena; 0 when the budget is used up."""
    slab = meta[FREE + size_class]
    if slab:
        meta[FREE + size_class] = arena[slab]
        return int(slab)
    words = 4 << size_class
    if meta[CARVED] + words > meta[SLAB_LIMIT]:
        return 0
    meta[CARVED] += words
    meta[BUMP] += words
    return int(meta[BUMP] - words)

"""From the keyed hash of an entity to its row: an open index, and a clock that evicts when rows run out.

An index entry is a uint64: 32 bits of hash and 32 bits of row address (in lines of 8 words; line 0 of an
arena is never given out, so an entry of 0 is empty and leads prefetches nowhere). The place of an entry
follows from its own hash bits, so an entry can be removed at once by moving its successors up; nothing is
ever marked as deleted.

Eviction is a second-chance clock over the rows in the order in which they were first taken: a function of the
sightings alone. A row begins without its second chance, so keys that come once, however many, leave before
those that come again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.slabs import (
    BUMP,
    EVICTED,
    HAND,
    INDEX_SHIFT,
    KEY,
    LARGEST_SLAB_WORDS,
    MAX_ROWS,
    ROW_WORDS,
    ROWS,
    STATE,
    USED,
    Words,
    clear_row,
    free_slab,
    place,
)
from schemas.kernels import kernel
from schemas.prefetch import prefetch

Index = NDArray[np.uint64]
Lines = NDArray[np.uint32]

# Multiplication by an odd constant spreads keys: those of one shard agree in the bits that chose the shard.
_SPREAD, _HASH, _LINE, _ONE = (
    np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xFFFFFFFF00000000, 0x00000000FFFFFFFF, 1)
)
_LINE_SHIFT = 3
HEADROOM_WORDS = ROW_WORDS + LARGEST_SLAB_WORDS
"""What one sighting may take from an arena at most."""


@kernel
def has_room(meta: Words, words: int, entries: int, lines: int) -> bool:
    """Whether arrays of these lengths (arena, index, lines) can take one more sighting without growing."""
    # Lengths, not arrays: passing an array to a function that is not inlined costs 10 ns.
    rows = meta[ROWS]
    if meta[BUMP] + HEADROOM_WORDS > words:
        return False
    return bool(rows == meta[MAX_ROWS] or (rows < lines and 2 * (rows + 1) <= entries))


@kernel
def find_row(arena: Words, index: Index, meta: Words, key: int) -> int:
    """Address of the key's row, 0 if it has none."""
    spread, last = np.uint64(key) * _SPREAD, np.uint64(index.shape[0] - 1)
    at = spread >> np.uint64(meta[INDEX_SHIFT])
    while index[at]:
        if (index[at] ^ spread) & _HASH == 0:
            row = _row_of(index[at])
            if arena[row + KEY] == key:
                return row
        at = (at + _ONE) & last
    return 0


@kernel
def insert_row(arena: Words, index: Index, lines: Lines, meta: Words, key: int) -> int:
    """Address of an empty row for a key that has none; at the bound another key's."""
    if meta[ROWS] < meta[MAX_ROWS]:
        row = int(meta[BUMP])
        meta[BUMP] += ROW_WORDS
        lines[meta[ROWS]] = row >> _LINE_SHIFT
        meta[ROWS] += 1
    else:
        row = _evict(arena, index, lines, meta)
    clear_row(arena, row, key)
    _enter(index, meta, key, row)
    return row


@kernel
def index_rows(arena: Words, index: Index, lines: Lines, meta: Words) -> None:
    """Fill an empty index with all rows."""
    for i in range(meta[ROWS]):
        if i + 16 < meta[ROWS]:
            fetch_index(index, meta, arena[(np.int64(lines[i + 16]) << _LINE_SHIFT) + KEY])
        row = int(np.int64(lines[i]) << _LINE_SHIFT)
        _enter(index, meta, arena[row + KEY], row)


@kernel
def fetch_index(index: Index, meta: Words, key: int) -> None:
    """Hint: the index will be asked for this key."""
    prefetch(index, np.int64((np.uint64(key) * _SPREAD) >> np.uint64(meta[INDEX_SHIFT])))


@kernel
def fetch_row(arena: Words, index: Index, meta: Words, key: int) -> None:
    """Hint: this key's row will be read. Guesses by the first entry; the index should be near."""
    at = (np.uint64(key) * _SPREAD) >> np.uint64(meta[INDEX_SHIFT])
    prefetch(arena, _row_of(index[at]))


@kernel
def fetch_slab(arena: Words, index: Index, meta: Words, key: int) -> None:
    """Hint: this key's members will be read. The row should be near."""
    at = (np.uint64(key) * _SPREAD) >> np.uint64(meta[INDEX_SHIFT])
    members, times, _count = place(arena, _row_of(index[at]))
    prefetch(arena, members)
    prefetch(arena, times)


@kernel
def _row_of(entry: np.uint64) -> int:
    return int(np.int64(entry & _LINE) << _LINE_SHIFT)


@kernel
def _enter(index: Index, meta: Words, key: int, row: int) -> None:
    spread, last = np.uint64(key) * _SPREAD, np.uint64(index.shape[0] - 1)
    at = spread >> np.uint64(meta[INDEX_SHIFT])
    while index[at]:
        at = (at + _ONE) & last
    index[at] = (spread & _HASH) | np.uint64(row >> _LINE_SHIFT)


@kernel
def _evict(arena: Words, index: Index, lines: Lines, meta: Words) -> int:
    """Take the row of the first key, from the hand on, that has used up its second chance."""
    while True:
        row = int(np.int64(lines[meta[HAND]]) << _LINE_SHIFT)
        meta[HAND] = 0 if meta[HAND] + 1 == meta[ROWS] else meta[HAND] + 1
        if arena[row + STATE] & USED == 0:
            break
        arena[row + STATE] &= ~USED
    meta[EVICTED] += 1
    free_slab(arena, meta, row)
    _leave(index, meta, arena[row + KEY], row)
    return row


@kernel
def _leave(index: Index, meta: Words, key: int, row: int) -> None:
    """Remove an entry; entries behind it that may stand nearer to their place move up."""
    shift, last = np.uint64(meta[INDEX_SHIFT]), np.uint64(index.shape[0] - 1)
    hole, line = (np.uint64(key) * _SPREAD) >> shift, np.uint64(row >> _LINE_SHIFT)
    while index[hole] & _LINE != line:
        hole = (hole + _ONE) & last
    at = (hole + _ONE) & last
    while index[at]:
        wanted = (index[at] & _HASH) >> shift
        if (at - wanted) & last >= (at - hole) & last:
            index[hole] = index[at]
            hole = at
        at = (at + _ONE) & last
    index[hole] = np.uint64(0)

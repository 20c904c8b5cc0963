"""One state table: what is remembered of all entities of one kind for one question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from detectors.entity_kernels import count_rows, distinct_rows, since_rows
from detectors.entity_rows import HEADROOM_WORDS, Index, Lines, index_rows
from detectors.plan import Op
from detectors.questions import Questions
from detectors.slabs import (
    BUMP,
    COARSENED,
    EVICTED,
    FORGOTTEN,
    HORIZON_MS,
    INDEX_SHIFT,
    MAX_ROWS,
    META_WORDS,
    NEVER,
    ROW_WORDS,
    ROWS,
    SLAB_LIMIT,
    TIMED,
    Words,
)

SLAB_WORDS_PER_KEY = 16
LEAST_SLAB_WORDS = 1 << 16
_FIRST_WORDS, _FIRST_ROWS = 1 << 12, 128
_KEEPS_ALL = -1
Item = TypeVar("Item", bound=np.generic)


class EntityTable:
    """The state of all entities of one kind for one operation on one argument.

    Memory grows with what it holds, by doubling, up to 64 bytes a key in rows, 128 bytes a key in slabs (at
    least 512 KiB) and 20 to 36 bytes a key of index: about 230 bytes times ``max_keys``. Beyond that keys are
    evicted and members sampled. Growing changes no answer.

    Parameters
    ----------
    op
        The operation.
    max_keys
        Bound of entities.
    longest_window_ms
        The longest window that is asked for; times further back than this and ``lateness_ms`` from the
        watermark may be forgotten. None: nothing may be forgotten.
    lateness_ms
        How far an event in time may lie behind the watermark.
    timed
        COUNT: whether any window is asked for. Without one a counter is all there is.
    """

    PARTS = ("arena", "lines", "meta")
    """Names of the arrays of a snapshot."""

    def __init__(
        self, op: Op, *, max_keys: int, longest_window_ms: int | None, lateness_ms: int, timed: bool = True
    ) -> None:
        self._op = op
        self._meta: Words = np.zeros(META_WORDS, np.int64)
        self._meta[BUMP] = ROW_WORDS
        self._bound(max_keys)
        self._meta[HORIZON_MS] = _KEEPS_ALL if longest_window_ms is None else longest_window_ms + lateness_ms
        self._meta[TIMED] = timed
        self._arena: Words = np.zeros(_FIRST_WORDS, np.int64)
        # Line 0 is the row of an entity that was never seen.
        self._arena[FORGOTTEN] = NEVER
        self._lines: Lines = np.zeros(_FIRST_ROWS, np.uint32)
        self._index: Index
        self._make_index(0)

    @property
    def keys(self) -> int:
        """Entities held."""
        return int(self._meta[ROWS])

    @property
    def evicted(self) -> int:
        """Entities that were forgotten to make room for others."""
        return int(self._meta[EVICTED])

    @property
    def coarsened(self) -> int:
        """How often the members of an entity were halved."""
        return int(self._meta[COARSENED])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self._arena.nbytes + self._lines.nbytes + self._index.nbytes

    def apply(
        self,
        questions: Questions,
        first: int,
        stop: int,
        *,
        argument: int,
        asked: NDArray[np.int64],
        answers: NDArray[np.int64],
    ) -> None:
        """Answer rows [first, stop) and take them in, one after the other.

        Parameters
        ----------
        questions
            The arranged turn; these rows are of this table's kind.
        argument
            DISTINCT: which line of ``questions.members`` is counted; COUNT and SINCE: number of the name, or
            ANY.
        asked
            The features (detectors.entity_kernels).
        answers
            Where the answers go.
        """
        while True:
            state = (self._arena, self._index, self._lines, self._meta)
            if self._op is Op.DISTINCT:
                first = distinct_rows(
                    first, stop, questions.rows, questions.members, argument, asked, answers, *state
                )
            elif self._op is Op.COUNT:
                first = count_rows(first, stop, questions.rows, argument, asked, answers, *state)
            else:
                first = since_rows(first, stop, questions.rows, argument, asked, answers, *state)
            if first == stop:
                return
            self._grow()

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """Copies of what the answers depend on; the index is made anew by :meth:`restore`."""
        return {
            "arena": self._arena[: self._meta[BUMP]].copy(),
            "lines": self._lines[: self._meta[ROWS]].copy(),
            "meta": self._meta.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a snapshot.

        Bound, window and lateness stay those that this table was made with. A bound below the keys that the
        snapshot holds drops none of them: their number is the bound then.
        """
        kept, arena, lines = self._meta, state["arena"], state["lines"]
        self._meta = state["meta"].copy()
        for word in (HORIZON_MS, TIMED):
            self._meta[word] = kept[word]
        self._bound(max(int(kept[MAX_ROWS]), self.keys))
        self._arena = _lengthened(arena, _doubled(_FIRST_WORDS, len(arena) + HEADROOM_WORDS))
        self._lines = _lengthened(lines, _doubled(_FIRST_ROWS, len(lines)))
        self._make_index(self.keys)

    def _bound(self, max_keys: int) -> None:
        self._meta[MAX_ROWS] = max_keys
        self._meta[SLAB_LIMIT] = max(max_keys * SLAB_WORDS_PER_KEY, LEAST_SLAB_WORDS)

    def _grow(self) -> None:
        """Double what is too short for one more row."""
        meta = self._meta
        if meta[BUMP] + HEADROOM_WORDS > len(self._arena):
            most = ROW_WORDS * (1 + int(meta[MAX_ROWS])) + int(meta[SLAB_LIMIT]) + HEADROOM_WORDS
            self._arena = _lengthened(self._arena, min(2 * len(self._arena), most))
        if meta[ROWS] == len(self._lines):
            self._lines = _lengthened(self._lines, min(2 * len(self._lines), int(meta[MAX_ROWS])))
        if 2 * (meta[ROWS] + 1) > len(self._index):
            self._make_index(self.keys + 1)

    def _make_index(self, keys: int) -> None:
        size = _doubled(2 * _FIRST_ROWS, 2 * keys)
        self._index = np.zeros(size, np.uint64)
        self._meta[INDEX_SHIFT] = 64 - (size.bit_length() - 1)
        index_rows(self._arena, self._index, self._lines, self._meta)


def _doubled(size: int, least: int) -> int:
    while size < least:
        size *= 2
    return size


def _lengthened(array: NDArray[Item], length: int) -> NDArray[Item]:
    longer: NDArray[Item] = np.zeros(length, array.dtype)
    longer[: len(array)] = array
    return longer

"""Strings as small numbers: a value of a field is read once, when it is new, and a number from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from metrics.hash_index import first_slot, new_index
from schemas.flat_kernels import flat_kernel

ABSENT, OTHER = 0, 1
"""Numbers that every field has: no value, and all values beyond the limit together."""
OTHER_NAME = "(other)"
UNKNOWN = -1
"""The number of a value that was not looked at when the event came (its dimension is newer)."""
MAX_NAMES = 16_384
MAX_NAME_BYTES = 1 << 20
"""Limits of one field: first come, first numbered, so that names made up by the million cost nothing more."""


class Names:
    """Numbers of the values of one field, in order of appearance.

    Costs 12 bytes and the string itself per value. Equal hashes are taken for equal values.
    """

    def __init__(self) -> None:
        self.names: list[str | None] = [None, OTHER_NAME]
        self._number = {OTHER_NAME: OTHER}
        self._bytes = 0
        self._hashes = np.zeros(2 * MAX_NAMES, np.uint64)
        self._numbers = np.zeros(2 * MAX_NAMES, np.int32)
        self._hashed = 0
        self._index = new_index(2 * MAX_NAMES)

    @property
    def full(self) -> bool:
        """Whether new values are counted as OTHER."""
        return len(self.names) >= MAX_NAMES or self._bytes >= MAX_NAME_BYTES or self._hashed >= 2 * MAX_NAMES

    def number(self, hashes: NDArray[np.uint64], name_of: Callable[[int], str]) -> NDArray[np.int32]:
        """Number the values of a column.

        Parameters
        ----------
        hashes
            uint64[m], 0 where the field is absent.
        name_of
            Called once for each new value, with the first row that has it.

        Returns
        -------
        int32[m], ABSENT where the field is absent.
        """
        numbers = np.empty(len(hashes), np.int32)
        at = self._look_up(hashes, numbers, 0)
        while at < len(hashes):
            self._add(hashes[at], name_of(at))
            at = self._look_up(hashes, numbers, at)
        return numbers

    def known(self, name: str) -> int:
        """Number of a value, UNKNOWN if it never came."""
        return self._number.get(name, UNKNOWN)

    def snapshot(self) -> tuple[list[str | None], NDArray[np.uint64], NDArray[np.int32]]:
        """Names by number, and the hashes with their numbers."""
        return self.names, self._hashes[: self._hashed].copy(), self._numbers[: self._hashed].copy()

    def restore(
        self, names: Sequence[str | None], hashes: NDArray[np.uint64], numbers: NDArray[np.int32]
    ) -> None:
        """Take up a snapshot; only right after construction."""
        for name in names[2:]:
            self._name(str(name))
        for hashed, number in zip(hashes, numbers, strict=True):
            self._enter(hashed, int(number))

    def _add(self, hashed: np.uint64, name: str) -> None:
        # A text "5" and a number 5 are one value with two hashes.
        self._enter(hashed, self._number[name] if name in self._number else self._name(name))

    def _name(self, name: str) -> int:
        self._number[name] = len(self.names)
        self.names.append(name)
        self._bytes += len(name.encode())
        return self._number[name]

    def _enter(self, hashed: np.uint64, number: int) -> None:
        self._hashes[self._hashed], self._numbers[self._hashed] = hashed, number
        self._hashed += 1
        enter(self._hashes, self._index, self._hashed - 1)

    def _look_up(self, hashes: NDArray[np.uint64], numbers: NDArray[np.int32], at: int) -> int:
        return look_up(self._hashes, self._numbers, self._index, hashes, numbers, at, self.full)


@flat_kernel
def slot_of(known: NDArray[np.uint64], index: NDArray[np.int32], hashed: np.uint64) -> int:
    """Slot of a hash, or the empty one where it belongs."""
    slot = first_slot(hashed, len(index))
    while index[slot] != 0 and known[index[slot] - 1] != hashed:
        slot = (slot + 1) & (len(index) - 1)
    return slot


@flat_kernel
def enter(known: NDArray[np.uint64], index: NDArray[np.int32], row: int) -> None:
    """Make the hash of a row known."""
    index[slot_of(known, index, known[row])] = row + 1


@flat_kernel
def look_up(
    known: NDArray[np.uint64],
    known_numbers: NDArray[np.int32],
    index: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    at: int,
    full: bool,
) -> int:
    """Number rows from ``at`` on; return the first row with an unknown value, or the number of rows."""
    for i in range(at, len(hashes)):
        if hashes[i] == 0:
            numbers[i] = ABSENT
            continue
        found = index[slot_of(known, index, hashes[i])]
        if found != 0:
            numbers[i] = known_numbers[found - 1]
        elif full:
            numbers[i] = OTHER
        else:
            return i
    return len(hashes)

"""Open addressing by hand: what all tables of this package share.

An index is int32[2^k], at most half full: 0 is an empty slot, any other value a row number plus one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel

SMALLEST = 16
"""Rows of a new table."""

_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_WEIGHTS = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xC2B2AE3D27D4EB4F),
    np.uint64(0x165667B19E3779F9),
    np.uint64(0xD6E8FEB86659FD93),
)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


@flat_kernel
def mixed(seed: np.uint64, value: int) -> np.uint64:
    """Fold a number into a hash: the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    x = seed ^ np.uint64(value)
    x = (x ^ (x >> _SHIFTS[0])) * _FIRST
    x = (x ^ (x >> _SHIFTS[1])) * _SECOND
    return x ^ (x >> _SHIFTS[2])


@flat_kernel
def hash_of(first: int, second: int, third: int, fourth: int) -> np.uint64:
    """Hash four small numbers: a weighted sum, finished once."""
    total = np.uint64(first) * _WEIGHTS[0] + np.uint64(second) * _WEIGHTS[1]
    total += np.uint64(third) * _WEIGHTS[2] + np.uint64(fourth) * _WEIGHTS[3]
    return mixed(total, 0)


@flat_kernel
def first_slot(hashed: np.uint64, slots: int) -> int:
    """Slot at which a search begins; ``slots`` is a power of two."""
    return np.int64(hashed & np.uint64(slots - 1))  # type: ignore[return-value]  # int() would stay unsigned


def power_of_two(rows: int) -> int:
    """Smallest capacity of a table that holds ``rows``."""
    return max(SMALLEST, 1 << (rows - 1).bit_length()) if rows else SMALLEST


def new_index(capacity: int) -> NDArray[np.int32]:
    """Empty index for a table of ``capacity`` rows, a power of two."""
    return np.zeros(2 * capacity, np.int32)


def grown(rows: NDArray[np.void], capacity: int) -> NDArray[np.void]:
    """Table with room for ``capacity`` rows, the new ones zero; the same array if it has that room."""
    if capacity == len(rows):
        return rows
    larger = np.zeros(capacity, rows.dtype)
    larger[: len(rows)] = rows
    return larger

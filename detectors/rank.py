"""How rare a raw score is among those a model has learned from: exact counts, summed in three short steps.

The strength of an anomaly model is ``max(0, (r - 0.99) / 0.01)``, cut off at 1. ``r`` is the share of the raw
scores the model learned from so far that are strictly below this one, and 0 while it has learned from none.
So the lower 99 % say nothing, and a score above all of them says all that a model can say.

A half-space score is ``1 - mass / whole`` with an integer mass, so "strictly below" means "of greater mass",
and counting masses is exact where a quantile sketch of floats would not be. Counters stand in three levels
(each mass, pages of 256, books of 65 536); a look-up sums a stretch of each, and stops as soon as the sum
says that the score is not rare.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.config_blocks import LARGEST_MASS
from schemas.kernels import kernel

PAGE_BITS = 8
BOOK_BITS = 16
COMMON_SHARE = 0.99


class MassCounts(NamedTuple):
    """Counters of the masses a model learned from, as kernels take them.

    ``each[m]`` counts mass m, ``pages[m >> 8]`` and ``books[m >> 16]`` its neighbourhoods; all int64. 8 bytes
    for every mass up to the largest, committed by the operating system only where masses occur.
    """

    each: NDArray[np.int64]
    pages: NDArray[np.int64]
    books: NDArray[np.int64]


def no_counts(largest_mass: int) -> MassCounts:
    """Counters for masses 0..largest_mass, all zero.

    Raises
    ------
    ValueError
        If the counters would not fit the memory that a model may take.

    Examples
    --------
    >>> counts = no_counts(1000)
    >>> [len(level) for level in counts]
    [65536, 256, 1]
    """
    if not 0 <= largest_mass <= LARGEST_MASS:
        raise ValueError(f"expected a largest mass of 0 to {LARGEST_MASS}, got {largest_mass}")
    books = (largest_mass >> BOOK_BITS) + 1
    return MassCounts(
        each=np.zeros(books << BOOK_BITS, np.int64),
        pages=np.zeros(books << (BOOK_BITS - PAGE_BITS), np.int64),
        books=np.zeros(books, np.int64),
    )


@kernel
def learned_count(counts: MassCounts) -> int:
    """How many masses were counted."""
    learned = 0
    for count in counts.books:
        learned += count
    return learned


@kernel
def count_mass(counts: MassCounts, mass: int) -> None:
    """Count the mass of an event that the model learned from."""
    counts.each[mass] += 1
    counts.pages[mass >> PAGE_BITS] += 1
    counts.books[mass >> BOOK_BITS] += 1


@kernel
def strength_of_share(not_below: int, learned: int) -> float:
    """Strength when ``not_below`` of ``learned`` scores are not strictly below; never rises with them."""
    share = (learned - not_below) / learned
    strength = (share - COMMON_SHARE) / 0.01
    return min(1.0, max(0.0, strength))  # (1 - .99) / .01 is a little above 1 in floats


@kernel
def strength_of_mass(counts: MassCounts, learned: int, mass: int) -> float:
    """Strength, 0..1, of a score with this mass; ``learned`` is :func:`learned_count`.

    Some 10 ns where the score is common, 100 ns where it is rare.
    """
    if learned == 0:
        return 0.0
    page = mass >> PAGE_BITS
    book = mass >> BOOK_BITS
    not_below = 0
    for count in counts.books[:book]:
        not_below += count
    if strength_of_share(not_below, learned) == 0.0:
        return 0.0
    for count in counts.pages[book << (BOOK_BITS - PAGE_BITS) : page]:
        not_below += count
    if strength_of_share(not_below, learned) == 0.0:
        return 0.0
    for count in counts.each[page << PAGE_BITS : mass + 1]:
        not_below += count
    return strength_of_share(not_below, learned)


def sparse(counts: MassCounts) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The masses that occurred, ascending, and how often: what a checkpoint keeps. Reads used pages only."""
    pages = np.flatnonzero(counts.pages)
    used = counts.each.reshape(-1, 1 << PAGE_BITS)[pages].ravel()
    at = np.flatnonzero(used)
    masses = (pages[at >> PAGE_BITS] << PAGE_BITS) + (at & ((1 << PAGE_BITS) - 1))
    return masses.astype(np.uint32), used[at]


def dense(largest_mass: int, masses: NDArray[np.uint32], times: NDArray[np.int64]) -> MassCounts:
    """Counters from what :func:`sparse` returned.

    Raises
    ------
    ValueError
        If the masses are not strictly ascending within 0..largest_mass, each counted at least once.
    """
    if masses.shape != times.shape or masses.ndim != 1:
        raise ValueError(f"expected as many masses as counts, got {masses.shape} and {times.shape}")
    ascending = bool(np.all(masses[1:] > masses[:-1]))
    if masses.size and not (ascending and masses[-1] <= largest_mass and times.min() > 0):
        raise ValueError(f"expected ascending masses up to {largest_mass} with positive counts")
    counts = no_counts(largest_mass)
    counts.each[masses] = times
    np.add.at(counts.pages, masses >> PAGE_BITS, times)
    np.add.at(counts.books, masses >> BOOK_BITS, times)
    return counts

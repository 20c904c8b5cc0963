"""Quantiles of whole numbers from fixed buckets: sums of histograms, so merging is exact in any order.

Bucket b holds the integers from ``BOUNDARIES[b]`` to ``BOUNDARIES[b + 1] - 1``. Up to 100 each integer has
its own; from there a bucket is 1 % wide, so its middle is at most 0.5 % off any number in it. The boundaries
are made with integers alone: no logarithm, whose last bit might differ from machine to machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.events import MAX_INTEGER
from schemas.flat_kernels import flat_kernel


def _boundaries() -> NDArray[np.int64]:
    bounds = [0]
    while bounds[-1] <= MAX_INTEGER:
        bounds.append(max(bounds[-1] + 1, bounds[-1] * 101 // 100))
    return np.array(bounds, np.int64)


BOUNDARIES = _boundaries()
"""int64[3334]: lowest number of each bucket, and beyond the last one, which holds 2^53."""


@flat_kernel
def bucket_of(bounds: NDArray[np.int64], value: int) -> int:
    """Bucket of a number from 0 to 2^53, by bisection; ``bounds`` is BOUNDARIES."""
    if value < 100:
        return value
    low, high = 100, len(bounds) - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if bounds[middle] <= value:
            low = middle
        else:
            high = middle
    return low


def bucket_middles(buckets: NDArray[np.integer]) -> NDArray[np.float64]:
    """Stand for the numbers of each bucket: exact below 100, at most 0.5 % off above."""
    low, high = BOUNDARIES[buckets], BOUNDARIES[np.asarray(buckets, np.int64) + 1] - 1
    return np.asarray((low + high) / 2.0, np.float64)


def quantiles(
    rows: NDArray[np.integer],
    buckets: NDArray[np.integer],
    counts: NDArray[np.int64],
    row_count: int,
    percent: int,
) -> NDArray[np.float64]:
    """Nearest-rank quantile of each of many histograms.

    Parameters
    ----------
    rows, buckets, counts
        Sparse histograms, ordered by row, then bucket; all counts are positive.
    row_count
        How many histograms there are.
    percent
        1..100.

    Returns
    -------
    float64[row_count]
        Middle of the lowest bucket at or below which lie at least ``percent`` % of the row; NaN where it is
        empty.

    Examples
    --------
    >>> zero = np.zeros(2, np.int64)
    >>> quantiles(zero, np.array([3, 50]), np.array([1, 1]), 2, 50)
    array([ 3., nan])
    """
    totals = np.zeros(row_count, np.int64)
    np.add.at(totals, rows, counts)
    ranks = (totals * percent + 99) // 100
    before_row = np.cumsum(totals) - totals
    reached = np.cumsum(counts) - before_row[rows] >= ranks[rows]
    # Of each row's buckets that reach the rank the first one counts: writing backwards, it is written last.
    found = np.full(row_count, -1, np.int64)
    at = np.flatnonzero(reached)[::-1]
    found[rows[at]] = buckets[at]
    values = np.full(row_count, np.nan)
    values[found >= 0] = bucket_middles(found[found >= 0])
    return values

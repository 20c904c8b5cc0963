"""Samples of users, so that counting them needs bounded memory.

A sample of level L has the users whose key, mixed, begins with L zero bits: every user at level 0, each further level
half of the one before. Who is in it follows from the user alone, hence a count of distinct users is a function of the
set of users, and samples of one level can be compared and added. n users of a sample of level L stand for n * 2^L; the
variance of that estimate of N is N * (2^L - 1) (adaptive sampling: Flajolet, "On adaptive sampling", 1990).
"""

from __future__ import annotations

import numpy as np

from metrics.hash_index import mixed
from schemas.flat_kernels import flat_kernel

MOST_LEVEL = 40
_SALT = 0x5A3D
_BITS = np.uint64(64)


@flat_kernel
def is_kept(user: np.uint64, level: int) -> bool:
    """Whether the sample of a level has a user."""
    if level == 0:
        return True
    kept: bool = mixed(user, _SALT) >> (_BITS - np.uint64(level)) == 0
    return kept


def variance(estimate: int, level: int) -> int:
    """Variance of an estimated count of users; 0 for level 0, which is exact.

    Where the sample has nobody, that of one: nobody in a sample does not say that there is nobody.
    """
    return max(estimate, 1 << level) * ((1 << level) - 1)

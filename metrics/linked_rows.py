"""Rows that belong together, as tables of this package link them: a head, and in each row the next one.

Links are row numbers plus one; 0 ends a list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.kernels import kernel


@kernel
def linked_rows(
    heads: NDArray[np.int32], nexts: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of some lists.

    Parameters
    ----------
    heads
        int32[lists]: the first link of each; fields of a table are taken as they are.
    nexts
        int32[rows]: the link that follows each row.

    Returns
    -------
    Index into ``heads`` and row, of every row of the lists; those of a list in the order of its links.
    """
    count = 0
    for head in heads:
        link = head
        while link != 0:
            count += 1
            link = nexts[link - 1]
    owners, rows = np.empty(count, np.int64), np.empty(count, np.int64)
    count = 0
    for i in range(len(heads)):
        link = heads[i]
        while link != 0:
            owners[count], rows[count] = i, link - 1
            count += 1
            link = nexts[link - 1]
    return owners, rows

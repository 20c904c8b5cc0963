"""Cells: the combinations of campaign and dimension values that occur, each a small number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.hash_index import SMALLEST, first_slot, mixed, new_index
from metrics.names import OTHER, UNKNOWN
from schemas.flat_kernels import flat_kernel

MAX_CELLS = 1 << 20
"""Beyond, new combinations lose their dimension values to OTHER; the campaign stays."""


class CellTable(NamedTuple):
    """Arrays of :class:`Cells`: values int32[cells, 1 + dims] (campaign first), slots, used int64[1]."""

    values: NDArray[np.int32]
    slots: NDArray[np.int32]
    used: NDArray[np.int64]


class Cells:
    """Numbers of cells in order of appearance; 12 bytes and 4 per dimension each, for good."""

    def __init__(self, dims: tuple[str, ...]) -> None:
        self.dims = dims
        self.table = _new_table(SMALLEST, 1 + len(dims))

    def number(self, columns: NDArray[np.int32]) -> NDArray[np.int32]:
        """Cell of each row; ``columns`` is int32[1 + dims, m], numbers of names."""
        numbers, values = np.empty(columns.shape[1], np.int32), np.empty(len(columns), np.int32)
        at = look_up_cells(self.table, columns, numbers, values, 0)
        while at < len(numbers):
            self._grow()
            at = look_up_cells(self.table, columns, numbers, values, at)
        return numbers

    def snapshot(self) -> NDArray[np.int32]:
        """Values of all cells."""
        return self.table.values[: self.table.used[0]].copy()

    def restore(self, values: NDArray[np.int32], dims: tuple[str, ...]) -> None:
        """Take up cells of other dimensions: dimensions that are new are UNKNOWN in them.

        Cells keep their numbers, so two of them may become equal; that harms nothing.
        """
        rows = np.full((len(values), 1 + len(self.dims)), UNKNOWN, np.int32)
        rows[:, 0] = values[:, 0]
        for column, dim in enumerate(self.dims):
            if dim in dims:
                rows[:, 1 + column] = values[:, 1 + dims.index(dim)]
        while len(self.table.values) < len(rows):
            self._grow()
        self.table.values[: len(rows)] = rows
        self.table.used[0] = len(rows)
        reindex(self.table)

    def _grow(self) -> None:
        larger = _new_table(2 * len(self.table.values), 1 + len(self.dims))
        larger.values[: len(self.table.values)] = self.table.values
        larger.used[0] = self.table.used[0]
        self.table = larger
        reindex(larger)


def _new_table(capacity: int, width: int) -> CellTable:
    return CellTable(np.zeros((capacity, width), np.int32), new_index(capacity), np.zeros(1, np.int64))


@flat_kernel
def reindex(cells: CellTable) -> None:
    """Enter all cells into an empty index."""
    for row in range(cells.used[0]):
        cells.slots[cell_slot(cells, cells.values[row])] = row + 1


@flat_kernel
def cell_slot(cells: CellTable, values: NDArray[np.int32]) -> int:
    """Slot of a cell, or the empty one where it belongs."""
    hashed = np.uint64(0)
    for value in values:
        hashed = mixed(hashed, value)
    slot = first_slot(hashed, len(cells.slots))
    while cells.slots[slot] != 0:
        same = True
        held = cells.values[cells.slots[slot] - 1]
        for column in range(len(values)):
            same &= held[column] == values[column]
        if same:
            break
        slot = (slot + 1) & (len(cells.slots) - 1)
    return slot


@flat_kernel
def look_up_cells(
    cells: CellTable,
    columns: NDArray[np.int32],
    numbers: NDArray[np.int32],
    values: NDArray[np.int32],
    at: int,
) -> int:
    """Number rows from ``at`` on; return the first one for which there is no room, or the number of rows.

    ``values`` is scratch for one cell.
    """
    for i in range(at, columns.shape[1]):
        for column in range(len(values)):
            values[column] = columns[column, i]
        slot = cell_slot(cells, values)
        if cells.slots[slot] == 0 and cells.used[0] >= MAX_CELLS:
            for column in range(1, len(values)):
                values[column] = min(values[column], OTHER)  # ABSENT, which is less, stays
            slot = cell_slot(cells, values)
        if cells.slots[slot] == 0:
            row = cells.used[0]
            if row == len(cells.values):
                return i
            for column in range(len(values)):
                cells.values[row, column] = values[column]
            cells.slots[slot] = row + 1
            cells.used[0] = row + 1
        numbers[i] = cells.slots[slot] - 1
    return len(numbers)

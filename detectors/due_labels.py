"""Labels of judged events that wait for their time, with the features as judged: a heap in flat arrays.

A label is learned just before the first row whose event time has reached the label's. Labels that fall due together are
learned by their time, then in the order in which their events were judged, so neither the order in which labels came
nor the cuts of batches matter. 33 bytes a label and 8 for each input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.kernels import kernel

NOTHING_DUE_MS = np.iinfo(np.int64).max
_SMALLEST = 64


class DueLabels:
    """A heap of labels by (time, judged order, value).

    Parameters
    ----------
    inputs
        Numbers kept with each.

    Examples
    --------
    >>> due = DueLabels(inputs=1)
    >>> due.push(due_ms=20, order=7, label=1, x=np.array([0.5]))
    >>> due.push(due_ms=10, order=9, label=0, x=np.array([2.0]))
    >>> due.next_ms, due.pop(), due.next_ms, len(due)
    (10, (0, array([2.])), 20, 1)
    """

    def __init__(self, *, inputs: int) -> None:
        self._inputs = inputs
        self._allot(_SMALLEST)
        self._used = 0
        self.next_ms: int = NOTHING_DUE_MS
        """When the first of them falls due."""

    def __len__(self) -> int:
        """Labels that wait."""
        return self._used

    def push(self, *, due_ms: int, order: int, label: int, x: NDArray[np.float64]) -> None:
        """Add a label of the event judged as number ``order``, with its ``inputs`` numbers."""
        if self._used == len(self._heap):
            self._grow()
        slot = self._heap[self._used]  # behind the heap stand the slots that are free
        self._due_ms[slot], self._order[slot], self._label[slot], self._x[slot] = due_ms, order, label, x
        _sift_up(self._heap, self._due_ms, self._order, self._label, self._used)
        self._used += 1
        self.next_ms = int(self._due_ms[self._heap[0]])

    def pop(self) -> tuple[int, NDArray[np.float64]]:
        """Take the first label off: its value and a copy of its numbers; there must be one."""
        slot = self._heap[0]
        found = int(self._label[slot]), self._x[slot].copy()
        self._used -= 1
        self._heap[0], self._heap[self._used] = self._heap[self._used], slot
        _sift_down(self._heap, self._due_ms, self._order, self._label, self._used)
        self.next_ms = int(self._due_ms[self._heap[0]]) if self._used else NOTHING_DUE_MS
        return found

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copies of all columns, one row a label."""
        slots = self._heap[: self._used]
        return {
            "due_ms": self._due_ms[slots],
            "order": self._order[slots],
            "label": self._label[slots],
            "x": self._x[slots],
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a snapshot with the same inputs; only right after construction."""
        rows = len(state["due_ms"])
        self._allot(max(_SMALLEST, rows))
        order = np.lexsort((state["label"], state["order"], state["due_ms"]))  # what is sorted is a heap
        self._due_ms[:rows], self._order[:rows] = state["due_ms"][order], state["order"][order]
        self._label[:rows], self._x[:rows] = state["label"][order], state["x"][order]
        self._used = rows
        self.next_ms = int(self._due_ms[0]) if rows else NOTHING_DUE_MS

    def _allot(self, rows: int) -> None:
        self._heap: NDArray[np.int32] = np.arange(rows, dtype=np.int32)
        self._due_ms, self._order = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._label, self._x = np.zeros(rows, np.uint8), np.zeros((rows, self._inputs))

    def _grow(self) -> None:
        heap, due_ms, order, label, x = self._heap, self._due_ms, self._order, self._label, self._x
        rows = len(heap)
        self._allot(2 * rows)
        self._heap[:rows], self._due_ms[:rows], self._order[:rows] = heap, due_ms, order
        self._label[:rows], self._x[:rows] = label, x


@kernel
def _comes_before(
    due_ms: NDArray[np.int64], order: NDArray[np.int64], label: NDArray[np.uint8], one: int, other: int
) -> bool:
    if due_ms[one] != due_ms[other]:
        return bool(due_ms[one] < due_ms[other])
    if order[one] != order[other]:
        return bool(order[one] < order[other])
    return bool(label[one] < label[other])


@kernel
def _sift_up(
    heap: NDArray[np.int32],
    due_ms: NDArray[np.int64],
    order: NDArray[np.int64],
    label: NDArray[np.uint8],
    at: int,
) -> None:
    while at > 0:
        above = (at - 1) // 2
        if not _comes_before(due_ms, order, label, heap[at], heap[above]):
            return
        heap[at], heap[above] = heap[above], heap[at]
        at = above


@kernel
def _sift_down(
    heap: NDArray[np.int32],
    due_ms: NDArray[np.int64],
    order: NDArray[np.int64],
    label: NDArray[np.uint8],
    size: int,
) -> None:
    at = 0
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and _comes_before(due_ms, order, label, heap[below + 1], heap[below]):
            below += 1
        if not _comes_before(due_ms, order, label, heap[below], heap[at]):
            return
        heap[at], heap[below] = heap[below], heap[at]
        at = below

"""Labels fall due by time, judged order and value, against Python's own heap; a snapshot changes nothing."""

from __future__ import annotations

import heapq
import random

import numpy as np

from detectors.due_labels import NOTHING_DUE_MS, DueLabels


def test_equals_a_heap_of_python() -> None:
    draw = random.Random(3)
    due, heap = DueLabels(inputs=2), list[tuple[int, int, int, list[float]]]()
    for step in range(5_000):
        if step % 700 == 699:
            kept, due = due.snapshot(), DueLabels(inputs=2)
            due.restore(kept)
        if heap and draw.random() < 0.45:
            _, _, label, x = heapq.heappop(heap)
            found, numbers = due.pop()
            assert (found, numbers.tolist()) == (label, x)
        else:
            row = (draw.randrange(40), draw.randrange(3_000), draw.randrange(2), [float(step), 0.5])
            heapq.heappush(heap, row)
            due.push(due_ms=row[0], order=row[1], label=row[2], x=np.array(row[3]))
        assert due.next_ms == (heap[0][0] if heap else NOTHING_DUE_MS)
        assert len(due) == len(heap)
    assert len(due) > 64

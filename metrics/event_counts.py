"""Events per minute, campaign, channel and name: how many, how long people stayed, what was paid and given.

Sums are of whole numbers and stop at 2^63 - 1; as nothing is negative, that is the same in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.event_tables import (
    OUTDATED,
    SPANS,
    EventColumns,
    EventTables,
    copy_minutes,
    count_events,
    new_tables,
    reindex_events,
)
from metrics.hash_index import SMALLEST, grown, new_index, power_of_two
from metrics.quantiles import BOUNDARIES


class EventCounts:
    """Counts events by minute; spans that are over go. A row costs 80 bytes, a bucket 32."""

    def __init__(self) -> None:
        self.tables = new_tables(SMALLEST, SMALLEST, SMALLEST)

    @property
    def outdated(self) -> int:
        """Events below the promised watermark and of a span that was over: not counted."""
        return int(self.tables.used[OUTDATED])

    def count(self, events: EventColumns, watermark_ms: int) -> None:
        """Count a batch; spans that were over before ``watermark_ms`` are left alone."""
        at = 0
        while at < len(events.ts_ms):
            at = count_events(self.tables, events, BOUNDARIES, watermark_ms, at)
            if at < len(events.ts_ms):
                self._grow()

    def changed_blocks(self) -> NDArray[np.int64]:
        """Rows of the spans that changed since they were published."""
        return np.flatnonzero(self.tables.spans["dirty"][: self.tables.used[SPANS]])

    def published(self, spans: NDArray[np.int64]) -> None:
        """Say that these spans were handed over as they are."""
        self.tables.spans["dirty"][spans] = 0

    def forget(self, watermark_ms: int) -> None:
        """Drop the spans that are over and published, if the tables are nearly full."""
        t = self.tables
        sizes = np.array([len(t.minutes), len(t.spans), len(t.buckets)])
        if not np.any(4 * t.used[:3] > 3 * sizes):
            return
        self.rebuild(t, watermark_ms)
        used = self.tables.used[:3]
        if np.any(2 * used > [len(self.tables.minutes), len(self.tables.spans), len(self.tables.buckets)]):
            self._resize([2 * int(size) for size in used])

    def rebuild(self, before: EventTables, watermark_ms: int) -> None:
        """Fill fresh tables from others (indexes not needed) without spans that are over and published."""
        sizes = (len(before.minutes), len(before.spans), len(before.buckets))
        fresh = new_tables(*(power_of_two(size) for size in sizes))
        fresh.used[OUTDATED] = before.used[OUTDATED]
        copy_minutes(before, fresh, watermark_ms)
        self.tables = fresh

    def _grow(self) -> None:
        self._resize([int(used) + 1 for used in self.tables.used[:3]])

    def _resize(self, wanted: list[int]) -> None:
        t = self.tables
        tables = (t.minutes, t.spans, t.buckets)
        minutes, spans, buckets = (
            max(len(rows), power_of_two(size)) for rows, size in zip(tables, wanted, strict=True)
        )
        self.tables = t._replace(
            minutes=grown(t.minutes, minutes),
            minute_index=new_index(minutes),
            spans=grown(t.spans, spans),
            span_index=new_index(spans),
            buckets=grown(t.buckets, buckets),
            bucket_index=new_index(buckets),
        )
        reindex_events(self.tables)

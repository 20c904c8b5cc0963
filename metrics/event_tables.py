"""Tables of events per minute: minutes, spans of them (published whole) and buckets of dwell times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.hash_index import first_slot, hash_of, new_index
from metrics.quantiles import bucket_of
from schemas.flat_kernels import flat_kernel

MINUTE_MS = 60_000
SPAN_MINUTES = 5
"""Whatever changes in a span is published with all of it: a short one repeats little, a long one needs few keys."""
SPAN_MS = SPAN_MINUTES * MINUTE_MS
LARGEST = np.iinfo(np.int64).max

COUNTS = ("count", "amount_sum", "amounts", "cost_sum", "costs")
"""Order of EventRows.numbers."""
MINUTE = np.dtype(
    [
        ("minute", "i8"),
        *((name, "i8") for name in COUNTS),
        ("campaign", "i4"),
        ("channel", "i4"),
        ("event", "i4"),
        ("span", "i4"),
        ("next", "i4"),
        ("buckets", "i4"),
    ],
    align=True,
)
"""``minute``: since 1970. ``span``: row of its block; ``next``: next row of the block, ``buckets``: first
bucket of its dwell times (both row plus one)."""
SPAN = np.dtype(
    [("span", "i8"), ("campaign", "i4"), ("event", "i4"), ("minutes", "i4"), ("dirty", "i4")], align=True
)
BUCKET = np.dtype([("count", "i8"), ("minute", "i4"), ("bucket", "i4"), ("next", "i4")], align=True)

MINUTES, SPANS, BUCKETS, OUTDATED = range(4)


class EventTables(NamedTuple):
    """The arrays; ``used`` is int64[4]: rows in use of each table, and events of spans that were over."""

    minutes: NDArray[np.void]
    minute_index: NDArray[np.int32]
    spans: NDArray[np.void]
    span_index: NDArray[np.int32]
    buckets: NDArray[np.void]
    bucket_index: NDArray[np.int32]
    used: NDArray[np.int64]


class EventColumns(NamedTuple):
    """Events of a batch: numbers of names as int32[m], int64[m] with -1 for absent."""

    ts_ms: NDArray[np.int64]
    campaign: NDArray[np.int32]
    channel: NDArray[np.int32]
    event: NDArray[np.int32]
    dwell_ms: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    cost_minor: NDArray[np.int64]


def new_tables(minutes: int, spans: int, buckets: int) -> EventTables:
    """Empty tables for so many rows, powers of two."""
    return EventTables(
        minutes=np.zeros(minutes, MINUTE),
        minute_index=new_index(minutes),
        spans=np.zeros(spans, SPAN),
        span_index=new_index(spans),
        buckets=np.zeros(buckets, BUCKET),
        bucket_index=new_index(buckets),
        used=np.zeros(4, np.int64),
    )


@flat_kernel
def span_slot(t: EventTables, span: int, campaign: int, event: int) -> int:
    """Slot of a span, or the empty one where it belongs."""
    slot = first_slot(hash_of(span, campaign, event, 0), len(t.span_index))
    while t.span_index[slot] != 0:
        row = t.spans[t.span_index[slot] - 1]
        if row.span == span and row.campaign == campaign and row.event == event:
            break
        slot = (slot + 1) & (len(t.span_index) - 1)
    return slot


@flat_kernel
def find_span(t: EventTables, span: int, campaign: int, event: int) -> int:
    """Row of a span; there must be room for one."""
    slot = span_slot(t, span, campaign, event)
    if t.span_index[slot] == 0:
        row = t.used[SPANS]
        t.used[SPANS] = row + 1
        t.span_index[slot] = row + 1
        t.spans[row].span = span
        t.spans[row].campaign = campaign
        t.spans[row].event = event
        t.spans[row].minutes = 0
        t.spans[row].dirty = 0
    found: int = t.span_index[slot] - 1
    return found


@flat_kernel
def minute_slot(t: EventTables, minute: int, campaign: int, channel: int, event: int) -> int:
    """Slot of a minute, or the empty one where it belongs."""
    slot = first_slot(hash_of(minute, campaign, channel, event), len(t.minute_index))
    while t.minute_index[slot] != 0:
        row = t.minutes[t.minute_index[slot] - 1]
        if (
            row.minute == minute
            and row.campaign == campaign
            and row.channel == channel
            and row.event == event
        ):
            break
        slot = (slot + 1) & (len(t.minute_index) - 1)
    return slot


@flat_kernel
def find_minute(t: EventTables, minute: int, campaign: int, channel: int, event: int) -> int:
    """Row of a minute; there must be room for one and for a span."""
    slot = minute_slot(t, minute, campaign, channel, event)
    if t.minute_index[slot] == 0:
        span = find_span(t, minute // SPAN_MINUTES, campaign, event)
        row = t.used[MINUTES]
        t.used[MINUTES] = row + 1
        t.minute_index[slot] = row + 1
        added = t.minutes[row]
        added.minute = minute
        added.campaign = campaign
        added.channel = channel
        added.event = event
        added.count = 0
        added.amount_sum = 0
        added.amounts = 0
        added.cost_sum = 0
        added.costs = 0
        added.buckets = 0
        added.span = span
        added.next = t.spans[span].minutes
        t.spans[span].minutes = row + 1
    found: int = t.minute_index[slot] - 1
    return found


@flat_kernel
def bucket_slot(t: EventTables, minute: int, bucket: int) -> int:
    """Slot of a bucket of a minute's row, or the empty one where it belongs."""
    slot = first_slot(hash_of(minute, bucket, 0, 0), len(t.bucket_index))
    while t.bucket_index[slot] != 0:
        row = t.buckets[t.bucket_index[slot] - 1]
        if row.minute == minute and row.bucket == bucket:
            break
        slot = (slot + 1) & (len(t.bucket_index) - 1)
    return slot


@flat_kernel
def add_to_bucket(t: EventTables, minute: int, bucket: int, count: int) -> None:
    """Count dwell times in a bucket of a minute's row; there must be room for one."""
    slot = bucket_slot(t, minute, bucket)
    if t.bucket_index[slot] == 0:
        row = t.used[BUCKETS]
        t.used[BUCKETS] = row + 1
        t.bucket_index[slot] = row + 1
        t.buckets[row].count = 0
        t.buckets[row].minute = minute
        t.buckets[row].bucket = bucket
        t.buckets[row].next = t.minutes[minute].buckets
        t.minutes[minute].buckets = row + 1
    t.buckets[t.bucket_index[slot] - 1].count += count


@flat_kernel
def capped_sum(total: int, amount: int) -> int:
    """Add numbers that are not negative, as far as int64 goes."""
    return total + amount if amount <= LARGEST - total else LARGEST


@flat_kernel
def count_events(
    t: EventTables, events: EventColumns, bounds: NDArray[np.int64], watermark_ms: int, at: int
) -> int:
    """Count rows from ``at`` on; return the first one for which there is no room, or the number of rows."""
    for i in range(at, len(events.ts_ms)):
        if (
            t.used[MINUTES] == len(t.minutes)
            or t.used[SPANS] == len(t.spans)
            or t.used[BUCKETS] == len(t.buckets)
        ):
            return i
        minute = events.ts_ms[i] // MINUTE_MS
        if (minute // SPAN_MINUTES + 1) * SPAN_MS <= watermark_ms:
            t.used[OUTDATED] += 1
            continue
        at_row = find_minute(t, minute, events.campaign[i], events.channel[i], events.event[i])
        row = t.minutes[at_row]
        t.spans[row.span].dirty = 1
        row.count += 1
        if events.amount_minor[i] >= 0:
            row.amount_sum = capped_sum(row.amount_sum, events.amount_minor[i])
            row.amounts += 1
        if events.cost_minor[i] >= 0:
            row.cost_sum = capped_sum(row.cost_sum, events.cost_minor[i])
            row.costs += 1
        if events.dwell_ms[i] >= 0:
            add_to_bucket(t, at_row, bucket_of(bounds, events.dwell_ms[i]), 1)
    return len(events.ts_ms)


@flat_kernel
def reindex_events(t: EventTables) -> None:
    """Fill empty indexes."""
    for i in range(t.used[MINUTES]):
        row = t.minutes[i]
        t.minute_index[minute_slot(t, row.minute, row.campaign, row.channel, row.event)] = i + 1
    for i in range(t.used[SPANS]):
        t.span_index[span_slot(t, t.spans[i].span, t.spans[i].campaign, t.spans[i].event)] = i + 1
    for i in range(t.used[BUCKETS]):
        t.bucket_index[bucket_slot(t, t.buckets[i].minute, t.buckets[i].bucket)] = i + 1


@flat_kernel
def copy_minutes(before: EventTables, fresh: EventTables, watermark_ms: int) -> None:
    """Enter the spans that are not both over and published."""
    for i in range(before.used[MINUTES]):
        row = before.minutes[i]
        span = before.spans[row.span]
        if (span.span + 1) * SPAN_MS <= watermark_ms and span.dirty == 0:
            continue
        at = find_minute(fresh, row.minute, row.campaign, row.channel, row.event)
        copied = fresh.minutes[at]
        copied.count = row.count
        copied.amount_sum = row.amount_sum
        copied.amounts = row.amounts
        copied.cost_sum = row.cost_sum
        copied.costs = row.costs
        fresh.spans[copied.span].dirty = span.dirty
        link = row.buckets
        while link != 0:
            add_to_bucket(fresh, at, before.buckets[link - 1].bucket, before.buckets[link - 1].count)
            link = before.buckets[link - 1].next

"""From tables to blocks: rows by name, in an order that depends on names alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metrics.definitions import MetricPlan
from metrics.distinct_users import DistinctUsers
from metrics.event_counts import EventCounts
from metrics.event_tables import COUNTS, HOUR_MS
from metrics.names import Names
from schemas.config_blocks import WHOLE_CAMPAIGN
from schemas.partials import (
    EVENTS,
    FUNNEL,
    ONE_CAMPAIGN,
    TOTAL,
    BlockKey,
    DauRows,
    EventRows,
    FunnelRows,
    encode_rows,
)

EVENT_WINDOW = "1h"


def row_order(dim: str, value: str | None) -> tuple[bool, str, bool, str]:
    """Order of rows: totals first, then by dimension and value, absent values first."""
    return dim != TOTAL, dim, value is not None, value or ""


def block_order(key: BlockKey) -> tuple[str, str, str, str, bool, str, int]:
    """Order of blocks: by metric, name, window, scope, campaign (absent first) and start."""
    start_ms = -1 if key.start_ms is None else key.start_ms
    campaign = key.campaign
    return key.metric, key.name, key.window, key.scope, campaign is not None, campaign or "", start_ms


def users_block_key(
    groups: Sequence[tuple[str, str, str, str]], campaigns: Sequence[str | None], row: np.void
) -> BlockKey:
    """Key of a block of distinct users (a row of BLOCK)."""
    metric, name, window, scope = groups[int(row["group"])]
    start_ms = None if window == WHOLE_CAMPAIGN else int(row["start_ms"])
    return BlockKey(metric, name, window, start_ms, scope, campaigns[int(row["campaign"])])


def users_block_rows(plan: MetricPlan, users: DistinctUsers, names: Mapping[str, Names], block: int) -> bytes:
    """Rows of a block of distinct users, packed."""
    at = users.keys_of(block)
    keys = users.members.keys
    steps = plan.definitions[int(keys["definition"][at[0]])].steps
    width = max(1, len(steps))
    columns = at[:, None] + np.arange(width)
    found = []
    for number, value, gross, suspect in zip(
        keys["definition"][at].tolist(),
        keys["value"][at].tolist(),
        keys["gross"][columns].tolist(),
        keys["suspect"][columns].tolist(),
        strict=True,
    ):
        definition = plan.definitions[number]
        text = None if definition.field is None else names[definition.field].names[value]
        found.append((definition.dim, text, gross, suspect))
    found.sort(key=lambda row: row_order(row[0], row[1]))
    if plan.groups[int(users.members.blocks[block]["group"])][0] == FUNNEL:
        return encode_rows(FunnelRows(steps, found))
    return encode_rows(DauRows([(dim, text, gross[0], suspect[0]) for dim, text, gross, suspect in found]))


def event_block_key(counts: EventCounts, names: Mapping[str, Names], hour: int) -> BlockKey:
    """Key of an hour of one event name in one campaign."""
    row = counts.tables.hours[hour]
    return BlockKey(
        metric=EVENTS,
        name=names["event"].names[int(row["event"])] or "",
        window=EVENT_WINDOW,
        start_ms=int(row["hour"]) * HOUR_MS,
        scope=ONE_CAMPAIGN,
        campaign=names["campaign"].names[int(row["campaign"])],
    )


def event_block_rows(counts: EventCounts, names: Mapping[str, Names], hour: int) -> bytes:
    """Rows of an hour, packed."""
    t = counts.tables
    at = counts.minutes_of(hour)
    channel_names = names["channel"].names
    numbers, channel = np.unique(t.minutes["channel"][at], return_inverse=True)
    channels = [channel_names[number] for number in numbers.tolist()]
    ranked = sorted(range(len(channels)), key=lambda i: row_order("", channels[i]))
    rank = np.empty(len(channels), np.uint16)
    rank[ranked] = np.arange(len(channels))
    order = np.lexsort((rank[channel], t.minutes["minute"][at]))
    at, ranks = at[order], rank[channel[order]]
    owners, buckets = counts.buckets_of(at)
    by_bucket = np.lexsort((t.buckets["bucket"][buckets], owners))
    owners, buckets = owners[by_bucket], buckets[by_bucket]
    return encode_rows(
        EventRows(
            channels=[channels[i] for i in ranked],
            minute=(t.minutes["minute"][at] % 60).astype("u1").tobytes(),
            channel=ranks.astype("<u2").tobytes(),
            numbers=np.stack([t.minutes[name][at] for name in COUNTS]).astype("<i8").tobytes(),
            histogram_row=owners.astype("<u4").tobytes(),
            bucket=t.buckets["bucket"][buckets].astype("<u2").tobytes(),
            bucket_count=t.buckets["count"][buckets].astype("<i8").tobytes(),
        )
    )

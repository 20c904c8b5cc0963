"""From tables to blocks: rows by name, in an order that depends on names alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from metrics.definitions import MetricPlan
from metrics.distinct_users import DistinctUsers
from metrics.names import Names
from metrics.sampling import variance
from schemas.config_blocks import WHOLE_CAMPAIGN
from schemas.partials import FUNNEL, TOTAL, BlockKey, DauRows, FunnelRows, encode_rows


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
    levels = keys["level"][columns]
    gross_columns, suspect_columns = (keys[name][columns] << levels for name in ("gross", "suspect"))
    # Python's integers: a variance can be larger than 2^63.
    variances = [
        list(map(variance, *row)) for row in zip(gross_columns.tolist(), levels.tolist(), strict=True)
    ]
    for number, value, gross, suspect, varies in zip(
        keys["definition"][at].tolist(),
        keys["value"][at].tolist(),
        gross_columns.tolist(),
        suspect_columns.tolist(),
        variances,
        strict=True,
    ):
        definition = plan.definitions[number]
        text = None if definition.field is None else names[definition.field].names[value]
        found.append(((definition.dim, text, gross, suspect), varies))
    found.sort(key=lambda row: row_order(*row[0][:2]))
    rows, estimated = [row for row, _ in found], bool(levels.any())
    if plan.groups[int(users.members.blocks[block]["group"])][0] == FUNNEL:
        return encode_rows(FunnelRows(steps, rows, [varies for _, varies in found] if estimated else []))
    days = [(dim, text, gross[0], suspect[0]) for dim, text, gross, suspect in rows]
    return encode_rows(DauRows(days, [varies[0] for _, varies in found] if estimated else []))

"""The newest blocks of all sources under one key, added up, and their rows as columns of a metric table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import pyarrow as pa

from metrics.block_rows import row_order
from metrics.definitions import DAY_MS
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.partials import (
    ALL_CAMPAIGNS,
    DAU,
    RETENTION,
    TOTAL,
    Block,
    BlockKey,
    DauRows,
    FunnelRows,
    RetentionRows,
    decode_rows,
)

RecordBatch: TypeAlias = Any
"""A pyarrow.RecordBatch; pyarrow has no types."""
UserRow: TypeAlias = tuple[str, str | None, int, str, int, int, float]
"""dim, dim_value, step (0 where there are none; of retention the day), step_name, gross, suspect, error."""
_Sums: TypeAlias = list[list[int]]
"""gross, suspect and variance of gross, by step."""


def merge_users(blocks: Sequence[Block]) -> list[UserRow]:
    """Add up DAU, funnel or retention blocks of one key from several sources.

    Users belong to one source each, so sums of distinct users are distinct users. Sources that still count an
    older definition of a funnel, with other steps, are left out: the newest turn says which steps are meant.
    """
    newest_first = sorted(blocks, key=lambda block: (-block.turn, block.source))
    if blocks[0].key.metric == RETENTION:
        return _merge_retention(newest_first)
    sums: dict[tuple[str, str | None], _Sums] = {}
    steps: tuple[str, ...] = ()
    for rows in (decode_rows(block) for block in newest_first):
        if isinstance(rows, DauRows):
            for (dim, value, *day), varies in zip(rows.rows, rows.variances or repeat(0), strict=False):
                _add(sums, (dim, value), [[count] for count in (*day, varies)])
        elif isinstance(rows, FunnelRows):
            steps = steps or rows.steps
            exact = [0] * len(rows.steps)
            named = rows.rows if rows.steps == steps else []
            for (dim, value, *by_step), steps_vary in zip(
                named, rows.variances or repeat(exact), strict=False
            ):
                _add(sums, (dim, value), [*by_step, steps_vary])
    return [
        (
            dim,
            value,
            step + 1 if steps else 0,
            steps[step] if steps else "",
            gross,
            suspect,
            _error(gross, varies),
        )
        for dim, value in sorted(sums, key=lambda place: row_order(*place))
        for step, (gross, suspect, varies) in enumerate(zip(*sums[dim, value], strict=True))
    ]


def _merge_retention(newest_first: Sequence[Block]) -> list[UserRow]:
    """Rows of one cohort; days on which nobody was seen have none.

    Sources that still follow cohorts for another number of days are left out: the newest turn says how many.
    """
    days: list[Sequence[int]] = []
    for rows in (decode_rows(block) for block in newest_first):
        if isinstance(rows, RetentionRows) and rows.gross:
            exact = [0] * len(rows.gross)
            added = list(zip(rows.gross, rows.suspect, rows.variances or exact, strict=True))
            if not days:
                days = [(0, 0, 0)] * len(added)
            if len(days) == len(added):
                days = [
                    tuple(map(sum, zip(total, more, strict=True)))
                    for total, more in zip(days, added, strict=True)
                ]
    dim = ALL_CAMPAIGNS if newest_first[0].key.scope == ALL_CAMPAIGNS else TOTAL
    return [
        (dim, None, day, "", gross, suspect, _error(gross, varies))
        for day, (gross, suspect, varies) in enumerate(days)
        if gross
    ]


def _error(gross: int, varies: int) -> float:
    """One standard error as a share of the estimate (of one user, if it is 0); 0 where the count is exact."""
    return math.sqrt(varies) / max(gross, 1)


def _add(
    sums: dict[tuple[str, str | None], _Sums], place: tuple[str, str | None], counts: Sequence[Sequence[int]]
) -> None:
    if place not in sums:
        sums[place] = [list(by_step) for by_step in counts]
        return
    for total, added in zip(sums[place], counts, strict=True):
        for step, users in enumerate(added):
            total[step] += users


def user_batch(metric: str, rows: Sequence[tuple[BlockKey, UserRow]]) -> RecordBatch:
    """Rows of DAU, funnels or retention as columns of their table."""
    columns: dict[str, list[Any]] = {
        "campaign": [key.campaign for key, _ in rows],
        "dim": [row[0] for _, row in rows],
        "dim_value": [row[1] for _, row in rows],
        "users_gross": [row[4] for _, row in rows],
        "users_suspect": [row[5] for _, row in rows],
        "users_clean": [row[4] - row[5] for _, row in rows],
        "error": [row[6] for _, row in rows],
    }
    if metric == DAU:
        columns["date"] = [(key.start_ms or 0) // DAY_MS for key, _ in rows]
    elif metric == RETENTION:
        columns["cohort_date"] = [(key.start_ms or 0) // DAY_MS for key, _ in rows]
        columns["day"] = [row[2] for _, row in rows]
        columns["users"] = columns["users_gross"]
    else:
        columns["funnel"] = [key.name for key, _ in rows]
        columns["window"] = [key.window for key, _ in rows]
        columns["window_start"] = [key.start_ms for key, _ in rows]
        columns["step"] = [row[2] for _, row in rows]
        columns["step_name"] = [row[3] for _, row in rows]
    return table_batch(metric, columns)


def table_batch(metric: str, columns: Mapping[str, Any]) -> RecordBatch:
    """Columns by name as rows of a metric table."""
    schema = METRIC_SCHEMAS[metric]
    arrays = []
    for field in schema:
        column = columns[field.name]
        plain = pa.int32() if pa.types.is_date(field.type) else field.type
        array = column if isinstance(column, pa.Array) else pa.array(column, plain)
        arrays.append(array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

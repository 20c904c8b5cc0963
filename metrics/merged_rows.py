"""The newest blocks of all sources under one key, added up, and their rows as columns of a metric table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from metrics.block_rows import row_order
from metrics.definitions import DAY_MS
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.partials import DAU, Block, BlockKey, DauRows, FunnelRows, decode_rows

RecordBatch: TypeAlias = Any
"""A pyarrow.RecordBatch; pyarrow has no types."""
UserRow: TypeAlias = tuple[str, str | None, int, str, int, int]
"""dim, dim_value, step (0 where there are none), step_name, gross, suspect."""


def merge_users(blocks: Sequence[Block]) -> list[UserRow]:
    """Add up DAU or funnel blocks of one key from several sources.

    Users belong to one source each, so sums of distinct users are distinct users. Sources that still count an
    older definition of a funnel, with other steps, are left out: the newest turn says which steps are meant.
    """
    newest_first = sorted(blocks, key=lambda block: (-block.turn, block.source))
    sums: dict[tuple[str, str | None], tuple[list[int], list[int]]] = {}
    steps: tuple[str, ...] = ()
    for rows in (decode_rows(block) for block in newest_first):
        if isinstance(rows, DauRows):
            for dim, value, gross, suspect in rows.rows:
                _add(sums, (dim, value), [gross], [suspect])
        elif isinstance(rows, FunnelRows):
            steps = steps or rows.steps
            for dim, value, gross_by_step, suspect_by_step in rows.rows if rows.steps == steps else ():
                _add(sums, (dim, value), gross_by_step, suspect_by_step)
    return [
        (dim, value, step + 1 if steps else 0, steps[step] if steps else "", gross, suspect)
        for dim, value in sorted(sums, key=lambda place: row_order(*place))
        for step, (gross, suspect) in enumerate(zip(*sums[dim, value], strict=True))
    ]


def _add(
    sums: dict[tuple[str, str | None], tuple[list[int], list[int]]],
    place: tuple[str, str | None],
    gross: Sequence[int],
    suspect: Sequence[int],
) -> None:
    if place not in sums:
        sums[place] = (list(gross), list(suspect))
        return
    for total, added in zip(sums[place], (gross, suspect), strict=True):
        for step, users in enumerate(added):
            total[step] += users


def user_batch(metric: str, rows: Sequence[tuple[BlockKey, UserRow]]) -> RecordBatch:
    """Rows of DAU or funnels as columns of their table."""
    columns: dict[str, list[Any]] = {
        "campaign": [key.campaign for key, _ in rows],
        "dim": [row[0] for _, row in rows],
        "dim_value": [row[1] for _, row in rows],
        "users_gross": [row[4] for _, row in rows],
        "users_suspect": [row[5] for _, row in rows],
        "users_clean": [row[4] - row[5] for _, row in rows],
        "error": [0.0] * len(rows),
    }
    if metric == DAU:
        columns["date"] = [(key.start_ms or 0) // DAY_MS for key, _ in rows]
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

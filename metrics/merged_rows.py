"""The newest blocks of all sources under one key, added up, and their rows as columns of a metric table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metrics.block_rows import row_order
from metrics.definitions import DAY_MS
from metrics.event_tables import LARGEST, MINUTE_MS
from metrics.quantiles import quantiles
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.partials import (
    DAU,
    EVENTS,
    Block,
    BlockKey,
    DauRows,
    EventRows,
    FunnelRows,
    decode_rows,
)

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
    return _batch(metric, columns)


def merge_events(key: BlockKey, blocks: Sequence[Block]) -> RecordBatch:
    """Add up the minutes of one hour of one event from several sources, as columns of their table."""
    decoded = [rows for block in blocks if isinstance(rows := decode_rows(block), EventRows)]
    channels = sorted(
        {name for rows in decoded for name in rows.channels}, key=lambda name: row_order("", name)
    )
    number = {name: i for i, name in enumerate(channels)}
    places = [_places(rows, number) for rows in decoded]
    found = np.unique(np.concatenate([np.zeros(0, np.int64), *places]))
    numbers = np.zeros((5, len(found)), np.int64)
    histograms = [np.zeros((2, 0), np.int64)]
    for rows, place in zip(decoded, places, strict=True):
        at = np.searchsorted(found, place)
        added = np.frombuffer(rows.numbers, "<i8").reshape(5, len(place))
        held = numbers[:, at]
        numbers[:, at] = held + np.minimum(added, LARGEST - held)
        row = at[np.frombuffer(rows.histogram_row, "<u4")]
        bucket = row * _BUCKETS + np.frombuffer(rows.bucket, "<u2")
        histograms.append(np.stack((bucket, np.frombuffer(rows.bucket_count, "<i8"))))
    columns = _event_columns(key, found, channels, numbers)
    columns |= _dwell_columns(np.concatenate(histograms, axis=1), len(found))
    return _batch(EVENTS, columns)


_BUCKETS = 1 << 16


def _places(rows: EventRows, number: Mapping[str | None, int]) -> NDArray[np.int64]:
    """(minute, channel) of each row as one number that orders them."""
    minute = np.frombuffer(rows.minute, "u1").astype(np.int64)
    numbers = np.array([number[name] for name in rows.channels], np.int64)
    places: NDArray[np.int64] = minute * _BUCKETS + numbers[np.frombuffer(rows.channel, "<u2")]
    return places


def _event_columns(
    key: BlockKey, places: NDArray[np.int64], channels: Sequence[str | None], numbers: NDArray[np.int64]
) -> dict[str, Any]:
    names = pa.array(channels, pa.string())
    return {
        "window_start": (key.start_ms or 0) + places // _BUCKETS * MINUTE_MS,
        "campaign": [key.campaign] * len(places),
        "channel": names.take(pa.array(places % _BUCKETS)),
        "event": [key.name] * len(places),
        "count": numbers[0],
        "amount_minor_sum": numbers[1],
        "cost_minor_sum": numbers[3],
    }


def _dwell_columns(histograms: NDArray[np.int64], rows: int) -> dict[str, Any]:
    places, at = np.unique(histograms[0], return_inverse=True)
    counts = np.zeros(len(places), np.int64)
    np.add.at(counts, at, histograms[1])
    row, bucket = places // _BUCKETS, places % _BUCKETS
    totals = np.zeros(rows, np.int64)
    np.add.at(totals, row, counts)
    columns: dict[str, Any] = {"dwell_count": totals}
    for percent in (50, 90, 99):
        values = quantiles(row, bucket, counts, rows, percent)
        columns[f"dwell_p{percent}"] = pa.array(values, pa.float64(), from_pandas=True)
    return columns


def _batch(metric: str, columns: Mapping[str, Any]) -> RecordBatch:
    schema = METRIC_SCHEMAS[metric]
    arrays = []
    for field in schema:
        column = columns[field.name]
        plain = pa.int32() if pa.types.is_date(field.type) else field.type
        array = column if isinstance(column, pa.Array) else pa.array(column, plain)
        arrays.append(array.cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)

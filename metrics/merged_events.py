"""Events per minute of all sources, added up: any number of blocks in one pass, as columns of their table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metrics.block_rows import row_order
from metrics.event_tables import COUNTS, LARGEST, MINUTE_MS
from metrics.merged_rows import RecordBatch, table_batch
from metrics.quantiles import quantiles
from schemas.partials import EVENTS, Block, BlockKey, EventRows, decode_rows

_BUCKETS = 1 << 16
_CHANNEL_BITS, _MINUTE_BITS = 24, 8
"""Channels of 1,024 sources, minutes of four hours, and 2^31 keys."""


class MergedEvents(NamedTuple):
    """The rows, and int64[keys + 1]: where those of each key begin, and the end."""

    rows: RecordBatch
    bounds: NDArray[np.int64]


class _Columns(NamedTuple):
    """Rows of all blocks under each other.

    ``places`` int64[n]: key, minute and channel as one number that orders them; ``numbers`` int64[n, 5];
    ``histogram`` int64[3, h]: row, bucket, count; ``source_ends``: where the rows of each source end.
    """

    places: NDArray[np.int64]
    numbers: NDArray[np.int64]
    histogram: NDArray[np.int64]
    source_ends: list[int]


def merge_events(keys: Sequence[BlockKey], blocks: Sequence[Sequence[Block]]) -> MergedEvents:
    """Add up blocks of several sources.

    Parameters
    ----------
    keys
        In the order of the table.
    blocks
        Of each key, one of each source that has any.
    """
    by_source = sorted(
        ((block.source, number, block) for number, group in enumerate(blocks) for block in group),
        key=lambda one: one[:2],
    )
    decoded = [cast("EventRows", decode_rows(block)) for _, _, block in by_source]
    channels = sorted({name for rows in decoded for name in rows.channels}, key=lambda n: row_order("", n))
    columns = _under_each_other(
        decoded,
        sources=np.array([source for source, _, _ in by_source], np.int64),
        keys=np.array([number for _, number, _ in by_source], np.int64),
        channels={name: i for i, name in enumerate(channels)},
    )
    places, at = np.unique(columns.places, return_inverse=True)
    numbers = np.zeros((len(places), len(COUNTS)), np.int64)
    first = 0
    for end in columns.source_ends:  # within a source, no place comes twice
        held, added = numbers[at[first:end]], columns.numbers[first:end]
        numbers[at[first:end]] = held + np.minimum(added, LARGEST - held)
        first = end
    key_of_row = places >> (_CHANNEL_BITS + _MINUTE_BITS)
    named = _event_columns(keys, key_of_row, places, channels)
    named |= {"count": numbers[:, 0], "amount_minor_sum": numbers[:, 1], "cost_minor_sum": numbers[:, 3]}
    row, bucket, count = columns.histogram
    named |= _dwell_columns(at[row] * _BUCKETS + bucket, count, len(places))
    bounds: NDArray[np.int64] = np.searchsorted(key_of_row, np.arange(len(keys) + 1))
    return MergedEvents(table_batch(EVENTS, named), bounds)


def _under_each_other(
    decoded: Sequence[EventRows],
    *,
    sources: NDArray[np.int64],
    keys: NDArray[np.int64],
    channels: Mapping[str | None, int],
) -> _Columns:
    """Join the columns of blocks; numbers that count within a block become numbers of all."""
    lengths = np.array([len(rows.minute) for rows in decoded], np.int64)
    sizes = np.array([len(rows.bucket) // 2 for rows in decoded], np.int64)
    names = np.array([len(rows.channels) for rows in decoded], np.int64)
    block, bucket_block = (
        np.repeat(np.arange(len(decoded)), lengths),
        np.repeat(np.arange(len(decoded)), sizes),
    )
    first_row, first_name = np.cumsum(lengths) - lengths, np.cumsum(names) - names
    number = np.array([channels[name] for rows in decoded for name in rows.channels], np.int64)
    channel = number[first_name[block] + _joined((rows.channel for rows in decoded), "<u2")]
    minute = _joined((rows.minute for rows in decoded), "u1")
    row = first_row[bucket_block] + _joined((rows.histogram_row for rows in decoded), "<u4")
    bucket = _joined((rows.bucket for rows in decoded), "<u2")
    count = _joined((rows.bucket_count for rows in decoded), "<i8")
    ends = np.cumsum(lengths)[np.flatnonzero(np.diff(sources, append=-1))]
    return _Columns(
        places=(keys[block] << (_CHANNEL_BITS + _MINUTE_BITS)) | (minute << _CHANNEL_BITS) | channel,
        numbers=_joined((rows.numbers for rows in decoded), "<i8").reshape(-1, len(COUNTS)),
        histogram=np.stack((row, bucket, count)),
        source_ends=ends.tolist(),
    )


def _joined(parts: Iterable[bytes], dtype: str) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(parts), dtype).astype(np.int64)


def _event_columns(
    keys: Sequence[BlockKey],
    key_of_row: NDArray[np.int64],
    places: NDArray[np.int64],
    channels: Sequence[str | None],
) -> dict[str, Any]:
    starts_ms = np.array([key.start_ms or 0 for key in keys], np.int64)
    minute = (places >> _CHANNEL_BITS) & ((1 << _MINUTE_BITS) - 1)
    of_key = pa.array(key_of_row)
    return {
        "window_start": starts_ms[key_of_row] + minute * MINUTE_MS,
        "campaign": pa.array([key.campaign for key in keys], pa.string()).take(of_key),
        "channel": pa.array(channels, pa.string()).take(pa.array(places & ((1 << _CHANNEL_BITS) - 1))),
        "event": pa.array([key.name for key in keys], pa.string()).take(of_key),
    }


def _dwell_columns(places: NDArray[np.int64], counts: NDArray[np.int64], rows: int) -> dict[str, Any]:
    """Quantiles of each row; ``places`` is row and bucket as one number, and may come once from each source."""
    found, at = np.unique(places, return_inverse=True)
    summed = np.zeros(len(found), np.int64)
    np.add.at(summed, at, counts)
    row, bucket = found // _BUCKETS, found % _BUCKETS
    totals = np.zeros(rows, np.int64)
    np.add.at(totals, row, summed)
    columns: dict[str, Any] = {"dwell_count": totals}
    for percent in (50, 90, 99):
        values = quantiles(row, bucket, summed, rows, percent)
        columns[f"dwell_p{percent}"] = pa.array(values, pa.float64(), from_pandas=True)
    return columns

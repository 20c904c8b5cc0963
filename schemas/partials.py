"""Partial counts on their way from a judge to the rollup: absolute values, so a repeated one changes nothing.

A block is everything that one judge partition knows of one metric in one window of one campaign. It replaces
the block of the same key from the same source when its turn is newer. Its rows are msgpack of one of the
Structs below; a block whose rows are empty says that the source counts nothing under that key any more.
"""

from __future__ import annotations

import msgspec

FUNNEL, DAU, EVENTS, RETENTION = "funnel", "dau", "events", "retention"
KPI, KPI_PROGRESS, KPI_STATE = "kpi", "kpi_progress", "kpi_state"
"""What KPI alerts need, no metrics of their own: counts by window, how far each source is, and what was decided.
Their ``scope`` is what is counted, so that an alert that means something else now never reads old counts."""
KPI_METRICS = (KPI, KPI_PROGRESS, KPI_STATE)
ONE_CAMPAIGN, ALL_CAMPAIGNS = "campaign", "all_campaigns"
"""Scopes; the second is also the name of its only dimension."""
TOTAL = "all"
"""The dimension that everybody is in."""


class BlockKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What is counted. ``start_ms`` None: the window is ``all``. ``campaign`` None: events without one.

    ``name`` is the funnel's name, the event's name for events, empty for DAU and retention. The start of a day of DAU,
    and of a cohort, is the midnight of its date in UTC, also where the campaign's dates follow another time zone.
    ``scope`` is ``campaign`` for a campaign's own numbers and ``all_campaigns`` for the product's total.
    """

    metric: str
    name: str
    window: str
    start_ms: int | None
    scope: str
    campaign: str | None


class Block(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Absolute counts of one source under one key, as of a turn; ``rows`` is of the metric's shape."""

    key: BlockKey
    source: int
    turn: int
    rows: bytes


class DauRows(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Rows (dim, dim_value, gross, suspect); ``variances`` of gross, by row, where some are estimated, else empty."""

    rows: list[tuple[str, str | None, int, int]]
    variances: list[int] = []


class FunnelRows(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Names of the steps, and rows (dim, dim_value, gross by step, suspect by step).

    ``variances``: of gross, by row and step, where some are estimated, else empty.
    """

    steps: tuple[str, ...]
    rows: list[tuple[str, str | None, list[int], list[int]]]
    variances: list[list[int]] = []


class EventRows(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Some minutes of one event as little-endian columns, n rows ordered by minute, then channel.

    Parameters
    ----------
    channels
        Names that ``channel`` numbers; None is events without one.
    minute, channel
        uint8[n], minutes since the start of the block; uint16[n], index into ``channels``.
    numbers
        int64[n, 5]: count, amount_minor sum, events with an amount, cost_minor sum, events with a cost.
        Sums stop at 2^63 - 1.
    histogram_row, bucket, bucket_count
        uint32[h], uint16[h], int64[h]: how many dwell times of a row fell into a bucket
        (:mod:`metrics.quantiles`), ordered by row, then bucket.
    """

    channels: list[str | None]
    minute: bytes
    channel: bytes
    numbers: bytes
    histogram_row: bytes
    bucket: bytes
    bucket_count: bytes


class RetentionRows(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Users of one cohort by day, from day 0; ``variances`` of gross where some are estimated, else empty."""

    gross: list[int]
    suspect: list[int]
    variances: list[int] = []


class KpiRows(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Rows (dim_value, gross, suspect): counts by place.

    A place is 0 or 1 for the steps of a rate, 0 for users, events and sums, and the bucket of
    :mod:`metrics.quantiles` for dwell times.
    """

    rows: list[tuple[str | None, dict[int, int], dict[int, int]]]


class KpiProgress(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Of each topic that the source reads: largest event time in ms (None: no event yet), and whether it is idle.

    Idle: everything that stands in the topic was read, a while ago.
    """

    topics: list[tuple[int | None, bool]]


Rows = DauRows | FunnelRows | EventRows | RetentionRows | KpiRows | KpiProgress

# Made here, for msgspec crashes when two threads are the first to use one type at the same time.
_DECODERS: dict[str, msgspec.msgpack.Decoder[Rows]] = {
    metric: msgspec.msgpack.Decoder(shape)
    for metric, shape in (
        (DAU, DauRows),
        (FUNNEL, FunnelRows),
        (EVENTS, EventRows),
        (RETENTION, RetentionRows),
        (KPI, KpiRows),
        (KPI_PROGRESS, KpiProgress),
    )
}
_ENCODER = msgspec.msgpack.Encoder()


def encode_rows(rows: Rows) -> bytes:
    """Pack the rows of a block."""
    return _ENCODER.encode(rows)


def empty_rows(metric: str) -> bytes:
    """Rows of a block that counts nothing any more."""
    if metric == DAU:
        return encode_rows(DauRows([]))
    if metric == RETENTION:
        return encode_rows(RetentionRows([], []))
    if metric == FUNNEL:
        return encode_rows(FunnelRows((), []))
    return encode_rows(EventRows([], b"", b"", b"", b"", b"", b""))


def decode_rows(block: Block) -> Rows:
    """Unpack the rows of a block.

    Raises
    ------
    msgspec.DecodeError
        The bytes are not what the block's metric says.
    """
    return _DECODERS[block.key.metric].decode(block.rows)

"""Arrow schemas of the metric tables, by the name of the metric (CONTRACT 3)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import pyarrow as pa

from schemas.partials import DAU, EVENTS, FUNNEL, RETENTION

Schema: TypeAlias = Any
"""A pyarrow.Schema; pyarrow has no types."""

_MOMENT = pa.timestamp("ms", tz="UTC")
_USERS = (
    ("users_gross", pa.int64()),
    ("users_suspect", pa.int64()),
    ("users_clean", pa.int64()),
    ("error", pa.float64()),
)

METRIC_SCHEMAS: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        FUNNEL: pa.schema(
            [
                ("campaign", pa.string()),
                ("funnel", pa.string()),
                ("window", pa.string()),
                ("window_start", _MOMENT),
                ("dim", pa.string()),
                ("dim_value", pa.string()),
                ("step", pa.int32()),
                ("step_name", pa.string()),
                *_USERS,
            ]
        ),
        DAU: pa.schema(
            [
                ("date", pa.date32()),
                ("campaign", pa.string()),
                ("dim", pa.string()),
                ("dim_value", pa.string()),
                *_USERS,
            ]
        ),
        EVENTS: pa.schema(
            [
                ("window_start", _MOMENT),
                ("campaign", pa.string()),
                ("channel", pa.string()),
                ("event", pa.string()),
                ("count", pa.int64()),
                ("dwell_p50", pa.float64()),
                ("dwell_p90", pa.float64()),
                ("dwell_p99", pa.float64()),
                ("dwell_count", pa.int64()),
                ("amount_minor_sum", pa.int64()),
                ("cost_minor_sum", pa.int64()),
            ]
        ),
        RETENTION: pa.schema(
            [
                ("cohort_date", pa.date32()),
                ("campaign", pa.string()),
                ("dim", pa.string()),
                ("day", pa.int32()),
                ("users", pa.int64()),
                *_USERS,
            ]
        ),
    }
)
"""``error`` is how wrong the users may be, 0 for exact; ``dwell_*`` are ms, null where no event has one."""

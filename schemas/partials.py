"""Partial counts on their way from a judge to the rollup: absolute values, so a repeated one changes nothing.

A block is everything that one judge partition knows of one metric in one window of one campaign. It replaces the
block of the same key from the same source when its turn is newer.
"""

from __future__ import annotations

import msgspec

FUNNEL, DAU, EVENTS = "funnel", "dau", "events"


class BlockKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is counted. ``start_ms`` None: the window is ``all``. ``campaign`` None: events without one.

    ``scope`` is ``campaign`` for a campaign's own numbers and ``all_campaigns`` for the product's total.
    """

    metric: str
    name: str
    window: str
    start_ms: int | None
    scope: str
    campaign: str | None


class Block(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Absolute counts of one source under one key, as of a turn. ``rows`` is msgpack, its shape fixed by the metric."""

    key: BlockKey
    source: int
    turn: int
    rows: bytes

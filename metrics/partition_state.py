"""Snapshots of :class:`metrics.partition_metrics.PartitionMetrics`, also for another config to take up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from metrics.block_rows import users_block_key
from metrics.definitions import CAMPAIGN_FIELD, is_campaign_date
from metrics.event_tables import BUCKET, BUCKETS, MINUTE, MINUTES, OUTDATED, SPAN, SPANS, EventTables
from metrics.funnel import FunnelCounter
from metrics.funnel_chains import STEP_EVENT
from metrics.funnel_slabs import SLAB
from metrics.hash_index import new_index
from metrics.members import BLOCKS, Members
from metrics.members_snapshot import bytes_of, packed_members, rows_of, unpacked_members
from metrics.retention import open_keys
from schemas.errors import StateError
from schemas.partials import BlockKey

if TYPE_CHECKING:
    from metrics.partition_metrics import PartitionMetrics

VERSION = 2

_KPI, _RETENTION = "kpi.", "retention."

State = Mapping[str, NDArray[Any] | bytes]


class _FunnelMeta(msgspec.Struct):
    """``counted``: identities of the definitions that its chains were counted by."""

    identity: str
    ignored: int
    counted: list[str]
    level: int = 0


class _Meta(msgspec.Struct):
    """What is not a column. ``definitions`` are identities, ``names`` the values of each field by number."""

    version: int
    turn: int
    watermark_ms: int
    restate_ms: int
    outdated: int
    definitions: list[str]
    groups: list[tuple[str, str, str, str]]
    dims: list[str]
    zones: dict[str, str]
    names: dict[str, list[str | None]]
    funnels: list[_FunnelMeta]
    since_turn: dict[str, int]
    retired: list[BlockKey]
    rows: int = 0
    newest_ms: list[int] = []
    forgotten_suspects: int = 0
    retention: str | None = None


_meta_decoder = msgspec.msgpack.Decoder(_Meta)


def take_state(metrics: PartitionMetrics) -> dict[str, NDArray[Any] | bytes]:
    """Copy the state; see :meth:`PartitionMetrics.snapshot`."""
    t = metrics.counts.tables
    names = {field: held.snapshot() for field, held in metrics.names.items()}
    meta = _Meta(
        version=VERSION,
        turn=metrics.turn,
        watermark_ms=metrics.watermark_ms,
        restate_ms=metrics.plan.restate_ms,
        outdated=metrics.counts.outdated,
        definitions=[definition.identity for definition in metrics.plan.definitions],
        groups=list(metrics.plan.groups),
        dims=list(metrics.plan.dims),
        zones=metrics.zones,
        names={field: held[0] for field, held in names.items()},
        funnels=[
            _FunnelMeta(funnel.plan.identity, funnel.ignored, _counted_by(metrics, funnel), funnel.level)
            for funnel in metrics.funnels
        ],
        since_turn=metrics.since_turn,
        retired=list(metrics.retired),
        rows=metrics.rows,
        newest_ms=metrics.newest_ms,
        forgotten_suspects=metrics.users.forgotten_suspects,
        retention=None if metrics.retention is None else metrics.retention.identity,
    )
    state: dict[str, NDArray[Any] | bytes] = {
        "meta": msgspec.msgpack.encode(meta),
        **packed_members(metrics.users.members),
        "cells": metrics.cells.snapshot(),
        "minutes": bytes_of(t.minutes[: t.used[MINUTES]]),
        "spans": bytes_of(t.spans[: t.used[SPANS]]),
        "buckets": bytes_of(t.buckets[: t.used[BUCKETS]]),
    }
    for field, (_, hashes, numbers) in names.items():
        state[f"hashes.{field}"], state[f"numbers.{field}"] = hashes, numbers
    state |= {f"{_KPI}{part}": rows for part, rows in metrics.kpis.snapshot().items()}
    if metrics.retention is not None:
        state |= {f"{_RETENTION}{part}": rows for part, rows in metrics.retention.snapshot().items()}
    for part, column in metrics.overruled.snapshot().items():
        state[f"overruled.{part}"] = column if part == "first" else column.tobytes()
    for number, funnel in enumerate(metrics.funnels):
        for part, rows in funnel.in_use().items():
            state[f"funnel.{number}.{part}"] = bytes_of(rows)
    return state


def restore_state(metrics: PartitionMetrics, state: State) -> None:
    """Take up a copy; see :meth:`PartitionMetrics.restore`."""
    meta = _decoded_meta(state)
    metrics.turn, metrics.watermark_ms = meta.turn, meta.watermark_ms
    metrics.rows, metrics.users.forgotten_suspects = meta.rows, meta.forgotten_suspects
    metrics.newest_ms = list(meta.newest_ms) or metrics.newest_ms
    for field, names in meta.names.items():
        if field in metrics.names:
            hashes, numbers = np.asarray(state[f"hashes.{field}"]), np.asarray(state[f"numbers.{field}"])
            metrics.names[field].restore(names, hashes, numbers)
    metrics.cells.restore(np.asarray(state["cells"]), tuple(meta.dims))
    metrics.since_turn = {one: meta.since_turn.get(one, meta.turn + 1) for one in metrics.identities}
    prefix = "overruled."
    if f"{prefix}flags" in state:  # a checkpoint from before labels has none
        kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        metrics.overruled.restore(kept)
    _restore_users(metrics, meta, state)
    _restore_retention(metrics, meta, state)
    _restore_funnels(metrics, meta, state)
    metrics.begin_levels()
    _restore_counts(metrics, meta, state)
    kpis = {name.removeprefix(_KPI): rows for name, rows in state.items() if name.startswith(_KPI)}
    if kpis:
        metrics.kpis.restore(kpis, meta.watermark_ms)


def _decoded_meta(state: State) -> _Meta:
    try:
        meta = _meta_decoder.decode(bytes(state["meta"]))
    except (KeyError, msgspec.DecodeError) as error:
        raise StateError("the counts of a checkpoint cannot be read by this version") from error
    if meta.version != VERSION:
        raise StateError(f"the counts of a checkpoint are of version {meta.version}: expected {VERSION}")
    return meta


def _restore_users(metrics: PartitionMetrics, meta: _Meta, state: State) -> None:
    before = unpacked_members(state)
    identities = [definition.identity for definition in metrics.plan.definitions]
    numbers = [identities.index(one) if one in identities else -1 for one in meta.definitions]
    metrics.users.rebuild(
        before,
        before_definitions=np.array(numbers, np.int32),
        keep=~_on_other_clocks(metrics, meta, before),
        watermark_ms=meta.watermark_ms,
    )
    settings = (meta.definitions, meta.restate_ms, meta.zones)
    metrics.retired = tuple(meta.retired)
    if settings != (identities, metrics.plan.restate_ms, metrics.zones):
        metrics.users.members.blocks["dirty"] = 1
        metrics.retired += _gone(metrics, meta, before)


def _on_other_clocks(metrics: PartitionMetrics, meta: _Meta, before: Members) -> NDArray[np.bool_]:
    """Which keys are dates of campaigns whose time zone is another one now."""
    campaigns = _moved_campaigns(metrics, meta)
    dates = [i for i, identity in enumerate(meta.definitions) if is_campaign_date(identity)]
    return np.isin(before.keys["definition"], dates) & np.isin(before.keys["campaign"], campaigns)


def _moved_campaigns(metrics: PartitionMetrics, meta: _Meta) -> list[int]:
    """Numbers of the campaigns whose time zone is another one now."""
    moved = {
        name
        for name in {*meta.zones, *metrics.zones}
        if meta.zones.get(name, "UTC") != metrics.zones.get(name, "UTC")
    }
    return [i for i, name in enumerate(meta.names[CAMPAIGN_FIELD]) if name in moved]


def _gone(metrics: PartitionMetrics, meta: _Meta, before: Members) -> tuple[BlockKey, ...]:
    """Blocks that could still change but that nothing defines any more."""
    m, names = metrics.users.members, meta.names[CAMPAIGN_FIELD]
    held = {users_block_key(metrics.plan.groups, names, row) for row in m.blocks[: m.used[BLOCKS]]}
    open_blocks = before.blocks[
        (before.blocks["closes_ms"] > meta.watermark_ms) | (before.blocks["dirty"] != 0)
    ]
    keys = (users_block_key(meta.groups, names, row) for row in open_blocks)
    return tuple(key for key in keys if key not in held)


def _restore_retention(metrics: PartitionMetrics, meta: _Meta, state: State) -> None:
    """Go on with the cohorts if they are followed as before; what is followed no more is handed over as empty."""
    if meta.retention is None:
        return
    kept = {
        name.removeprefix(_RETENTION): rows for name, rows in state.items() if name.startswith(_RETENTION)
    }
    names = meta.names[CAMPAIGN_FIELD]
    held: set[BlockKey] = set()
    if metrics.retention is not None and metrics.retention.identity == meta.retention:
        moved = _moved_campaigns(metrics, meta)
        publish = bool(moved) or meta.restate_ms != metrics.plan.restate_ms
        metrics.retention.restore(kept, meta.watermark_ms, moved=moved, publish=publish)
        held = metrics.retention.keys(names)
    metrics.retired += tuple(key for key in open_keys(kept, meta.watermark_ms, names) if key not in held)


def _restore_funnels(metrics: PartitionMetrics, meta: _Meta, state: State) -> None:
    kept = {funnel.identity: number for number, funnel in enumerate(meta.funnels)}
    for funnel in metrics.funnels:
        number = kept.get(funnel.plan.identity)
        if number is not None:
            funnel.restore(
                rows_of(state, f"funnel.{number}.slabs", SLAB),
                rows_of(state, f"funnel.{number}.arena", STEP_EVENT),
                ignored=meta.funnels[number].ignored,
                level=meta.funnels[number].level,
                count_again=meta.funnels[number].counted != _counted_by(metrics, funnel),
                watermark_ms=meta.watermark_ms,
            )


def _counted_by(metrics: PartitionMetrics, funnel: FunnelCounter) -> list[str]:
    plan = funnel.plan
    definitions = metrics.plan.definitions[plan.first : plan.first + plan.dims * len(plan.windows_ms)]
    return [definition.identity for definition in definitions]


def _restore_counts(metrics: PartitionMetrics, meta: _Meta, state: State) -> None:
    minutes, spans = rows_of(state, "minutes", MINUTE), rows_of(state, "spans", SPAN)
    buckets = rows_of(state, "buckets", BUCKET)
    used = np.zeros(4, np.int64)
    used[[MINUTES, SPANS, BUCKETS, OUTDATED]] = len(minutes), len(spans), len(buckets), meta.outdated
    index = new_index(1)
    before = EventTables(minutes, index, spans, index, buckets, index, used)
    metrics.counts.rebuild(before, meta.watermark_ms)

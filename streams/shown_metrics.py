"""One rollup partition: what its owner knows, and how that is shown in Redis and in the metric tables."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from detectors.incident_alerts import IncidentAlerts
from metrics.kpi import KpiAlerts
from metrics.rollup import Part, Rollup, part_of
from schemas.errors import UnreachableError
from schemas.incidents import INCIDENTS
from schemas.partials import DAU, FUNNEL, KPI_METRICS, RETENTION, Block
from sinks.metric_files import MetricFiles
from sinks.metric_redis import MetricRedis
from sinks.patience import patiently
from sinks.redis_functions import ForgottenError
from sinks.store import side_by_side
from streams.closed_days import ClosedDays

log = logging.getLogger(__name__)

_IN_REDIS = (FUNNEL, DAU, RETENTION)


@dataclass
class Owned:
    """What this process knows of one rollup partition."""

    merged: Rollup
    incidents: IncidentAlerts
    kpis: KpiAlerts
    closed_days: ClosedDays
    position: int
    """Offset of the partials up to which ``merged`` counts."""
    written: int = -1
    """Position at which every sink stands."""
    looked_s: float = field(default_factory=time.monotonic)
    """When Redis was last asked whether it still has that."""

    def put(self, block: Block) -> bool:
        """Take a block where it belongs; False when it need not be kept."""
        if block.key.metric == INCIDENTS:
            return self.incidents.put(block)
        return self.kpis.put(block) if block.key.metric in KPI_METRICS else self.merged.put(block)

    def take_up(self, block: Block) -> None:
        """Take a block that was kept."""
        if block.key.metric in KPI_METRICS:
            self.kpis.take_up(block)
        else:
            self.put(block)


@dataclass(frozen=True)
class Change:
    """What is to be shown: whole parts of tables that changed, and of those in Redis the rows that changed or went.

    ``first``: everything that is held is shown, for the first time by this owner.
    """

    first: bool
    parts: Mapping[Part, Any]
    shown: Mapping[str, Any]
    gone: Mapping[str, Any]


def change_of(merged: Rollup, *, first: bool) -> Change:
    """What changed since the last call, or (``first``) all that is held; who takes it must show it."""
    keys = merged.changed_keys()
    shown = {name: of_it for name in _IN_REDIS if (of_it := [key for key in keys if key.metric == name])}
    parts = merged.parts() if first else set(map(part_of, keys))
    return Change(
        first=first,
        parts={part: merged.table_of(part) for part in parts},
        shown={name: pa.concat_tables([merged.merged(key) for key in keys]) for name, keys in shown.items()},
        gone={name: pa.concat_tables([merged.gone(key) for key in keys]) for name, keys in shown.items()},
    )


class ShownMetrics:
    """Where the numbers of all owned partitions are shown.

    Delivery: the newest numbers, again and again; an older one never replaces a newer one.

    Parameters
    ----------
    files, redis
        The metric tables, and Redis.
    """

    def __init__(self, files: MetricFiles, redis: MetricRedis) -> None:
        self._files, self._redis = files, redis

    async def show(self, partition: int, owned: Owned, position: int, change: Change) -> None:
        """Show what changed; returns when both have it, however long that takes. Redis has it first: it is faster.

        Raises
        ------
        FencedError
            A later owner was here.
        """
        await self._show_in_redis(partition, owned, position, change)
        await self._replace_files(partition, position, change)

    async def has_forgotten(self, partition: int) -> bool:
        """Whether Redis lost what :meth:`show` has shown; not before it can be asked."""
        try:
            return await self._redis.has_forgotten(partition)
        except UnreachableError:
            return False

    async def _replace_files(self, partition: int, position: int, change: Change) -> None:
        def replace(part: Part) -> None:
            self._files.replace(part.metric, partition, position, change.parts[part], day=part.day)

        write = partial(asyncio.to_thread, side_by_side, replace, change.parts)
        await patiently("the metric tables", write)
        for metric in {part.metric for part in change.parts if change.first and part.day is not None}:
            remove = partial(asyncio.to_thread, self._files.remove_whole, metric, partition)
            await patiently("the metric tables", remove)

    async def _show_in_redis(self, partition: int, owned: Owned, position: int, change: Change) -> None:
        shown, gone = change.shown, change.gone
        if owned.written < 0:
            shown, gone = await self._take_over_redis(partition, owned, position), {}
        while True:
            write = partial(self._redis.write, partition, position, shown, gone=gone)
            try:
                await patiently("Redis", write)
                return
            except ForgottenError as error:
                log.error("%s; all numbers are shown anew", error)
                shown, gone = await self._take_over_redis(partition, owned, position), {}

    async def _take_over_redis(self, partition: int, owned: Owned, position: int) -> dict[str, Any]:
        """Become the one who shows a partition's numbers; returns all that must be shown."""
        await patiently("Redis", partial(self._redis.take_over, partition, epoch=position))
        return {name: owned.merged.table(name) for name in _IN_REDIS}

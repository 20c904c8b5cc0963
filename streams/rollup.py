"""The rollup: a second Faust app that merges what the judges count into one number per metric.

It is a process of its own because every agent of an app stands still while a table of it recovers, and judging must
not. Its table holds one absolute block per (metric, window, campaign, source): a repeated or reordered block changes
nothing, an older one is refused by its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from redis.asyncio import Redis

from metrics.rollup import Rollup
from schemas.config import Config
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.partials import Block
from sinks.metric_files import MetricFiles
from sinks.redis import MetricRedis
from streams.context import die
from streams.outputs import rollup_partition
from streams.settings import Settings
from streams.transport import TP, Batch, BatchApp, batch_agent, consumer_of, make_app

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 1.0
FLUSH_SHARE = 0.2
"""Files are replaced whole; at most this share of the time goes into it, so large tables are replaced less often."""

_TABLE = "blocks"
_blocks_decoder = msgspec.msgpack.Decoder(list[Block])
_block_decoder = msgspec.msgpack.Decoder(Block)
_encoder = msgspec.msgpack.Encoder()


def changelog_name(group: str) -> str:
    """The table's changelog topic as Faust names it; it must exist, compacted, before the app starts."""
    return f"{group}-{_TABLE}-changelog"


class RollupApp:
    """The app, its table, and the merged numbers of the partitions that this process owns."""

    def __init__(self, settings: Settings, config: Config, *, partitions: int) -> None:
        self._settings, self._config, self._partitions = settings, config, partitions
        self._merged: dict[int, Rollup] = {}
        self._positions: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._files = MetricFiles(settings.out_folder)
        self._redis = MetricRedis(Redis.from_url(settings.redis), namespace=settings.namespace)
        self._lock = asyncio.Lock()
        self._topic = settings.topic("partials")
        self.app = self._make_app()
        self._table = self.app.Table(
            _TABLE,
            partitions=partitions,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )

    def _make_app(self) -> BatchApp:
        app = make_app(
            self._settings.rollup_group, brokers=self._settings.brokers, group=self._settings.rollup_group
        )
        batch_agent(app, self._topic, self.merge)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_before_shutdown.connect(self._on_shutdown, weak=False)
        return app

    async def merge(self, batches: AsyncIterator[Batch]) -> None:
        """Merge blocks, keep the newest of each source in the table."""
        async for batch in batches:
            async with self._lock:
                self._take(batch)

    def _take(self, batch: Batch) -> None:
        merged = self._merged.get(batch.partition)
        if merged is None:
            merged = self._merged[batch.partition] = self._recovered(batch.partition)
        for record in batch.records:
            for block in _blocks_decoder.decode(record.value or b"\x90"):
                if merged.put(block):
                    self._table[_encoder.encode((block.key, block.source))] = _encoder.encode(block)
        self._positions[batch.partition] = batch.next

    def _recovered(self, partition: int) -> Rollup:
        """The merged numbers of a partition as its table has them; also shows what was written before."""
        merged = Rollup(self._config)
        for value in self._table.values():
            block = _block_decoder.decode(value)
            if rollup_partition(block, self._partitions) == partition:
                merged.put(block)
        return merged

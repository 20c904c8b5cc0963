"""The state of a judge partition as it is kept: the first one, the newest, and whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from schemas.config import Config
from schemas.errors import StateError
from sinks.patience import patiently
from streams.checkpoints import THE_STATE, Checkpoint, CheckpointStore
from streams.context import Context
from streams.log_reader import LogReader
from streams.partition_core import PartitionCore, new_core


class SeatState:
    """Checkpoints of one judge partition.

    Parameters
    ----------
    partition, context, reader
        As the seat has them.
    """

    def __init__(self, partition: int, context: Context, reader: LogReader) -> None:
        self._partition, self._context, self._reader = partition, context, reader
        self._store = CheckpointStore(context.settings.state_store, f"judge-{partition:04d}")

    async def newest(self) -> Checkpoint | None:
        """The newest checkpoint; None on a first start.

        Raises
        ------
        StateError
            It belongs to another installation, or is of a format from the future.
        """
        checkpoint = await patiently(THE_STATE, partial(asyncio.to_thread, self._store.load))
        if checkpoint is not None:
            self._check(checkpoint.meta)
        return checkpoint

    async def first(self, notes: Mapping[str, Any]) -> Checkpoint:
        """The state before the first turn; durable, so that the beginning is decided once."""
        config = self._context.config
        core = await self.new_core(config)
        meta = self.stamped(
            config=config.hash,
            positions=await self._reader.first_positions(self._partition),
            log_position=await self._reader.beginning("sightings", self._partition),
            answers_position=await self._reader.beginning("answers", self._partition),
            letters_position=await self._reader.end("deadletters", self._partition),
            claim="",
            **notes,
        )
        checkpoint = Checkpoint(0, meta, core.snapshot())
        await self.save(checkpoint)
        return checkpoint

    async def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; waits for a disk that is full, or a store that is away."""
        await patiently(THE_STATE, partial(asyncio.to_thread, self._store.save, checkpoint))

    async def core_of(self, checkpoint: Checkpoint) -> PartitionCore:
        """What the partition knew at a checkpoint, under the config of that time."""
        core = await self.new_core(await self._context.configs.kept(bytes.fromhex(checkpoint.meta["config"])))
        await asyncio.to_thread(core.restore, checkpoint.state)
        return core

    async def new_core(self, config: Config) -> PartitionCore:
        """What a partition knows before its first turn."""
        lists = await patiently(THE_STATE, partial(asyncio.to_thread, self._context.lists.of, config))
        ring, owners = self._context.ring, self._context.partitions
        return new_core(config, ring, partition=self._partition, owners=owners, lists=lists)

    def stamped(self, **notes: Any) -> dict[str, Any]:
        """What a checkpoint notes, with the mark of this installation."""
        installation = {"partitions": self._context.partitions, "key": self._context.ring.fingerprint}
        return {**notes, **installation}

    def _check(self, meta: Mapping[str, Any]) -> None:
        if meta["partitions"] != self._context.partitions:
            raise StateError(
                f"the state was made with {meta['partitions']} partitions, the topics have "
                f"{self._context.partitions}: users would change partition and be counted twice"
            )
        if meta["key"] != self._context.ring.fingerprint:
            raise StateError(
                "the state was made with another key: set WOOLWATCH_KEY to the one it was made with"
            )

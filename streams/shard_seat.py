"""One owner partition at work: counts sightings in the order of their log and answers them.

An answer is a pure function of the sightings log: durable, and the same whoever gives it. Answers are acknowledged
before a checkpoint is taken, so none can be missing; a crash in between gives the same answers again, and those who
asked keep the first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from detectors.shard import Shard
from schemas.errors import StateError
from schemas.sightings import Answers, decode_sightings, encode_answers
from sinks.faults import fault_point
from sinks.patience import patiently
from streams.batches import Batch
from streams.checkpoints import THE_STATE, Checkpoint, CheckpointStore
from streams.context import Context
from streams.log_reader import LogReader
from streams.meters import Sample

log = logging.getLogger(__name__)


class ShardSeat:
    """State and work of one owner partition in this process; made anew at every assignment."""

    def __init__(self, owner: int, context: Context, reader: LogReader) -> None:
        self.owner, self._context, self._reader = owner, context, reader
        self._store = CheckpointStore(context.settings.state_store, f"shard-{owner:04d}")
        self._shard = Shard(
            owner,
            max_keys=context.config.memory.max_keys,
            lateness_ms=context.config.lateness_ms,
        )
        self._lock = asyncio.Lock()
        self.checkpointed = -1
        self._checkpointed_s = time.monotonic()

    async def open(self) -> None:
        """Load the newest checkpoint; without one the log is read from its beginning.

        Raises
        ------
        StateError
            The state belongs to another installation.
        """
        checkpoint = await patiently(THE_STATE, partial(asyncio.to_thread, self._store.load))
        if checkpoint is None:
            self.position = await self._reader.beginning("sightings", self.owner)
        else:
            if checkpoint.meta["key"] != self._context.ring.fingerprint:
                raise StateError(
                    "the state was made with another key: set WOOLWATCH_KEY to the one it was made with"
                )
            await asyncio.to_thread(self._shard.restore, checkpoint.state)
            self.position = self.checkpointed = checkpoint.position
        log.info("shard %d: at offset %d of the sightings", self.owner, self.position)

    async def take(self, batch: Batch) -> None:
        """Count and answer every record of a batch; returns when the answers are durable."""
        async with self._lock:
            values = [record.value or b"" for record in batch.records if record.offset >= self.position]
            answers = await patiently(THE_STATE, partial(asyncio.to_thread, self._applying(values)))
            sent = [await self._context.send("answers", a.source, encode_answers(a)) for a in answers]
            fault_point("shard.answering")
            for ack in sent:
                await ack
            fault_point("shard.answered")
            self.position = max(self.position, batch.next)

    def _applying(self, values: list[bytes]) -> Callable[[], list[Answers]]:
        """What takes records and gives their answers; goes on where it stood when a config could not be read."""
        answers: list[Answers] = []
        left = deque(values)

        def apply() -> list[Answers]:
            while left:
                answer = self._shard.take(decode_sightings(left[0]), self._context.configs.plan)
                left.popleft()
                if answer is not None:
                    answers.append(answer)
            return answers

        return apply

    async def checkpoint(self) -> None:
        """Write the state as it stands between two batches, unless it is written already."""
        async with self._lock:
            looked_s = time.monotonic()
            if self.position <= self.checkpointed:
                self._checkpointed_s = looked_s
                return
            state: Any = await asyncio.to_thread(self._shard.snapshot)
            checkpoint = Checkpoint(self.position, {"key": self._context.ring.fingerprint}, state)
        await patiently(THE_STATE, partial(asyncio.to_thread, self._store.save, checkpoint))
        self.checkpointed = checkpoint.position
        self._checkpointed_s = looked_s

    def samples(self) -> list[Sample]:
        """What this seat can be watched by."""
        place = str(self.owner)
        return [
            Sample("keys", (place,), self._shard.keys),
            Sample("evictions_total", (place,), self._shard.evicted),
            Sample("checkpoint_age_seconds", ("shard", place), time.monotonic() - self._checkpointed_s),
        ]

    @property
    def nbytes(self) -> int:
        """Memory of the entities."""
        return self._shard.nbytes

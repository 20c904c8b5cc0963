"""Days of events per minute that are over leave the rollup's memory and its changelog for an archive.

A year of minutes would fill any memory, and whoever takes a partition over reads all that its changelog has. So a day
is *closed* when later ones have come and nothing has changed it for a while: its blocks go to the archive, and only
when they are durable there out of the changelog and the memory. Its rows stay in the metric tables, as they were last
shown. An event that still comes for it opens it again, with all that was counted before.

Whatever is killed on the way: archive and changelog together have the newest block of every source, and whoever begins
takes both. When a day is closed is no matter of right or wrong, so the wall clock may have its say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

from metrics.rollup import DAY_MS, Part, Rollup, part_of
from schemas.partials import EVENTS, Block
from sinks.metric_files import MetricFiles
from sinks.patience import patiently

GRACE_MS = 3_600_000
"""Of event time behind the end of a day."""
QUIET_S = 30.0
MOST_AT_ONCE = 8
"""Days closed in one go, so that numbers need not wait for long."""


class ClosedDays:
    """The closed days of one rollup partition.

    Parameters
    ----------
    files
        Where the archive is.
    partition
        Of the rollup.
    merged
        What is held in memory.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        files: MetricFiles,
        partition: int,
        merged: Rollup,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files, self._partition, self._merged, self._clock = files, partition, merged, clock
        self._closed: set[int] = set()
        self._touched_s: dict[int, float] = {}
        self._newest_ms = 0

    async def begin(self) -> None:
        """Find out which days are closed; one of which the changelog has something is open, and whole again."""
        held = [part for part in self._merged.parts() if part.metric == EVENTS]
        for part in held:
            self._touch(self._merged.blocks_of(part))
        list_days = partial(asyncio.to_thread, self._files.archived_days, EVENTS, self._partition)
        self._closed = await patiently("the metric tables", list_days)
        await self._open({part.day for part in held if part.day is not None})

    async def take(self, blocks: Iterable[Block]) -> None:
        """Must come before blocks are put: opens the days that they belong to."""
        of_days = [block for block in blocks if block.key.metric == EVENTS]
        self._touch(of_days)
        await self._open({day for block in of_days if (day := part_of(block.key).day) is not None})

    def due(self) -> list[int]:
        """Days to be closed now, oldest first."""
        changed = self._merged.changed_parts()
        days = sorted(part.day for part in self._merged.parts() if part.day is not None)
        return [day for day in days if self._is_over(day) and Part(EVENTS, day) not in changed][:MOST_AT_ONCE]

    async def archive(self, day: int, position: int) -> list[Block]:
        """Make the blocks of a day that is due durable in the archive, as of a position of the partials.

        Returns
        -------
        Those that the changelog need not have any more; none when a later owner was here, or the day has changed.
        """
        if not self._is_over(day):
            return []
        blocks, touched_s = self._merged.blocks_of(Part(EVENTS, day)), self._touched_s[day]
        keep = partial(self._files.archive, EVENTS, self._partition, position, blocks, day=day)
        kept = await patiently("the metric tables", partial(asyncio.to_thread, keep))
        return blocks if kept and self._touched_s[day] == touched_s else []

    def close(self, day: int) -> None:
        """Forget a day that is in the archive and not in the changelog."""
        self._merged.forget(Part(EVENTS, day))
        del self._touched_s[day]
        self._closed.add(day)

    def _is_over(self, day: int) -> bool:
        later = self._newest_ms - (day + 1) * DAY_MS
        return later >= GRACE_MS and self._clock() - self._touched_s[day] >= QUIET_S

    async def _open(self, days: set[int]) -> None:
        for day in sorted(days & self._closed):
            read = partial(asyncio.to_thread, self._files.archived, EVENTS, self._partition, day)
            for block in await patiently("the metric tables", read):
                self._merged.put(block)
            self._closed.discard(day)

    def _touch(self, blocks: Iterable[Block]) -> None:
        now_s = self._clock()
        for block in blocks:
            start_ms = block.key.start_ms or 0
            self._touched_s[start_ms // DAY_MS] = now_s
            self._newest_ms = max(self._newest_ms, start_ms)

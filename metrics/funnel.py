"""Funnels: how many users reached each step in order, in time, in one campaign.

A user counts once per step, window and dimension value of the chain's first step, by his best chain. Exact
for events in any order, as long as none comes below the watermark. A user's events in a campaign are limited:
of starts and of later steps :data:`MOST_EVENTS` each are taken in a span of ``within`` + ``lateness``; what
is beyond is ignored and counted in :attr:`FunnelCounter.ignored`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.definitions import ENDLESS_MS, FunnelPlan
from metrics.dimensions import CellTable
from metrics.distinct_users import DistinctUsers
from metrics.funnel_slabs import (
    ARENA,
    DONE,
    IGNORED,
    LEVEL,
    MOST,
    REACHED,
    REACHED_FULL,
    SLABS,
    SLABS_FULL,
    Slabs,
    make_steps,
    new_slabs,
    take_events,
    tidied,
)
from metrics.hash_index import SMALLEST, power_of_two
from metrics.members import Members, add_member, find_key, has_room
from metrics.names import ABSENT, UNKNOWN
from metrics.sampling import MOST_LEVEL
from schemas.flat_kernels import flat_kernel

MOST_EVENTS = 2_048
CHAINS_A_USER = 2
"""Users and campaigns with events that still matter that have room at a bound of one user."""
NO_STEP = -1
TOUCHED_AHEAD = 64
"""Events whose slabs are read ahead together; 32 to 256 are equally fast."""


class FunnelCounter:
    """Counts one funnel into :class:`DistinctUsers`.

    Costs 120 bytes for a user and campaign with up to 4 step events that still matter, then 16 an event; half
    of the arena is free after it was tidied.
    """

    def __init__(self, plan: FunnelPlan, lateness_ms: int, *, most_events: int = MOST_EVENTS) -> None:
        self.plan = plan
        self.steps = make_steps(plan, lateness_ms)
        self.slabs = new_slabs(SMALLEST, 4 * SMALLEST, most=most_events, level=0)
        self._names = tuple(dict.fromkeys(plan.steps))
        self._kind_of_event = np.zeros(0, np.int8)
        self._reached = np.zeros(1024, REACHED)

    @property
    def ignored(self) -> int:
        """Step events beyond a user's limit."""
        return int(self.slabs.used[IGNORED])

    @property
    def level(self) -> int:
        """Level of the sample of users whose chains are followed (:mod:`metrics.sampling`)."""
        return int(self.slabs.limits[LEVEL])

    def fit(self, most_users: int, watermark_ms: int) -> None:
        """Follow a smaller sample of users, if more than :data:`CHAINS_A_USER` times as many are followed."""
        most_chains = CHAINS_A_USER * most_users
        if self.slabs.used[SLABS] <= most_chains:
            return
        self.tidy(watermark_ms)
        while self.slabs.used[SLABS] > most_chains and self.level < MOST_LEVEL:
            self.slabs.limits[LEVEL] += 1
            self.tidy(watermark_ms)

    def kinds(self, events: NDArray[np.int32], names: list[str | None]) -> NDArray[np.int8]:
        """Kind of each event, by the number of its name; NO_STEP for those that take no step."""
        known = len(self._kind_of_event)
        if known < len(names):
            added = [self._names.index(n) if n in self._names else NO_STEP for n in names[known:]]
            self._kind_of_event = np.concatenate((self._kind_of_event, np.array(added, np.int8)))
        return self._kind_of_event[events]

    def count(
        self,
        users: DistinctUsers,
        cells: CellTable,
        *,
        rows: NDArray[np.int32],
        user_keys: NDArray[np.uint64],
        kinds: NDArray[np.int8],
        row_cells: NDArray[np.int32],
        ts_ms: NDArray[np.int64],
        watermark_ms: int,
    ) -> None:
        """Count a batch.

        Parameters
        ----------
        rows, user_keys, row_cells, ts_ms
            Row of the user, his key, cell and event time of each event.
        kinds
            From :meth:`kinds`.
        watermark_ms
            No event of this batch or to come lies below it.
        """
        campaigns = cells.values[row_cells, 0]
        progress, found = np.zeros(3, np.int64), np.empty(TOUCHED_AHEAD, np.int64)
        room = len(rows)
        state = -1
        while state != DONE:
            if len(self._reached) < room:
                self._reached = np.zeros(power_of_two(room), REACHED)
            state = take_events(
                self.slabs,
                self.steps,
                user_keys,
                campaigns,
                row_cells,
                kinds,
                ts_ms,
                watermark_ms,
                self._reached,
                progress,
                found,
            )
            if state == REACHED_FULL and progress[1] == 0:
                room = 2 * len(self._reached)
            elif state == SLABS_FULL:
                self.tidy(watermark_ms)
            self._add_reached(users, cells, rows, int(progress[1]), watermark_ms)
            progress[1] = 0

    def tidy(self, watermark_ms: int) -> None:
        """Forget events that no chain to come can need; changes no count."""
        self.slabs = tidied(self.slabs, self.steps, watermark_ms)

    def in_use(self) -> dict[str, NDArray[np.void]]:
        """Slabs and their events, for a snapshot to copy. Not pruned, which would take longer; :meth:`restore` does."""
        slabs, used = self.slabs, self.slabs.used
        return {"slabs": slabs.slabs[: used[SLABS]], "arena": slabs.arena[: used[ARENA]]}

    def restore(
        self,
        slabs: NDArray[np.void],
        arena: NDArray[np.void],
        *,
        ignored: int,
        level: int,
        count_again: bool,
        watermark_ms: int,
    ) -> None:
        """Take up a snapshot.

        ``count_again``: the funnel is counted by other windows or dimensions now. A chain that goes on counts
        there from its first step, or more users would reach the second step than the first.
        """
        if count_again:
            arena["reached"] = 0
        used = np.array([len(slabs), len(arena), ignored], np.int64)
        limits = np.array([self.slabs.limits[MOST], level], np.int64)
        before = Slabs(slabs, self.slabs.slots, arena, used, limits)
        self.slabs = tidied(before, self.steps, watermark_ms)

    def _add_reached(
        self, users: DistinctUsers, cells: CellTable, rows: NDArray[np.int32], count: int, watermark_ms: int
    ) -> None:
        windows, dims = len(self.plan.windows_ms), self.plan.dims
        width = windows * dims * len(self.plan.steps)
        at = 0
        while at < count:
            at = add_reached(
                users.members,
                cells,
                rows,
                self._reached,
                count,
                self.plan.first,
                dims,
                windows,
                watermark_ms,
                at,
            )
            if at < count:
                users.grow(links=width, keys=width, blocks=windows)


@flat_kernel
def add_reached(
    m: Members,
    cells: CellTable,
    rows: NDArray[np.int32],
    reached: NDArray[np.void],
    count: int,
    first_definition: int,
    dims: int,
    windows: int,
    watermark_ms: int,
    at: int,
) -> int:
    """Count what was reached from ``at`` on; return the first for which there is no room, or ``count``."""
    width = windows * dims * m.definitions[first_definition].width
    for i in range(at, count):
        if not has_room(m, 0, width, width, windows):
            return i
        for number in range(windows * dims):
            definition = first_definition + number
            kind = m.definitions[definition]
            end_ms = ENDLESS_MS
            start_ms = 0
            if kind.window_ms > 0:
                start_ms = reached[i].start_ms - reached[i].start_ms % kind.window_ms
                end_ms = start_ms + kind.window_ms
            value = cells.values[reached[i].cell, kind.column] if kind.column >= 0 else ABSENT
            if value == UNKNOWN or end_ms + kind.hold_ms <= watermark_ms:
                continue
            key = find_key(m, definition, start_ms, end_ms, cells.values[reached[i].cell, 0], value)
            for step in range(reached[i].from_step, reached[i].to_step):
                add_member(m, rows[reached[i].row], key + step)
    return count

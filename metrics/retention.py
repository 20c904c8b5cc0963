"""Retention: of the users who were first seen on a date, how many were seen so many days later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.definitions import DAY_MS
from metrics.hash_index import SMALLEST, grown, new_index, power_of_two
from metrics.members import BEFORE_ALL_MS
from metrics.names import MAX_NAMES
from metrics.retention_rows import (
    COHORT,
    COHORTS,
    OVER,
    PRODUCT,
    RECENT_DAYS,
    ROW,
    ROWS,
    Cohorts,
    copy_rows,
    hold_all,
    new_cohorts,
    reindex_rows,
    see_all,
)
from metrics.sampling import MOST_LEVEL, variance
from schemas.partials import ALL_CAMPAIGNS, ONE_CAMPAIGN, RETENTION, BlockKey, RetentionRows, encode_rows

ROWS_A_USER = 4
"""Rows that have room at a bound of one user: the product's and those of three campaigns."""
_CELLS = ("ends_ms", "gross", "suspect", "levels")

DayEnds = Callable[[int, NDArray[np.int64]], NDArray[np.int64]]
"""Ends of dates on the clock of a campaign (its number, or PRODUCT)."""


class RetentionCounter:
    """Owner of :class:`Cohorts` of one partition.

    Nobody who was seen is forgotten, for he would be new again; beyond :data:`ROWS_A_USER` times ``memory.max_users``
    rows a sample of the users is followed. A cohort goes when its last day can no longer change, and is published.

    Parameters
    ----------
    days
        Up to which day a cohort is followed, 1 to MOST_DAYS.
    restate_ms
        How long after the end of a day a verdict still makes its user suspect in it.
    """

    def __init__(self, days: int, restate_ms: int) -> None:
        self.days = days
        self.tables = new_cohorts(rows=SMALLEST, cohorts=SMALLEST, days=1 + days, restate_ms=restate_ms)
        self._cohort_of: dict[tuple[int, int], int] = {}

    @property
    def identity(self) -> str:
        """Equal for equal meaning."""
        return f"retention {self.days}"

    @property
    def level(self) -> int:
        """Of the sample that is followed; 0 while it is everybody."""
        return int(self.tables.level[0])

    # -- counting ----------------------------------------------------------------------------------------------

    def count(
        self,
        users: NDArray[np.uint64],
        campaigns: NDArray[np.int32],
        *,
        local_days: NDArray[np.int64],
        utc_days: NDArray[np.int64],
        news: NDArray[np.bool_],
        day_ends: DayEnds,
    ) -> None:
        """Note who was seen, where there are ``news``; all are columns of one batch.

        Parameters
        ----------
        users, campaigns, news
            Key of the user, number of the campaign, and whether the event may say more than the user's one before.
        local_days, utc_days
            Dates on the campaign's clock and in UTC, days since 1970.
        day_ends
            When dates end.
        """
        at = 0
        while at < len(users):
            at = see_all(self.tables, users, campaigns, local_days, utc_days, news, at)
            if at < len(users):
                if self.tables.used[ROWS] + 2 > len(self.tables.rows):
                    self._grow_rows(2 * len(self.tables.rows))
                self._recall(PRODUCT, int(utc_days[at]), day_ends)
                self._recall(int(campaigns[at]), int(local_days[at]), day_ends)

    def judged_bad(self, users: NDArray[np.uint64], ts_ms: NDArray[np.int64]) -> None:
        """Note verdicts of at least ``review``; their users were counted before."""
        hold_all(self.tables, users, ts_ms, int(BEFORE_ALL_MS), True)

    def hold_against(
        self, users: NDArray[np.uint64], lowest_ms: NDArray[np.int64], watermark_ms: int
    ) -> None:
        """Set the lowest time of a verdict that is held against each user, in cells that are still open."""
        hold_all(self.tables, users, lowest_ms, watermark_ms, False)

    def _recall(self, campaign: int, day: int, day_ends: DayEnds) -> None:
        """Put the cohort of a date where it is found at once; made if it is new."""
        if (campaign, day) not in self._cohort_of:
            if self.tables.used[COHORTS] == len(self.tables.cohorts):
                self._grow_cohorts()
            row = int(self.tables.used[COHORTS])
            self.tables.used[COHORTS] = row + 1
            self.tables.cohorts[row] = (day, campaign, 0)
            self.tables.ends_ms[row] = day_ends(campaign, day + np.arange(1 + self.days))
            self.tables.levels[row] = self.level
            self._cohort_of[campaign, day] = row
        self.tables.recent[campaign + 1, day % RECENT_DAYS] = self._cohort_of[campaign, day]

    def _grow_rows(self, capacity: int) -> None:
        self.tables = self.tables._replace(rows=grown(self.tables.rows, capacity), slots=new_index(capacity))
        reindex_rows(self.tables)

    def _grow_cohorts(self) -> None:
        t = self.tables
        capacity = 2 * len(t.cohorts)
        cells = {name: np.resize(getattr(t, name), (capacity, 1 + self.days)) for name in _CELLS}
        for name in ("gross", "suspect"):
            cells[name][len(t.cohorts) :] = 0
        self.tables = t._replace(cohorts=grown(t.cohorts, capacity), **cells)

    # -- upkeep ------------------------------------------------------------------------------------------------

    def forget(self, watermark_ms: int) -> None:
        """Drop cohorts that can no longer change and are published, if there is something to gain."""
        t = self.tables
        used = int(t.used[COHORTS])
        if 4 * used <= 3 * len(t.cohorts):
            return
        if 4 * np.count_nonzero(_gone(t, watermark_ms)) > used:
            self._rebuild(t, watermark_ms)

    def fit(self, most_users: int, watermark_ms: int) -> None:
        """Keep within a bound: follow a sample of the users; cells that are over at the watermark stay as they are."""
        while self.tables.used[ROWS] > ROWS_A_USER * most_users and self.level < MOST_LEVEL:
            self.tables.level[0] += 1
            self._rebuild(self.tables, watermark_ms)

    def _rebuild(
        self,
        before: Cohorts,
        watermark_ms: int,
        *,
        dropped: Collection[int] = (),
        publish: bool = False,
    ) -> None:
        """Fill fresh tables from others, leaving out what is over; cells that are open are counted again.

        ``dropped`` are numbers of campaigns of which nothing is kept; ``publish``: all cohorts count as changed.
        """
        used = int(before.used[COHORTS])
        keep = np.flatnonzero(
            ~_gone(before, watermark_ms) & ~np.isin(before.cohorts["campaign"][:used], list(dropped))
        )
        fresh = new_cohorts(
            rows=power_of_two(int(before.used[ROWS]) + 2),
            cohorts=power_of_two(2 * len(keep)),
            days=1 + self.days,
            restate_ms=int(self.tables.restate_ms[0]),
            level=int(before.level[0]),
        )
        fresh.used[COHORTS] = len(keep)
        for name in ("cohorts", *_CELLS):
            getattr(fresh, name)[: len(keep)] = getattr(before, name)[keep]
        is_open = fresh.ends_ms + fresh.restate_ms[0] > watermark_ms
        fresh.gross[is_open] = fresh.suspect[is_open] = 0
        sampled_anew = is_open & (fresh.levels != before.level[0])
        fresh.levels[is_open] = before.level[0]
        dirty = publish | (fresh.cohorts["dirty"] != 0) | sampled_anew.any(axis=1)
        cohort_map = np.full(max(used, 1), OVER, np.int32)
        cohort_map[keep] = np.arange(len(keep))
        is_dropped = np.zeros(MAX_NAMES, np.bool_)
        is_dropped[list(dropped)] = True
        copy_rows(before, fresh, cohort_map, is_dropped, is_open)
        fresh.cohorts["dirty"] = dirty
        self.tables = fresh
        self._cohort_of = {
            (campaign, day): row for row, (day, campaign, _) in enumerate(fresh.cohorts[: len(keep)].tolist())
        }

    # -- blocks ------------------------------------------------------------------------------------------------

    def changed_cohorts(self) -> NDArray[np.int64]:
        """Rows of the cohorts that changed since they were published."""
        return np.flatnonzero(self.tables.cohorts["dirty"][: self.tables.used[COHORTS]])

    def held_cohorts(self) -> NDArray[np.int64]:
        """Rows of the cohorts that have, or had, anybody."""
        t, used = self.tables, int(self.tables.used[COHORTS])
        return np.flatnonzero(t.gross[:used].any(axis=1) | (t.cohorts["dirty"][:used] != 0))

    def published(self, cohorts: NDArray[np.int64]) -> None:
        """Say that these cohorts were handed over as they are."""
        self.tables.cohorts["dirty"][cohorts] = 0

    def key_of(self, cohort: int, campaigns: Sequence[str | None]) -> BlockKey:
        """Key of the block of a cohort."""
        return _key(self.tables.cohorts[cohort], campaigns)

    def keys(self, campaigns: Sequence[str | None]) -> set[BlockKey]:
        """Keys of all cohorts that are held."""
        return {_key(cohort, campaigns) for cohort in self.tables.cohorts[: self.tables.used[COHORTS]]}

    def packed(self, cohort: int) -> bytes:
        """Rows of the block of a cohort."""
        t = self.tables
        levels = t.levels[cohort].tolist()
        gross, suspect = (
            [count << level for count, level in zip(cells[cohort].tolist(), levels, strict=True)]
            for cells in (t.gross, t.suspect)
        )
        variances = list(map(variance, gross, levels)) if any(levels) else []
        return encode_rows(RetentionRows(gross, suspect, variances))

    # -- snapshots ---------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, bytes]:
        """The whole state as flat bytes."""
        t = self.tables
        rows, cohorts = t.used.tolist()
        return {
            "level": t.level.tobytes(),
            "restate_ms": t.restate_ms.tobytes(),
            "rows": t.rows[:rows].tobytes(),
            "cohorts": t.cohorts[:cohorts].tobytes(),
            **{name: getattr(t, name)[:cohorts].tobytes() for name in _CELLS},
        }

    def restore(
        self, state: Mapping[str, Any], watermark_ms: int, *, moved: Collection[int], publish: bool
    ) -> None:
        """Take up a snapshot; ``moved``: campaigns on another clock now, which begin anew; ``publish``: as changed."""
        self._rebuild(_unpacked(state), watermark_ms, dropped=moved, publish=publish)


def open_keys(state: Mapping[str, Any], watermark_ms: int, campaigns: Sequence[str | None]) -> list[BlockKey]:
    """Keys of the cohorts of a snapshot that could still change, or are not published."""
    before = _unpacked(state)
    kept = before.cohorts[~_gone(before, watermark_ms)]
    return [_key(cohort, campaigns) for cohort in kept]


def _key(cohort: np.void, campaigns: Sequence[str | None]) -> BlockKey:
    day, campaign, _ = cohort.tolist()
    scope, name = (ALL_CAMPAIGNS, None) if campaign == PRODUCT else (ONE_CAMPAIGN, campaigns[campaign])
    return BlockKey(RETENTION, "", "1d", day * DAY_MS, scope, name)


def _unpacked(state: Mapping[str, Any]) -> Cohorts:
    """Tables as they were, without an index: good for rebuilding others from."""
    rows, cohorts = np.frombuffer(bytes(state["rows"]), ROW), np.frombuffer(bytes(state["cohorts"]), COHORT)
    level, restate_ms = (
        np.frombuffer(bytes(state[name]), np.int64).copy() for name in ("level", "restate_ms")
    )
    empty = new_cohorts(rows=0, cohorts=0, days=1, restate_ms=0)
    cells = {name: np.frombuffer(bytes(state[name]), getattr(empty, name).dtype) for name in _CELLS}
    width = len(cells["ends_ms"]) // len(cohorts) if len(cohorts) else 1
    return empty._replace(
        rows=rows,
        cohorts=cohorts,
        **{name: column.reshape(len(cohorts), width) for name, column in cells.items()},
        used=np.array([len(rows), len(cohorts)]),
        restate_ms=restate_ms,
        level=level,
    )


def _gone(t: Cohorts, watermark_ms: int) -> NDArray[np.bool_]:
    """Which cohorts are over and published."""
    used = int(t.used[COHORTS])
    over = t.ends_ms[:used, -1] + t.restate_ms[0] <= watermark_ms
    found: NDArray[np.bool_] = over & (t.cohorts["dirty"][:used] == 0)
    return found

"""Daily active users: who was seen on a date, by campaign and dimension, and in the product as a whole.

A *spot* is where one event counts: a cell, its date in UTC and its date on the campaign's clock. A user who
stays in his spot costs one comparison; only a change of spot looks at the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.definitions import DAY_MS, MetricPlan
from metrics.dimensions import CellTable
from metrics.distinct_users import DistinctUsers
from metrics.hash_index import SMALLEST, first_slot, hash_of, new_index
from metrics.members import Members, add_member, find_key, has_room
from metrics.names import ABSENT, UNKNOWN
from metrics.time_zones import zone_offsets
from schemas.flat_kernels import flat_kernel

PRODUCT = 0
"""Number of the definition of the product's total; those of a campaign follow."""
MOST_SPOTS = 1 << 20


class Spots(NamedTuple):
    """Which keys belong to each spot: a cache that can be emptied at any time.

    ``cells`` int32[spots], ``days`` int32[spots, 2] (campaign's clock, UTC), ``keys`` int32[spots,
    definitions] (-1: none), ``slots``; ``used`` int64[2] holds spots in use and the number of the first one,
    which only grows, so that what users remember of earlier caches never fits.
    """

    cells: NDArray[np.int32]
    days: NDArray[np.int32]
    keys: NDArray[np.int32]
    slots: NDArray[np.int32]
    used: NDArray[np.int64]


class SeenDays(NamedTuple):
    """Of each event of a batch: its date in UTC and on the campaign's clock (int64[m], days since 1970), and ``news``.

    ``news`` bool[m]: it is not from the spot where its user was counted last, so it may say more than that one.
    """

    utc: NDArray[np.int64]
    local: NDArray[np.int64]
    news: NDArray[np.bool_]


class DailyUsers:
    """Counts the days of users into :class:`DistinctUsers`."""

    def __init__(self, plan: MetricPlan, zones: Mapping[str, str]) -> None:
        self._width = plan.dau_definitions
        self._zones = {campaign: zone_offsets(zone) for campaign, zone in zones.items() if zone != "UTC"}
        self._spots = _new_spots(SMALLEST, self._width, 0)

    def count(
        self,
        users: DistinctUsers,
        cells: CellTable,
        *,
        rows: NDArray[np.int32],
        row_cells: NDArray[np.int32],
        ts_ms: NDArray[np.int64],
        campaigns: Mapping[str, NDArray[np.bool_]],
        watermark_ms: int,
    ) -> SeenDays:
        """Count a batch.

        Parameters
        ----------
        rows, row_cells, ts_ms
            Row of the user, cell and event time of each event.
        campaigns
            Which events are of a campaign that has a clock of its own.
        watermark_ms
            Dates that were over before it are left alone.
        """
        days = ts_ms // DAY_MS
        local, ends_ms = days.copy(), (days + 1) * DAY_MS
        for campaign, chosen in campaigns.items():
            zone = self._zones[campaign]
            local[chosen] = zone.days(ts_ms[chosen])
            ends_ms[chosen] = zone.day_ends(local[chosen])
        news = np.zeros(len(rows), np.bool_)
        at = 0
        while at < len(rows):
            at = count_days(
                users.members,
                cells,
                self._spots,
                rows,
                row_cells,
                days,
                local,
                ends_ms,
                watermark_ms,
                news,
                at,
            )
            if at < len(rows):
                users.grow(links=self._width, keys=self._width, blocks=self._width)
                self._grow()
        return SeenDays(days, local, news)

    def day_ends(self, campaign: str | None, days: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ends of dates (ms) on the clock of a campaign, UTC where it has none of its own."""
        zone = self._zones.get(campaign) if campaign is not None else None
        return (days + 1) * DAY_MS if zone is None else zone.day_ends(days)

    @property
    def zoned_campaigns(self) -> tuple[str, ...]:
        """Campaigns with a clock of their own."""
        return tuple(self._zones)

    def forget(self) -> None:
        """Empty the cache; needed when keys got other rows."""
        self._spots = _new_spots(SMALLEST, self._width, int(self._spots.used.sum()))

    def _grow(self) -> None:
        spots = self._spots
        if spots.used[0] < len(spots.cells):
            return
        if len(spots.cells) >= MOST_SPOTS:
            self.forget()
            return
        larger = _new_spots(2 * len(spots.cells), self._width, int(spots.used[1]))
        for new, old in zip(larger[:3], spots[:3], strict=True):
            new[: len(old)] = old
        larger.used[0] = spots.used[0]
        reindex_spots(larger)
        self._spots = larger


def _new_spots(capacity: int, width: int, first: int) -> Spots:
    return Spots(
        cells=np.zeros(capacity, np.int32),
        days=np.zeros((capacity, 2), np.int32),
        keys=np.zeros((capacity, width), np.int32),
        slots=new_index(capacity),
        used=np.array([0, first], np.int64),
    )


@flat_kernel
def spot_slot(spots: Spots, cell: int, local: int, day: int) -> int:
    """Slot of a spot, or the empty one where it belongs."""
    slot = first_slot(hash_of(cell, local, day, 0), len(spots.slots))
    while spots.slots[slot] != 0:
        row = spots.slots[slot] - 1
        if spots.cells[row] == cell and spots.days[row, 0] == local and spots.days[row, 1] == day:
            break
        slot = (slot + 1) & (len(spots.slots) - 1)
    return slot


@flat_kernel
def reindex_spots(spots: Spots) -> None:
    """Enter all spots into an empty index."""
    for row in range(spots.used[0]):
        spots.slots[spot_slot(spots, spots.cells[row], spots.days[row, 0], spots.days[row, 1])] = row + 1


@flat_kernel
def find_spot(
    m: Members, cells: CellTable, spots: Spots, cell: int, local: int, day: int, end_ms: int
) -> int:
    """Row of a spot, with its keys made if they are new; there must be room."""
    slot = spot_slot(spots, cell, local, day)
    if spots.slots[slot] == 0:
        row = spots.used[0]
        spots.used[0] = row + 1
        spots.slots[slot] = row + 1
        spots.cells[row] = cell
        spots.days[row, 0] = local
        spots.days[row, 1] = day
        spots.keys[row, PRODUCT] = find_key(m, PRODUCT, day * DAY_MS, (day + 1) * DAY_MS, ABSENT, ABSENT)
        campaign = cells.values[cell, 0]
        for definition in range(1, spots.keys.shape[1]):
            column = m.definitions[definition].column
            value = cells.values[cell, column] if column >= 0 else ABSENT
            spots.keys[row, definition] = (
                find_key(m, definition, local * DAY_MS, end_ms, campaign, value) if value != UNKNOWN else -1
            )
    found: int = spots.slots[slot] - 1
    return found


@flat_kernel
def count_days(
    m: Members,
    cells: CellTable,
    spots: Spots,
    rows: NDArray[np.int32],
    row_cells: NDArray[np.int32],
    days: NDArray[np.int64],
    local: NDArray[np.int64],
    ends_ms: NDArray[np.int64],
    watermark_ms: int,
    news: NDArray[np.bool_],
    at: int,
) -> int:
    """Count rows from ``at`` on, filling ``news``; return the first one for which there is no room, or their number."""
    width = spots.keys.shape[1]
    for i in range(at, len(rows)):
        if not has_room(m, 0, width, width, width) or spots.used[0] == len(spots.cells):
            return i
        if ends_ms[i] + m.restate_ms[0] <= watermark_ms:
            continue
        spot = find_spot(m, cells, spots, row_cells[i], local[i], days[i], ends_ms[i])
        number = spot + spots.used[1]
        if m.users[rows[i]].spot == number:
            continue
        m.users[rows[i]].spot = number
        news[i] = True
        for definition in range(width):
            if spots.keys[spot, definition] >= 0:
                add_member(m, rows[i], spots.keys[spot, definition])
    return len(rows)

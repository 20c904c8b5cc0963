"""Who was first seen when, and on which days since: flat arrays, with a gross and a suspect count for each cell.

A *cohort* is the users whose first date in a campaign (or in the product) is one date; its *cells* are the days since,
the date itself being day 0. A user has one row for the product and one for each campaign, in a list that begins with
the product's; the row holds his cohort and his days as bits. If an event comes out of order and is of an earlier date,
the row moves to that cohort with all of its days, so counts are a function of the set of (user, date) alone.

A row costs 40 bytes and its share of the index 8 to 16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.hash_index import first_slot, mixed, new_index
from metrics.members import NEVER_MS
from metrics.names import MAX_NAMES
from metrics.sampling import is_kept
from schemas.flat_kernels import flat_kernel
from schemas.prefetch import prefetch

MOST_DAYS = 63
"""A row has 64 bits for its days."""
PRODUCT = -1
"""In the place of a campaign's number: the product as a whole."""
OVER = NONE = -1
"""In the place of a cohort: one that can no longer change. Its users stay known, they are in no later one."""
RECENT_DAYS = 8
"""So many dates in a row are found at once."""
ROWS, COHORTS = range(2)
_FAR, _NEAR = 16, 8
"""Events ahead of which index and row are fetched while others are counted."""

ROW = np.dtype(
    [
        ("user", "u8"),
        ("days", "u8"),
        ("bad_ms", "i8"),
        ("campaign", "i4"),
        ("cohort", "i4"),
        ("next", "i4"),
        ("product", "i4"),
    ],
    align=True,
)
"""``bad_ms``: lowest ts of a bad verdict that is held against him, in the product's row. ``next``: next row of the
user, row plus one. ``product``: cohort of the product for whose date he was noted there when he was seen here last, or
NONE; it spares looking for the product's row."""
COHORT = np.dtype([("day", "i4"), ("campaign", "i4"), ("dirty", "i4")], align=True)
"""``day``: its date. ``dirty``: changed since it was published."""


class Cohorts(NamedTuple):
    """The arrays, as kernels take them.

    ``ends_ms`` int64[cohorts, days], ``gross`` and ``suspect`` int32 and ``levels`` uint8 alike: end of the date of
    each cell, its counts, and the level at which they were made (:mod:`metrics.sampling`). ``used`` int64[2]: rows and
    cohorts in use; ``restate_ms`` and ``level`` int64[1]. ``recent`` int32[1 + campaigns, RECENT_DAYS]: a cohort of
    each campaign (the product first) by date, NONE where it is not known: a cache.
    """

    rows: NDArray[np.void]
    slots: NDArray[np.int32]
    cohorts: NDArray[np.void]
    ends_ms: NDArray[np.int64]
    gross: NDArray[np.int32]
    suspect: NDArray[np.int32]
    levels: NDArray[np.uint8]
    used: NDArray[np.int64]
    restate_ms: NDArray[np.int64]
    level: NDArray[np.int64]
    recent: NDArray[np.int32]


def new_cohorts(*, rows: int, cohorts: int, days: int, restate_ms: int, level: int = 0) -> Cohorts:
    """Empty tables for so many (powers of two) rows and cohorts of ``days`` cells."""
    shape = (cohorts, days)
    return Cohorts(
        rows=np.zeros(rows, ROW),
        slots=new_index(rows),
        cohorts=np.zeros(cohorts, COHORT),
        ends_ms=np.zeros(shape, np.int64),
        gross=np.zeros(shape, np.int32),
        suspect=np.zeros(shape, np.int32),
        levels=np.full(shape, level, np.uint8),
        used=np.zeros(2, np.int64),
        restate_ms=np.array([restate_ms], np.int64),
        level=np.array([level], np.int64),
        recent=np.full((1 + MAX_NAMES, RECENT_DAYS), NONE, np.int32),
    )


@flat_kernel
def row_hash(user: np.uint64, campaign: int) -> np.uint64:
    """Where the search for a row begins."""
    return mixed(user, campaign + 1)


@flat_kernel
def row_slot(t: Cohorts, user: np.uint64, campaign: int) -> int:
    """Slot of a row, or the empty one where it belongs."""
    slot = first_slot(row_hash(user, campaign), len(t.slots))
    while t.slots[slot] != 0:
        row = t.rows[t.slots[slot] - 1]
        if row.user == user and row.campaign == campaign:
            break
        slot = (slot + 1) & (len(t.slots) - 1)
    return slot


@flat_kernel
def reindex_rows(t: Cohorts) -> None:
    """Fill the empty index."""
    for row in range(t.used[ROWS]):
        if row + _FAR < t.used[ROWS]:
            ahead = t.rows[row + _FAR]
            prefetch(t.slots, first_slot(row_hash(ahead.user, ahead.campaign), len(t.slots)))
        t.slots[row_slot(t, t.rows[row].user, t.rows[row].campaign)] = row + 1


@flat_kernel
def new_row(t: Cohorts, slot: int, user: np.uint64, campaign: int, head: int) -> int:
    """Row of a user who has none in a campaign; ``head`` is his product's row, -1 if this is it. He has no day yet."""
    row = t.used[ROWS]
    t.used[ROWS] = row + 1
    t.slots[slot] = row + 1
    t.rows[row].user = user
    t.rows[row].campaign = campaign
    t.rows[row].days = 0
    t.rows[row].bad_ms = NEVER_MS
    t.rows[row].next = 0
    t.rows[row].product = NONE
    if head >= 0:
        t.rows[row].next = t.rows[head].next
        t.rows[head].next = row + 1
    return int(row)


@flat_kernel
def has_day(days: np.uint64, day: int) -> bool:
    """Whether a bit is set."""
    found: bool = (days >> np.uint64(day)) & np.uint64(1) != 0
    return found


@flat_kernel
def count_cell(t: Cohorts, cohort: int, day: int, users: int, bad_ms: int) -> None:
    """Add a user to a cell, or take him away."""
    t.gross[cohort, day] += users
    if bad_ms < t.ends_ms[cohort, day] + t.restate_ms[0]:
        t.suspect[cohort, day] += users
    t.cohorts[cohort].dirty = 1


@flat_kernel
def count_row(t: Cohorts, row: int, users: int, bad_ms: int) -> None:
    """Add a user to the cells of all of his days, or take him away."""
    for day in range(t.gross.shape[1]):
        if has_day(t.rows[row].days, day):
            count_cell(t, t.rows[row].cohort, day, users, bad_ms)


@flat_kernel
def see(t: Cohorts, row: int, cohort: int, bad_ms: int) -> None:
    """Note that a user was seen on the date of ``cohort``."""
    held, days = t.rows[row].cohort, t.rows[row].days
    if days == 0:
        t.rows[row].cohort = cohort
        t.rows[row].days = np.uint64(1)
        count_cell(t, cohort, 0, 1, bad_ms)
        return
    if held == OVER:
        return
    day = t.cohorts[cohort].day - t.cohorts[held].day
    if day < 0:
        count_row(t, row, -1, bad_ms)
        width = t.gross.shape[1]
        moved = days << np.uint64(-day) if -day < width else np.uint64(0)
        kept = ~np.uint64(0) >> np.uint64(64 - width)
        t.rows[row].cohort = cohort
        t.rows[row].days = moved & kept | np.uint64(1)
        count_row(t, row, 1, bad_ms)
    elif day < t.gross.shape[1] and not has_day(days, day):
        t.rows[row].days = days | np.uint64(1) << np.uint64(day)
        count_cell(t, held, day, 1, bad_ms)


@flat_kernel
def is_noted(t: Cohorts, row: int, cohort: int) -> bool:
    """Whether a user's having been seen on the date of ``cohort`` changes nothing."""
    held = t.rows[row].cohort
    if held == OVER:
        return True
    day = t.cohorts[cohort].day - t.cohorts[held].day
    noted: bool = day >= t.gross.shape[1] or (day >= 0 and has_day(t.rows[row].days, day))
    return noted


@flat_kernel
def recent_cohort(t: Cohorts, campaign: int, day: int) -> int:
    """Cohort of a date, or NONE if it is not among those found at once."""
    cohort = t.recent[campaign + 1, day % RECENT_DAYS]
    return NONE if cohort != NONE and t.cohorts[cohort].day != day else int(cohort)


@flat_kernel
def fetch_ahead(
    t: Cohorts, users: NDArray[np.uint64], campaigns: NDArray[np.int32], news: NDArray[np.bool_], i: int
) -> None:
    """Ask for the memory that events to come need."""
    if i + _FAR < len(users) and news[i + _FAR]:
        prefetch(t.slots, first_slot(row_hash(users[i + _FAR], campaigns[i + _FAR]), len(t.slots)))
    if i + _NEAR < len(users) and news[i + _NEAR]:
        row = t.slots[first_slot(row_hash(users[i + _NEAR], campaigns[i + _NEAR]), len(t.slots))]
        if row != 0:
            prefetch(t.rows, row - 1)


@flat_kernel
def see_all(
    t: Cohorts,
    users: NDArray[np.uint64],
    campaigns: NDArray[np.int32],
    local_days: NDArray[np.int64],
    utc_days: NDArray[np.int64],
    news: NDArray[np.bool_],
    at: int,
) -> int:
    """Note who was seen from ``at`` on, where there are ``news``; return how many events were looked at.

    It ends before the first one for which there is no room, or whose cohorts are not in ``recent``.
    """
    for i in range(at, len(users)):
        fetch_ahead(t, users, campaigns, news, i)
        if not news[i] or not is_kept(users[i], t.level[0]):
            continue
        of_product = recent_cohort(t, PRODUCT, utc_days[i])
        of_campaign = recent_cohort(t, campaigns[i], local_days[i])
        if min(of_product, of_campaign) == NONE or t.used[ROWS] + 2 > len(t.rows):
            return i
        slot = row_slot(t, users[i], campaigns[i])
        row = t.slots[slot] - 1
        if row >= 0 and t.rows[row].product == of_product and is_noted(t, row, of_campaign):
            continue
        product_slot = row_slot(t, users[i], PRODUCT)
        head = t.slots[product_slot] - 1
        if head < 0:
            head = new_row(t, product_slot, users[i], PRODUCT, -1)
            slot = row_slot(t, users[i], campaigns[i])  # the new row may have taken it
        see(t, head, of_product, t.rows[head].bad_ms)
        if row < 0:
            row = new_row(t, slot, users[i], campaigns[i], head)
        see(t, row, of_campaign, t.rows[head].bad_ms)
        t.rows[row].product = of_product
    return len(users)


@flat_kernel
def hold(t: Cohorts, head: int, bad_ms: int, watermark_ms: int) -> None:
    """Set the lowest time of a verdict that is held against a user; cells that were over at the watermark stay."""
    before_ms = t.rows[head].bad_ms
    t.rows[head].bad_ms = bad_ms
    link = head + 1
    while link != 0:
        row = t.rows[link - 1]
        link = row.next
        if row.cohort == OVER:
            continue
        for day in range(t.gross.shape[1]):
            limit_ms = t.ends_ms[row.cohort, day] + t.restate_ms[0]
            change = int(bad_ms < limit_ms) - int(before_ms < limit_ms)
            if change != 0 and limit_ms > watermark_ms and has_day(row.days, day):
                t.suspect[row.cohort, day] += change
                t.cohorts[row.cohort].dirty = 1


@flat_kernel
def hold_all(
    t: Cohorts, users: NDArray[np.uint64], bad_ms: NDArray[np.int64], watermark_ms: int, verdicts: bool
) -> None:
    """Apply :func:`hold` to users who are known; ``verdicts``: only where the time is lower than before."""
    for i in range(len(users)):
        slot = row_slot(t, users[i], PRODUCT)
        if t.slots[slot] == 0:
            continue
        head = t.slots[slot] - 1
        if not verdicts or bad_ms[i] < t.rows[head].bad_ms:
            hold(t, head, bad_ms[i], watermark_ms)


@flat_kernel
def copy_rows(
    before: Cohorts,
    fresh: Cohorts,
    cohort_map: NDArray[np.int32],
    dropped: NDArray[np.bool_],
    is_open: NDArray[np.bool_],
) -> None:
    """Enter the rows that the level of ``fresh`` keeps, without those of dropped campaigns; count them in open cells.

    ``cohort_map`` gives each cohort its new row, or OVER; ``dropped`` is by number of the campaign, ``is_open`` bool
    like the cells of ``fresh``, which are 0 where it is true.
    """
    for i in range(before.used[ROWS]):
        row = before.rows[i]
        if not is_kept(row.user, fresh.level[0]) or (row.campaign >= 0 and dropped[row.campaign]):
            continue
        head = -1
        if row.campaign != PRODUCT:
            head = fresh.slots[row_slot(fresh, row.user, PRODUCT)] - 1
        copied = new_row(fresh, row_slot(fresh, row.user, row.campaign), row.user, row.campaign, head)
        cohort = OVER if row.cohort == OVER else cohort_map[row.cohort]
        fresh.rows[copied].days = row.days
        fresh.rows[copied].bad_ms = row.bad_ms
        fresh.rows[copied].cohort = cohort
        if cohort == OVER:
            continue
        bad_ms = row.bad_ms if head < 0 else fresh.rows[head].bad_ms
        for day in range(fresh.gross.shape[1]):
            if is_open[cohort, day] and has_day(row.days, day):
                count_cell(fresh, cohort, day, 1, bad_ms)

"""Where the step events of all users of one funnel lie: slabs in one arena, found by user and campaign.

A slab that is full is pruned first, and moves to one of double size at the arena's end only if that did not
help. When the arena's end is reached, all slabs are pruned and those that are left are moved together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.definitions import FunnelPlan
from metrics.funnel_chains import (
    STEP_EVENT,
    Steps,
    first_start,
    follow_chain,
    insert_event,
    is_counted,
    prune_slab,
)
from metrics.hash_index import first_slot, mixed, new_index, power_of_two
from metrics.sampling import is_kept
from schemas.flat_kernels import flat_kernel

SLAB = np.dtype(
    [
        ("user", "u8"),
        ("span", "i8"),
        ("begin", "i4"),
        ("used", "i4"),
        ("room", "i4"),
        ("campaign", "i4"),
        ("starts", "i4"),
        ("starts_before", "i4"),
        ("steps", "i4"),
        ("steps_before", "i4"),
    ],
    align=True,
)
"""``begin``, ``used``, ``room``: its events in the arena. ``span``: the latest span of time that events were
in; ``starts``, ``steps`` (and ``_before``): how many starts and later steps were taken in it (and in the one
before)."""
REACHED = np.dtype(
    [("start_ms", "i8"), ("row", "i4"), ("cell", "i4"), ("from_step", "i4"), ("to_step", "i4")], align=True
)
"""Event ``row`` of the batch lets a chain that began at ``start_ms`` in ``cell`` reach steps from_step + 1 ..
to_step.
"""

SLABS, ARENA, IGNORED = range(3)
MOST, LEVEL = range(2)
FIRST_ROOM = 4
DONE, SLABS_FULL, REACHED_FULL = range(3)


class Slabs(NamedTuple):
    """The arrays: ``used`` is int64[3]: slabs and arena rows in use, events ignored beyond the limit.

    ``limits`` is int64[2]: events of a user, and the level of the sample of users (:mod:`metrics.sampling`).
    """

    slabs: NDArray[np.void]
    slots: NDArray[np.int32]
    arena: NDArray[np.void]
    used: NDArray[np.int64]
    limits: NDArray[np.int64]


def new_slabs(slabs: int, arena: int, *, most: int, level: int) -> Slabs:
    """Empty slabs.

    ``most``: events of a user in a campaign taken in one span, of each of two sorts; ``level``: of the sample of users.
    """
    return Slabs(
        slabs=np.zeros(slabs, SLAB),
        slots=new_index(slabs),
        arena=np.zeros(arena, STEP_EVENT),
        used=np.zeros(3, np.int64),
        limits=np.array([most, level], np.int64),
    )


def make_steps(plan: FunnelPlan, lateness_ms: int) -> Steps:
    """Arrange a funnel for the kernels. The kinds are its event names in order of appearance."""
    names = tuple(dict.fromkeys(plan.steps))
    kinds = [names.index(name) for name in plan.steps]
    return Steps(
        kinds=np.array(kinds, np.int64),
        step_of=np.array(
            [kinds.index(i) if kinds.count(i) == 1 else -1 for i in range(len(names))], np.int64
        ),
        windows_ms=np.array(plan.windows_ms, np.int64),
        limits=np.array([plan.within_ms, plan.ties_allowed, plan.within_ms + lateness_ms], np.int64),
        pointers=np.zeros(len(kinds), np.int64),
        positions=np.zeros(len(kinds), np.int64),
        kept_ms=np.zeros(len(names), np.int64),
        last_ms=np.zeros(len(names), np.int64),
    )


@flat_kernel
def slab_slot(s: Slabs, user: np.uint64, campaign: int) -> int:
    """Slot of a slab, or the empty one where it belongs."""
    slot = first_slot(mixed(user, campaign), len(s.slots))
    while s.slots[slot] != 0:
        slab = s.slabs[s.slots[slot] - 1]
        if slab.user == user and slab.campaign == campaign:
            break
        slot = (slot + 1) & (len(s.slots) - 1)
    return slot


@flat_kernel
def add_slab(s: Slabs, user: np.uint64, campaign: int, room: int) -> int:
    """Row of a new, empty slab; there must be room for it."""
    row: int = s.used[SLABS]
    s.used[SLABS] = row + 1
    s.slots[slab_slot(s, user, campaign)] = row + 1
    slab = s.slabs[row]
    slab.user = user
    slab.campaign = campaign
    slab.begin = s.used[ARENA]
    slab.room = room
    slab.used = 0
    slab.span = -1
    slab.starts = 0
    slab.starts_before = 0
    slab.steps = 0
    slab.steps_before = 0
    s.used[ARENA] += room
    return row


@flat_kernel
def find_slab(s: Slabs, user: np.uint64, campaign: int) -> int:
    """Row of a slab, a new one if there is none; -1 if there is no room for it."""
    found = s.slots[slab_slot(s, user, campaign)]
    if found != 0:
        row: int = found - 1
        return row
    if s.used[SLABS] == len(s.slabs) or s.used[ARENA] + FIRST_ROOM > len(s.arena):
        return -1
    return add_slab(s, user, campaign, FIRST_ROOM)


@flat_kernel
def make_room(s: Slabs, row: int, steps: Steps, watermark_ms: int) -> bool:
    """Make room for one more event in a slab; False if the arena has none."""
    slab = s.slabs[row]
    if slab.used < slab.room:
        return True
    slab.used = prune_slab(s.arena[slab.begin : slab.begin + slab.used], slab.used, steps, watermark_ms)
    if 4 * slab.used <= 3 * slab.room:
        return True
    if s.used[ARENA] + 2 * slab.room > len(s.arena):
        fits: bool = slab.used < slab.room
        return fits
    begin = s.used[ARENA]
    for i in range(slab.used):
        s.arena[begin + i] = s.arena[slab.begin + i]
    slab.begin = begin
    slab.room *= 2
    s.used[ARENA] += slab.room
    return True


@flat_kernel
def within_limit(s: Slabs, row: int, ts_ms: int, is_start: bool, span_ms: int) -> bool:
    """Count an event against the limit of its span; False if that is used up.

    Decided by the events taken before alone, whatever was pruned and when. Starts and later steps have a
    limit each, so that a million looks do not hide a purchase.
    """
    slab = s.slabs[row]
    span = ts_ms // span_ms
    if span > slab.span:
        next_one = span == slab.span + 1
        slab.starts_before = slab.starts if next_one else 0
        slab.steps_before = slab.steps if next_one else 0
        slab.starts = 0
        slab.steps = 0
        slab.span = span
    if span == slab.span:
        taken = slab.starts if is_start else slab.steps
    else:
        taken = slab.starts_before if is_start else slab.steps_before
    if taken >= s.limits[MOST]:
        s.used[IGNORED] += 1
        return False
    if span == slab.span:
        slab.starts += 1 if is_start else 0
        slab.steps += 0 if is_start else 1
    else:
        slab.starts_before += 1 if is_start else 0
        slab.steps_before += 0 if is_start else 1
    return True


@flat_kernel
def extend_chains(
    slab: NDArray[np.void], used: int, at: int, row: int, steps: Steps, reached: NDArray[np.void], count: int
) -> int:
    """Follow all starts that the event at ``at`` can help and append what they reach; return the count."""
    first = first_start(slab, at, steps)
    for step in range(len(steps.kinds)):
        steps.pointers[step] = first
    begin = at if steps.step_of[slab[at].kind] == 0 else first
    for start in range(begin, at + 1):
        if slab[start].kind != steps.kinds[0] or slab[start].reached == len(steps.kinds):
            continue
        to_step = follow_chain(slab, used, start, steps)
        if to_step > slab[start].reached and is_counted(slab, start, to_step, steps):
            slab[start].reached = to_step
        elif to_step > slab[start].reached:
            reached[count].row = row
            reached[count].start_ms = slab[start].ts_ms
            reached[count].cell = slab[start].cell
            reached[count].from_step = slab[start].reached
            reached[count].to_step = to_step
            slab[start].reached = to_step
            count += 1
    return count


@flat_kernel
def touch_slabs(
    s: Slabs,
    users: NDArray[np.uint64],
    campaigns: NDArray[np.int32],
    kinds: NDArray[np.int8],
    begin: int,
    found: NDArray[np.int64],
) -> int:
    """Read what the next events will look for, in loops so short that their cache misses overlap.

    Taking the events one by one waits for each miss: with this it takes half the time. ``found`` is scratch, its
    length the number of events; the sum returned means nothing and keeps the loops from being left out.
    """
    count = min(len(found), len(users) - begin)
    for i in range(count):
        slot = first_slot(mixed(users[begin + i], campaigns[begin + i]), len(s.slots))
        found[i] = s.slots[slot] if kinds[begin + i] >= 0 else 0
    for i in range(count):
        found[i] = s.slabs[found[i] - 1].begin if found[i] > 0 else 0
    total = 0
    for i in range(count):
        total += s.arena[found[i]].cell
    return total


@flat_kernel
def take_events(
    s: Slabs,
    steps: Steps,
    users: NDArray[np.uint64],
    campaigns: NDArray[np.int32],
    cells: NDArray[np.int32],
    kinds: NDArray[np.int8],
    ts_ms: NDArray[np.int64],
    watermark_ms: int,
    reached: NDArray[np.void],
    progress: NDArray[np.int64],
    found: NDArray[np.int64],
) -> int:
    """Take events; return DONE or what there is no room in.

    ``kinds`` is -1 for events that take no step; ``progress`` is (next row, rows of ``reached`` filled, nothing).
    """
    for i in range(progress[0], len(users)):
        if i % len(found) == 0:
            progress[2] += touch_slabs(s, users, campaigns, kinds, i, found)
        progress[0] = i
        if kinds[i] < 0 or not is_kept(users[i], s.limits[LEVEL]):
            continue
        row = find_slab(s, users[i], campaigns[i])
        if row < 0 or not make_room(s, row, steps, watermark_ms):
            return SLABS_FULL
        slab = s.slabs[row]
        if progress[1] + slab.used + 1 > len(reached):
            return REACHED_FULL
        if not within_limit(s, row, ts_ms[i], steps.step_of[kinds[i]] == 0, steps.limits[2]):
            continue
        events = s.arena[slab.begin : slab.begin + slab.room]
        at = insert_event(events, slab.used, ts_ms[i], cells[i], kinds[i])
        slab.used += 1
        progress[1] = extend_chains(events, slab.used, at, i, steps, reached, progress[1])
    progress[0] = len(users)
    return DONE


@flat_kernel
def prune_all(s: Slabs, steps: Steps, watermark_ms: int, span_after: int) -> int:
    """Prune every slab; return how much of an arena those need that :func:`move_slabs` copies."""
    needed = 0
    for row in range(s.used[SLABS]):
        slab = s.slabs[row]
        slab.used = prune_slab(s.arena[slab.begin : slab.begin + slab.used], slab.used, steps, watermark_ms)
        needed += room_for(slab.used) if is_wanted(s, row, span_after) else 0
    return needed


@flat_kernel
def is_wanted(s: Slabs, row: int, span_after: int) -> bool:
    """Whether a slab holds anything or was last used in a span from ``span_after`` on, by a user of the sample."""
    slab = s.slabs[row]
    wanted: bool = (slab.used > 0 or slab.span >= span_after) and is_kept(slab.user, s.limits[LEVEL])
    return wanted


@flat_kernel
def count_wanted(s: Slabs, span_after: int) -> int:
    """How many slabs :func:`move_slabs` copies."""
    count = 0
    for row in range(s.used[SLABS]):
        count += 1 if is_wanted(s, row, span_after) else 0
    return count


@flat_kernel
def room_for(used: int) -> int:
    """Room of a slab with so many events and one more."""
    room = FIRST_ROOM
    while room <= used:
        room *= 2
    return room


@flat_kernel
def move_slabs(before: Slabs, after: Slabs, span_after: int) -> None:
    """Copy slabs that are wanted."""
    for row in range(before.used[SLABS]):
        old = before.slabs[row]
        if not is_wanted(before, row, span_after):
            continue
        new = after.slabs[add_slab(after, old.user, old.campaign, room_for(old.used))]
        new.used = old.used
        new.span = old.span
        new.starts = old.starts
        new.starts_before = old.starts_before
        new.steps = old.steps
        new.steps_before = old.steps_before
        for i in range(old.used):
            after.arena[new.begin + i] = before.arena[old.begin + i]


def tidied(slabs: Slabs, steps: Steps, watermark_ms: int) -> Slabs:
    """Pruned copy with room for as much again.

    A slab of which nothing is left goes when no event to come can lie in its latest span, or it would forget
    its limit.
    """
    span_after = watermark_ms // int(steps.limits[2])
    needed = int(prune_all(slabs, steps, watermark_ms, span_after))
    kept = int(count_wanted(slabs, span_after))
    most, level = slabs.limits.tolist()
    after = new_slabs(power_of_two(2 * kept), power_of_two(2 * needed), most=most, level=level)
    after.used[IGNORED] = slabs.used[IGNORED]
    move_slabs(slabs, after, span_after)
    return after

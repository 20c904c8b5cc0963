"""Chains of one user in one campaign: what a new event makes reachable, and what need not be kept.

The step events of a user lie in a slab, ordered by event time. An event that comes late finds its place, and
all starts it can help are followed anew: from a start, taking the earliest possible event for each step in
turn reaches as far as any chain from it. Later starts reach each step later, so one pointer a step moves
forward only, and following all starts costs the length of the slab times the steps.

With ``ties_allowed`` events of equal time may follow each other in any order, each at most once in a chain.
Events that can take the same step have the same name, hence taking the first that the chain has not used is
again best.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel

STEP_EVENT = np.dtype(
    [("ts_ms", "i8"), ("cell", "i4"), ("kind", "u1"), ("reached", "u1"), ("dead", "u1")], align=True
)
"""``kind``: which of the funnel's distinct event names. ``reached``: steps reached from here if it is a
start.
"""

NEAR = 4
LATEST_MS = np.iinfo(np.int64).max


class Steps(NamedTuple):
    """A funnel, as kernels take it.

    Parameters
    ----------
    kinds
        int64[steps]: kind of event that takes each step.
    step_of
        int64[kinds]: the step that a kind takes, -1 if it takes several.
    windows_ms
        int64[windows]: lengths, 0 for endless.
    limits
        int64[3]: within_ms, 1 if ties are allowed, length in ms of the spans in which events are limited.
    pointers, positions
        int64[steps]: scratch.
    kept_ms, last_ms
        int64[kinds]: scratch.
    """

    kinds: NDArray[np.int64]
    step_of: NDArray[np.int64]
    windows_ms: NDArray[np.int64]
    limits: NDArray[np.int64]
    pointers: NDArray[np.int64]
    positions: NDArray[np.int64]
    kept_ms: NDArray[np.int64]
    last_ms: NDArray[np.int64]


@flat_kernel
def insert_event(slab: NDArray[np.void], used: int, ts_ms: int, cell: int, kind: int) -> int:
    """Put an event behind all that are not later; return its place. There must be room."""
    at = used
    while at > 0 and slab[at - 1].ts_ms > ts_ms:
        slab[at] = slab[at - 1]
        at -= 1
    slab[at].ts_ms = ts_ms
    slab[at].cell = cell
    slab[at].kind = kind
    slab[at].reached = 0
    return at


@flat_kernel
def first_start(slab: NDArray[np.void], at: int, steps: Steps) -> int:
    """Earliest place whose event may begin a chain with the event at ``at``."""
    earliest_ms = slab[at].ts_ms
    if steps.step_of[slab[at].kind] != 0:
        earliest_ms -= steps.limits[0]
    first = at
    while first > 0 and slab[first - 1].ts_ms >= earliest_ms:
        first -= 1
    return first


@flat_kernel
def unused_event(slab: NDArray[np.void], used: int, place: int, step: int, steps: Steps) -> int:
    """First event of its kind from ``place`` on that the chain did not take before ``step``."""
    kind = steps.kinds[step]
    earlier = 0
    while earlier < step and place < used:
        if steps.positions[earlier] == place:
            place += 1
            while place < used and slab[place].kind != kind:
                place += 1
            earlier = 0
        else:
            earlier += 1
    return place


@flat_kernel
def follow_chain(slab: NDArray[np.void], used: int, start: int, steps: Steps) -> int:
    """Steps reached from a start. ``pointers`` must not have passed what it can use; they move on."""
    ts_ms = slab[start].ts_ms
    deadline_ms = ts_ms + steps.limits[0]
    strict = 1 - steps.limits[1]
    steps.positions[0] = start
    for step in range(1, len(steps.kinds)):
        place = steps.pointers[step]
        kind = steps.kinds[step]
        while place < used and (slab[place].kind != kind or slab[place].ts_ms < ts_ms + strict):
            place += 1
        steps.pointers[step] = place
        if strict == 0:
            place = unused_event(slab, used, place, step, steps)
        if place >= used or slab[place].ts_ms > deadline_ms:
            return step
        steps.positions[step] = place
        ts_ms = slab[place].ts_ms
    return len(steps.kinds)


@flat_kernel
def is_live(slab: NDArray[np.void], place: int, steps: Steps, watermark_ms: int) -> bool:
    """Whether an event is a start from which an event to come may reach a further step."""
    live: bool = (
        slab[place].kind == steps.kinds[0]
        and slab[place].reached < len(steps.kinds)
        and slab[place].ts_ms + steps.limits[0] >= watermark_ms
    )
    return live


@flat_kernel
def mark_over(slab: NDArray[np.void], used: int, steps: Steps, watermark_ms: int) -> None:
    """Mark what no chain to come can use: starts that are over, and steps that lie before all others."""
    needed_ms = watermark_ms
    for i in range(used):
        if is_live(slab, i, steps, watermark_ms):
            needed_ms = min(needed_ms, slab[i].ts_ms)
            break
    for i in range(used):
        start_only = steps.step_of[slab[i].kind] == 0
        over = start_only or slab[i].ts_ms < needed_ms
        slab[i].dead = 1 if over and not is_live(slab, i, steps, watermark_ms) else 0


@flat_kernel
def same_windows(first_ms: int, second_ms: int, steps: Steps) -> bool:
    """Whether chains that begin at these times count in the same windows."""
    for window_ms in steps.windows_ms:
        if window_ms > 0 and first_ms // window_ms != second_ms // window_ms:
            return False
    return True


@flat_kernel
def is_counted(slab: NDArray[np.void], start: int, to_step: int, steps: Steps) -> bool:
    """Whether a start just before, of equal keys, has reached as much: then the user counts there already."""
    for place in range(max(0, start - NEAR), start):
        if (
            slab[place].kind == steps.kinds[0]
            and slab[place].cell == slab[start].cell
            and slab[place].reached >= to_step
            and same_windows(slab[place].ts_ms, slab[start].ts_ms, steps)
        ):
            return True
    return False


@flat_kernel
def mark_outdone_starts(slab: NDArray[np.void], used: int, steps: Steps, watermark_ms: int) -> None:
    """Mark starts behind which another one of equal keys lies with no second step in between, now or ever.

    Whatever a chain from the first may reach, the other one reaches too, and has longer time for it.
    """
    if len(steps.kinds) < 2 or steps.step_of[steps.kinds[0]] != 0:
        return
    second_ms = LATEST_MS
    later = -1
    for i in range(used - 1, -1, -1):
        if slab[i].kind == steps.kinds[1]:
            second_ms = slab[i].ts_ms
        elif slab[i].kind == steps.kinds[0] and slab[i].dead == 0:
            if (
                later >= 0
                and slab[later].cell == slab[i].cell
                and slab[later].ts_ms < min(watermark_ms, second_ms)
                and same_windows(slab[i].ts_ms, slab[later].ts_ms, steps)
            ):
                slab[i].dead = 1
            else:
                later = i


@flat_kernel
def mark_outdone_steps(slab: NDArray[np.void], used: int, steps: Steps, watermark_ms: int) -> None:
    """Mark events of a later step that follow another one with no step before it in between, now or ever."""
    kept_ms, last_ms = steps.kept_ms, steps.last_ms
    for kind in range(len(steps.step_of)):
        kept_ms[kind], last_ms[kind] = LATEST_MS, -1
    for i in range(used):
        kind = slab[i].kind
        step = steps.step_of[kind]
        if slab[i].dead == 0 and step > 0:
            if last_ms[steps.kinds[step - 1]] < kept_ms[kind] < LATEST_MS and slab[i].ts_ms < watermark_ms:
                slab[i].dead = 1
            else:
                kept_ms[kind] = slab[i].ts_ms
        last_ms[kind] = slab[i].ts_ms


@flat_kernel
def prune_slab(slab: NDArray[np.void], used: int, steps: Steps, watermark_ms: int) -> int:
    """Drop what cannot change a count any more; return how many events stay, in their order.

    ``watermark_ms``: no event to come lies below it.
    """
    mark_over(slab, used, steps, watermark_ms)
    if steps.limits[1] == 0:
        mark_outdone_starts(slab, used, steps, watermark_ms)
        mark_outdone_steps(slab, used, steps, watermark_ms)
    kept = 0
    for i in range(used):
        if slab[i].dead == 0:
            slab[kept] = slab[i]
            kept += 1
    return kept

"""Memory, speed and error of counts under millions of users, devices and addresses, each of them seen once."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.report import Table
from metrics.merged_rows import UserRow
from metrics.rollup import Rollup
from schemas.config import Config
from schemas.decode import decode_json
from schemas.events import CLICKS, EventBatch
from schemas.keys import KeyRing
from schemas.partials import DAU, FUNNEL
from streams.replay import Core

FIRST_MS = 1_767_571_200_000
EVENTS_PER_S = 5_000
TURN_USERS = 16_000
CLICK_EVERY, SUSPECT_EVERY = 4, 10
"""Every fourth user takes the funnel's second step, every tenth is suspect."""
CHANNELS = 12
_MIB = 1 << 20


def measure(config: Config, *, users: int, report: Callable[[str], None]) -> list[Table]:
    """Judge and count so many users in one partition; a table of figures, and one of counts beside the truth."""
    ring = KeyRing(b"a key for measuring, not a secret")
    core, rollup = Core(config, ring), Rollup()
    for lines, _ in _turns(2 * TURN_USERS, start=users):
        Core(config, ring).judge(_decoded(lines, 0))  # compiles
    began_s, before = time.process_time(), _peak_mib()
    outcomes = np.zeros(4, np.int64)
    offset = 0
    for number, (lines, done) in enumerate(_turns(users)):
        verdicts = core.judge(_decoded(lines, offset))
        offset += len(lines)
        late = int(verdicts.late.sum())
        outcomes += (
            len(verdicts.rows) - late,
            late,
            verdicts.outcomes.duplicates,
            verdicts.outcomes.rejected,
        )
        if number % 10 == 9 or done == users:
            for block in core.metrics.changed_blocks(verdicts.turn):
                rollup.put(block)
        if number % 50 == 49:
            report(f"{done:,} users, {_peak_mib():,.0f} MiB at most")
    cpu_s = time.process_time() - began_s
    names = ("verdicts", "late", "duplicates", "rejected")
    figures = [
        *((name, f"{count:,}") for name, count in zip(names, outcomes.tolist(), strict=True)),
        ("CPU us an event, making it included", f"{cpu_s / offset * 1e6:.1f}"),
        ("resident before, MiB", f"{before:,.0f}"),
        ("resident at most, MiB", f"{_peak_mib():,.0f}"),
        *((name, f"{count:,}") for name, count in core.forgotten().items()),
    ]
    title = f"{users:,} users, devices and addresses in one partition"
    return [
        Table(title, ("what", "figure"), figures),
        Table(
            "Counts beside the truth",
            ("count", "truth", "counted", "off by", "error"),
            list(_counts(rollup, users)),
        ),
    ]


def _turns(users: int, *, start: int = 0) -> Iterator[tuple[list[bytes], int]]:
    """Events of a turn as JSON, and how many users there were until then."""
    number = 0
    for first in range(start, start + users, TURN_USERS):
        last = min(first + TURN_USERS, start + users)
        views = [("view", user) for user in range(first, last)]
        clicks = [("click", user) for user in range(first, last) if user % CLICK_EVERY == 0]
        yield [_line(number + i, *event) for i, event in enumerate(views + clicks)], last - start
        number += len(views) + len(clicks)


def _line(number: int, event: str, user: int) -> bytes:
    suspect = user % SUSPECT_EVERY == 0
    dwell_ms, amount_minor, page = (100, 10, "/landing") if suspect else (6_000, 3_000, "/item")
    return (
        f'{{"event_id":"e{number}","event":"{event}","ts":{FIRST_MS + number * 1000 // EVENTS_PER_S},'
        f'"user_id":"u{user}","device_id":"d{user}","ip":"{10 + (user >> 24)}.{user >> 16 & 255}.{user >> 8 & 255}.'
        f'{user & 255}","phone":"138{user % 10**8:08d}","channel":"c{user % 97 % CHANNELS}","campaign":"spring",'
        f'"page":"{page}","dwell_ms":{dwell_ms},"amount_minor":{amount_minor}}}'
    ).encode()


def _decoded(lines: list[bytes], offset: int) -> EventBatch:
    last = offset + len(lines)
    return decode_json(
        lines, topic=CLICKS, partition=0, start=offset, next=last, offsets=np.arange(offset, last)
    )


def _counts(rollup: Rollup, users: int) -> Iterator[tuple[str, ...]]:
    truth = {
        "DAU": (users, users // SUSPECT_EVERY),
        "DAU, channel c00": tuple(
            sum(1 for user in range(0, users, step) if user % 97 % CHANNELS == 0)
            for step in (1, SUSPECT_EVERY)
        ),
        "funnel, step 1": (users, users // SUSPECT_EVERY),
        "funnel, step 2": (users // CLICK_EVERY, users // (2 * SUSPECT_EVERY)),
    }
    found = _found(rollup)
    for name, whole in truth.items():
        row = found[name]
        for part, true, counted in zip(("gross", "suspect"), whole, row[4:6], strict=True):
            off = f"{(counted - true) / true:+.2%}"
            yield (
                f"{name}, {part}",
                f"{true:,}",
                f"{counted:,}",
                off,
                f"{row[6]:.2%}" if part == "gross" else "",
            )


def _found(rollup: Rollup) -> dict[str, UserRow]:
    rows: dict[str, UserRow] = {}
    for key in rollup.changed_keys():
        if key.metric not in (DAU, FUNNEL) or key.campaign is None:
            continue
        for row in rollup.merged(key).to_pylist():
            place = (key.metric, key.window, row["dim"], row["dim_value"], row.get("step", 0))
            name = _NAMES.get(place)
            if name:
                counts = row["users_gross"], row["users_suspect"], row["error"]
                rows[name] = (row["dim"], row["dim_value"], row.get("step", 0), "", *counts)
    return rows


_NAMES = {
    (DAU, "1d", "all", None, 0): "DAU",
    (DAU, "1d", "channel", "c0", 0): "DAU, channel c00",
    (FUNNEL, "all", "all", None, 1): "funnel, step 1",
    (FUNNEL, "all", "all", None, 2): "funnel, step 2",
}


def _peak_mib() -> float:
    """Largest resident memory of this process until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MIB

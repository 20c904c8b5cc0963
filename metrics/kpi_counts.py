"""What one judge partition counts for KPI alerts: users, events, sums and dwell times by window and value.

Windows stay open until the watermark has passed them; what is published of them before is as it stands. A user is
suspect in a window if a verdict of at least ``review`` has ts < the window's end, an event if its own verdict is one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from metrics.block_rows import row_order
from metrics.definitions import DEFINITION, ENDLESS_MS, EVENT_FIELD
from metrics.distinct_users import DistinctUsers
from metrics.event_tables import LARGEST
from metrics.kpi_plan import KpiPlan
from metrics.members import KEYS, Members, add_member, find_key, has_room, mark_all_bad
from metrics.members_snapshot import packed_members, unpacked_members
from metrics.names import ABSENT, OTHER, Names
from metrics.quantiles import BOUNDARIES
from schemas.errors import StateError
from schemas.events import TOPICS
from schemas.flat_kernels import flat_kernel
from schemas.kpi_metric import DWELL, SUM
from schemas.partials import KPI, KPI_PROGRESS, Block, BlockKey, KpiProgress, KpiRows, encode_rows

MOST_VALUES = 1_024
"""Values of a dimension, first come; all others are one, ``(other)``, in KPI alerts."""

_PLACES = 4_096
"""More than there are buckets: window, value, suspect and place make one number, 40 bits of it for the windows."""


class KpiColumns(NamedTuple):
    """Judged rows of a batch, those on time: what is looked at of each.

    ``users`` uint64[m] keys, ``bad`` bool[m] verdicts of at least ``review``, ``numbers`` int32[m] of names by field,
    ``integers`` int64[m] by field, -1 for absent.
    """

    topic: int
    users: NDArray[np.uint64]
    bad: NDArray[np.bool_]
    numbers: Mapping[str, NDArray[np.int32]]
    integers: Mapping[str, NDArray[np.int64]]


class _Window(msgspec.Struct, array_like=True):
    """Events of one KPI in one window: counts by value, suspect and place."""

    counts: dict[tuple[int, bool, int], int]
    dirty: bool


class _Meta(msgspec.Struct):
    """What is not a column."""

    identities: list[str]
    progress_ms: list[int | None]
    windows: list[tuple[int, int, _Window]]


_meta_decoder = msgspec.msgpack.Decoder(_Meta)


class KpiCounts:
    """Counts for the KPI alerts of one partition.

    Costs 24 bytes for a user in an open window and step, some 150 for a value (a bucket, for dwell times) in one.
    """

    def __init__(self, plans: tuple[KpiPlan, ...]) -> None:
        self.plans = plans
        self.progress_ms: list[int | None] = [None] * len(TOPICS)
        self._users = DistinctUsers(_definitions(plans), restate_ms=0)
        self._windows: dict[tuple[int, int], _Window] = {}
        self._first_end_ms = ENDLESS_MS
        self._told: KpiProgress | None = None

    def count(self, columns: KpiColumns, names: Names, watermark_ms: int) -> None:
        """Count a batch; ``names`` are those of events, no row of a later batch lies below ``watermark_ms``."""
        if not self.plans:
            return
        ts_ms = columns.integers["ts"]
        held = self.progress_ms[columns.topic]
        latest = int(ts_ms.max())
        self.progress_ms[columns.topic] = latest if held is None else max(held, latest)
        self._count_users(columns, names)
        for number, plan in enumerate(self.plans):
            if not plan.metric.counts_users:
                self._count_events(number, plan, columns, names)
        self._users.forget(watermark_ms)
        if watermark_ms >= self._first_end_ms:
            self._windows = {
                place: window
                for place, window in self._windows.items()
                if window.dirty or self._end_ms(*place) > watermark_ms
            }
            self._first_end_ms = self._earliest_end_ms()

    def changed_blocks(
        self, names: Mapping[str, Names], *, source: int, turn: int, idle: Collection[int]
    ) -> list[Block]:
        """Absolute counts of the windows that changed since the last call, then how far the source is.

        ``idle`` are numbers of topics of which nothing more is expected soon.
        """
        found = [Block(_key(plan, start), source, turn, rows) for plan, start, rows in self._changed(names)]
        progress = KpiProgress([(ms, topic in idle) for topic, ms in enumerate(self.progress_ms)])
        if progress != self._told:
            rows = encode_rows(progress)
            found += [Block(progress_key(plan), source, turn, rows) for plan in self.plans]
            self._told = progress
        return found

    def _changed(self, names: Mapping[str, Names]) -> Iterator[tuple[KpiPlan, int, bytes]]:
        changed = self._users.changed_blocks()
        for block in changed.tolist():
            row = self._users.members.blocks[block]
            plan = self.plans[int(row["group"])]
            yield plan, int(row["start_ms"]), _packed(plan, self._users_by_value(block), names)
        self._users.published(changed)
        for (number, start_ms), window in self._windows.items():
            if window.dirty:
                window.dirty = False
                plan = self.plans[number]
                yield plan, start_ms, _packed(plan, _events_by_value(window), names)

    # -- users -------------------------------------------------------------------------------------------------

    def _count_users(self, columns: KpiColumns, names: Names) -> None:
        wanted = [
            (number, plan, _steps(plan, columns, names))
            for number, plan in enumerate(self.plans)
            if plan.metric.counts_users
        ]
        if not wanted:
            return
        seen = columns.bad.copy()
        for _, _, steps in wanted:
            seen |= steps >= 0
        rows = np.full(len(seen), -1, np.int32)
        rows[seen] = self._users.find_users(columns.users[seen])
        ts_ms = columns.integers["ts"]
        mark_all_bad(self._users.members, rows[columns.bad], ts_ms[columns.bad], columns.bad[columns.bad])
        for number, plan, steps in wanted:
            chosen = np.flatnonzero(steps >= 0)
            self._add_seen(
                number,
                rows[chosen],
                _values(plan, columns)[chosen],
                ts_ms[chosen],
                steps[chosen],
            )

    def _add_seen(
        self,
        definition: int,
        rows: NDArray[np.int32],
        values: NDArray[np.int32],
        ts_ms: NDArray[np.int64],
        steps: NDArray[np.int8],
    ) -> None:
        at = 0
        while at < len(rows):
            at = add_seen(self._users.members, definition, rows, values, ts_ms, steps, at)
            if at < len(rows):
                self._users.grow(links=1, keys=2, blocks=1)

    def _users_by_value(self, block: int) -> dict[int, tuple[dict[int, int], dict[int, int]]]:
        keys = self._users.members.keys
        found = {}
        for first in self._users.keys_of(block).tolist():
            width = int(self._users.members.definitions[keys["definition"][first]]["width"])
            gross, suspect = (keys[name][first : first + width].tolist() for name in ("gross", "suspect"))
            found[int(keys["value"][first])] = dict(enumerate(gross)), dict(enumerate(suspect))
        return found

    # -- events ------------------------------------------------------------------------------------------------

    def _count_events(self, number: int, plan: KpiPlan, columns: KpiColumns, names: Names) -> None:
        chosen = _steps(plan, columns, names) >= 0
        places, added = np.zeros(len(chosen), np.int64), np.ones(len(chosen), np.int64)
        if plan.metric.kind == DWELL:
            places = np.searchsorted(BOUNDARIES, columns.integers["dwell_ms"], side="right") - 1
            chosen &= places >= 0
        elif plan.metric.kind == SUM:
            added = columns.integers[plan.metric.field]
            chosen &= added >= 0
        if not chosen.any():
            return
        starts, windows = np.unique(columns.integers["ts"][chosen] // plan.window_ms, return_inverse=True)
        cells = (windows * MOST_VALUES + _values(plan, columns)[chosen]) * 2 + columns.bad[chosen]
        kinds, which = np.unique(cells * _PLACES + places[chosen], return_inverse=True)
        for kind, total in zip(kinds.tolist(), _capped_totals(which, added[chosen], len(kinds)), strict=True):
            cell, place = divmod(kind, _PLACES)
            window_value, bad = divmod(cell, 2)
            at, value = divmod(window_value, MOST_VALUES)
            window = self._window(number, int(starts[at]) * plan.window_ms)
            key = (value, bool(bad), place)
            window.counts[key] = min(window.counts.get(key, 0) + total, LARGEST)

    def _window(self, number: int, start_ms: int) -> _Window:
        """A window of a plan, which is about to change."""
        window = self._windows.setdefault((number, start_ms), _Window({}, dirty=True))
        window.dirty = True
        self._first_end_ms = min(self._first_end_ms, self._end_ms(number, start_ms))
        return window

    def _end_ms(self, number: int, start_ms: int) -> int:
        return start_ms + self.plans[number].window_ms

    def _earliest_end_ms(self) -> int:
        return min((self._end_ms(*place) for place in self._windows), default=ENDLESS_MS)

    # -- snapshots ---------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, NDArray[Any] | bytes]:
        """The whole state as flat bytes."""
        meta = _Meta(
            identities=[_identity(plan) for plan in self.plans],
            progress_ms=self.progress_ms,
            windows=[(number, start_ms, window) for (number, start_ms), window in self._windows.items()],
        )
        return {"meta": msgspec.msgpack.encode(meta), **packed_members(self._users.members)}

    def restore(self, state: Mapping[str, NDArray[Any] | bytes], watermark_ms: int) -> None:
        """Take up a snapshot, perhaps of other plans: what is counted alike goes on."""
        try:
            meta = _meta_decoder.decode(bytes(state["meta"]))
        except (KeyError, msgspec.DecodeError) as error:
            raise StateError("the KPI counts of a checkpoint cannot be read by this version") from error
        mine = [_identity(plan) for plan in self.plans]
        numbers = [mine.index(one) if one in mine else -1 for one in meta.identities]
        before = unpacked_members(state)
        self._users.rebuild(
            before,
            before_definitions=np.array(numbers, np.int32),
            keep=np.ones(before.used[KEYS], np.bool_),
            watermark_ms=watermark_ms,
        )
        self.progress_ms = list(meta.progress_ms)
        self._windows = {
            (numbers[number], start_ms): window
            for number, start_ms, window in meta.windows
            if numbers[number] >= 0
        }
        self._first_end_ms = self._earliest_end_ms()


def progress_key(plan: KpiPlan) -> BlockKey:
    """Under which a source says how far it is; it goes where the plan's windows go."""
    return BlockKey(KPI_PROGRESS, plan.name, "", None, plan.identity, None)


def _key(plan: KpiPlan, start_ms: int) -> BlockKey:
    return BlockKey(KPI, plan.name, "", start_ms, plan.identity, None)


def _identity(plan: KpiPlan) -> str:
    return f"{plan.name} {plan.identity}"


def _definitions(plans: tuple[KpiPlan, ...]) -> NDArray[np.void]:
    """DEFINITION[plans]: a group for each, a key for each step."""
    table = np.zeros(len(plans), DEFINITION)
    for number, (row, plan) in enumerate(zip(table, plans, strict=True)):
        row["window_ms"], row["group"], row["column"] = plan.window_ms, number, -1
        row["width"] = max(1, len(plan.metric.events))
    return table


def _steps(plan: KpiPlan, columns: KpiColumns, names: Names) -> NDArray[np.int8]:
    """Which of the plan's events each row is, -1 for none of them."""
    events = columns.numbers[EVENT_FIELD]
    steps = np.full(len(events), -1 if plan.metric.events else 0, np.int8)
    for step, name in enumerate(plan.metric.events):
        steps[events == names.known(name)] = step
    return steps


def _values(plan: KpiPlan, columns: KpiColumns) -> NDArray[np.int32]:
    if plan.by is None:
        return np.full(len(columns.users), ABSENT, np.int32)
    numbers = columns.numbers[plan.by]
    return np.where(numbers >= MOST_VALUES, OTHER, numbers).astype(np.int32)


def _capped_totals(which: NDArray[np.integer], added: NDArray[np.int64], count: int) -> list[int]:
    """Sum of what was added to each of ``count`` cells; numbers up to 2^53, summed in halves to stay exact."""
    low = np.bincount(which, added & 0xFFFFFFFF, count).astype(np.int64).tolist()
    high = np.bincount(which, added >> 32, count).astype(np.int64).tolist()
    return [min((upper << 32) + lower, LARGEST) for upper, lower in zip(high, low, strict=True)]


def _events_by_value(window: _Window) -> dict[int, tuple[dict[int, int], dict[int, int]]]:
    found: dict[int, tuple[dict[int, int], dict[int, int]]] = {}
    for (value, bad, place), count in sorted(window.counts.items()):
        gross, suspect = found.setdefault(value, ({}, {}))
        gross[place] = min(gross.get(place, 0) + count, LARGEST)
        if bad:
            suspect[place] = count
    return found


def _packed(
    plan: KpiPlan,
    by_value: Mapping[int, tuple[dict[int, int], dict[int, int]]],
    names: Mapping[str, Names],
) -> bytes:
    texts = [None] if plan.by is None else names[plan.by].names
    rows = [(texts[value], gross, suspect) for value, (gross, suspect) in by_value.items()]
    return encode_rows(KpiRows(sorted(rows, key=lambda row: row_order("", row[0]))))


@flat_kernel
def add_seen(
    m: Members,
    definition: int,
    users: NDArray[np.int32],
    values: NDArray[np.int32],
    ts_ms: NDArray[np.int64],
    steps: NDArray[np.int8],
    at: int,
) -> int:
    """Count users at steps from ``at`` on; return the first row for which there is no room, or their number."""
    kind = m.definitions[definition]
    for i in range(at, len(users)):
        if not has_room(m, 0, 1, kind.width, 1):
            return i
        start_ms = ts_ms[i] - ts_ms[i] % kind.window_ms
        key = find_key(m, definition, start_ms, start_ms + kind.window_ms, ABSENT, values[i])
        add_member(m, users[i], key + steps[i])
    return len(users)

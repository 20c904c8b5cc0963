"""What Redis has to show of users and devices, told from the tables, and where it shows something else.

Redis shows of each user the last verdict in judged order, unless that is ``pass``. Commits tell that order: where each
turn begins, and within a turn it is that of the offsets. What came after the position that Redis had when it was read
may be shown, or not yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.events import TOPICS
from schemas.verdicts import LEVELS, PASS
from sinks.commit_log import Entry
from sinks.merge_plan import commit_of
from sinks.redis import ShownVerdict
from sinks.store import Store
from sinks.tables import Table
from streams.table_rows import Moving, read_files

_PLACE = ["topic", "partition", "offset"]
_SHOWN = ["level", "score", "event", "event_id", "ts", "campaign", "config_hash", "reasons", "user"]
_PENDING_ROWS = 500_000
"""Rows are thinned out when so many came, which bounds memory by the keys, not by the rows."""
_SHOWN_TEXT = 64
_LATER = 2**62


class JudgedOrder:
    """Of which turn rows are, and which turns Redis has to know.

    Parameters
    ----------
    commits
        All commits by judge partition, oldest first.
    reached
        Turn of each judge partition below which Redis had everything.
    """

    def __init__(self, commits: Mapping[int, Sequence[Entry]], reached: Mapping[int, int]) -> None:
        self._reached = reached
        self._ends: dict[tuple[str, int], int] = {}
        starts: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for entry in (entry for entries in commits.values() for entry in entries):
            for source in entry.account:
                place = source.topic, source.partition
                self._ends[place] = source.ranges[-1][1]
                cuts = [(cut.start, cut.turn) for cut in entry.cuts if cut.topic == source.topic]
                # Of an entry without cuts no more is known than that all of its turns are in when its last one is.
                starts.setdefault(place, []).extend(cuts or [(source.ranges[0][0], entry.next - 1)])
        self._starts = {place: np.array(sorted(found), np.int64).T for place, found in starts.items()}

    def turns(self, topic: str, partition: int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The turn of each row; of those that came since the commits were read, one beyond all others."""
        place = topic, partition
        if place not in self._starts:
            return np.full(len(offsets), _LATER, np.int64)
        starts, turns = self._starts[place]
        found = turns[np.searchsorted(starts, offsets, side="right") - 1]
        return np.where(offsets < self._ends[place], found, _LATER)

    def reached(self, partition: int) -> int:
        """The turn below which Redis had everything."""
        return self._reached.get(partition, 0)


class Row(NamedTuple):
    """A verdict in the tables that Redis may show, or has to, if it is ``settled``."""

    topic: str
    partition: int
    offset: int
    turn: int
    settled: bool
    verdict: ShownVerdict

    @property
    def judged(self) -> tuple[int, int]:
        """Grows in judged order."""
        return self.turn, self.offset


class Comparison(msgspec.Struct):
    """What came of comparing one kind of entries; ``problems`` are sentences."""

    compared: int = 0
    absent: int = 0
    unproven: int = 0
    problems: list[str] = msgspec.field(default_factory=list)


def device_key(device: str, partition: int | str) -> str:
    """How devices are named here, users being their pseudonyms: each judge partition shows its own verdict."""
    return f"{device}/{partition}"


class Flagged(NamedTuple):
    """Keys of users and devices with any verdict but ``pass``, and the newest ``ts`` of all verdicts, epoch ms."""

    users: set[str]
    devices: set[str]
    newest_ms: int


class NewestRows(NamedTuple):
    """By key the rows that Redis may show, and the folders of dates that retention has removed."""

    of_users: dict[str, list[Row]]
    of_devices: dict[str, list[Row]]
    expired_folders: frozenset[str]


class VerdictRows:
    """The verdicts in the tables, of all judge partitions or of one.

    Parameters
    ----------
    store, moving
        The tables, and files of their newest commits.
    partition, first
        Of which judge partition, and from the commit on that begins with this turn; files that were compacted are read
        in any case.
    interrupted
        Asked before each file, from any thread; what it raises is raised.
    """

    def __init__(
        self,
        store: Store,
        moving: Moving,
        *,
        partition: int | None = None,
        first: int = 0,
        interrupted: Callable[[], object] = lambda: None,
    ) -> None:
        self._store, self._moving, self._partition = store, moving, partition
        self._first, self._interrupted = first, interrupted

    def flagged(self) -> Flagged:
        """Read who has any verdict but ``pass``."""
        found, _ = read_files(self._store, "verdicts", self._moving, self._flagged_in)
        return Flagged(
            set[str]().union(*(each.users for each in found)),
            set[str]().union(*(each.devices for each in found)),
            max((each.newest_ms for each in found), default=0),
        )

    def newest(self, users: AbstractSet[str], devices: AbstractSet[str], order: JudgedOrder) -> NewestRows:
        """Read the rows that Redis may show of these users and devices; memory grows by a kilobyte for each."""
        of_users, of_devices = _Newest(users, order), _Newest(devices, order)
        take = partial(self._take, of_users, of_devices)
        _, view = read_files(self._store, "verdicts", self._moving, take)
        return NewestRows(of_users.rows(), of_devices.rows(), view.expired_folders)

    def _flagged_in(self, name: str) -> Flagged:
        if not self._is_wanted(name):
            return Flagged(set(), set(), 0)
        rows = self._read(name, ["user", "device", "partition", "level", "ts"])
        newest_ms = pc.max(rows["ts"].cast(pa.int64())).as_py() or 0
        users, devices = _keys(rows.filter(pc.field("level") != LEVELS[PASS]))
        return Flagged(_distinct(users), _distinct(devices), newest_ms)

    def _take(self, of_users: _Newest, of_devices: _Newest, name: str) -> None:
        if not self._is_wanted(name):
            return
        places = self._read(name, [*_PLACE, "user", "device"])
        both = list(zip((of_users, of_devices), _keys(places), strict=True))
        wanted = [newest.wanted(keys) for newest, keys in both]
        if not any(mask.any() for mask in wanted):
            return
        rows = self._read(name, _SHOWN)
        for column in _PLACE:
            rows = rows.append_column(column, places[column])
        for (newest, keys), mask in zip(both, wanted, strict=True):
            newest.add(rows.append_column("key", keys).filter(pa.array(mask)))

    def _read(self, name: str, columns: Sequence[str]) -> Table:
        """Some columns of a file: the rows of our partition."""
        self._interrupted()
        with self._store.open(name) as file, pq.ParquetFile(file) as parquet:
            rows = parquet.read(columns=list({*columns, "partition"}), use_threads=False)
        if self._partition is not None:
            rows = rows.filter(pc.field("partition") == self._partition)
        return rows.select(columns)

    def _is_wanted(self, name: str) -> bool:
        """Whether a file may have rows of ours; its name tells."""
        commit = commit_of(name)
        return (
            commit is None
            or self._partition is None
            or (commit[0] == self._partition and commit[1] >= self._first)
        )


def compare(
    kind: str,
    shown: Mapping[str, ShownVerdict | None],
    rows: Mapping[str, list[Row]],
    *,
    expired_folders: frozenset[str],
) -> Comparison:
    """Compare what Redis shows of users or devices with what it has to.

    Parameters
    ----------
    kind
        ``user`` or ``device``, for sentences.
    shown
        By key; None is an entry that is none of ours.
    rows
        Of :meth:`VerdictRows.newest`.
    expired_folders
        Of dates that retention has removed: of what was in them nothing can be proven.
    """
    result = Comparison(compared=len(shown))
    for key, entry in shown.items():
        candidates = _last(rows.get(key, ()))
        if entry is not None and any(row.verdict == entry for row in candidates):
            continue
        if entry is not None and _folder(entry.ts) in expired_folders:
            result.unproven += 1
        else:
            result.problems.append(f"{kind} {key[:_SHOWN_TEXT]}: {_difference(entry, candidates)}")
    for key in rows.keys() - shown.keys():
        candidates = _last(rows[key])
        result.absent += all(row.settled and row.verdict.level != LEVELS[PASS] for row in candidates)
    return result


def _difference(entry: ShownVerdict | None, candidates: Sequence[Row]) -> str:
    shows = (
        "what nobody of us wrote" if entry is None else f"{entry.level} for {entry.event_id[:_SHOWN_TEXT]!r}"
    )
    places = (
        f"{row.verdict.level} of {row.topic}-{row.partition} offset {row.offset}" for row in candidates[:2]
    )
    have = " or ".join(places) or "nothing"
    return f"Redis shows {shows}, the tables have {have}"


def _last(rows: Sequence[Row]) -> list[Row]:
    """The rows of which any may be shown: all that Redis need not know yet, and the last of those that it has to."""
    newest = {
        partition: max(row.turn for row in rows if row.settled and row.partition == partition)
        for partition in {row.partition for row in rows if row.settled}
    }
    # Of each topic the last settled row alone is here, so there are two only where commits do not tell their turns.
    return [row for row in rows if not row.settled or row.turn == newest[row.partition]]


def _folder(ts_ms: int) -> str:
    return "date=" + str(np.datetime64(ts_ms, "ms").astype("datetime64[D]"))


# -- reading -----------------------------------------------------------------------------------------------------


def _keys(rows: Table) -> tuple[Any, Any]:
    """Of each row the key of its user and of its device, null where it has none."""
    devices = pc.binary_join_element_wise(rows["device"], rows["partition"].cast(pa.string()), "/")
    return rows["user"], devices


def _distinct(keys: Any) -> set[str]:
    return set(pc.drop_null(keys.unique()).to_pylist())


class _Newest:
    """Of some keys and each source the last row that is settled, and all that are not."""

    def __init__(self, keys: AbstractSet[str], order: JudgedOrder) -> None:
        self._keys, self._order = pa.array(sorted(keys), pa.string()), order
        self._kept: list[Table] = []
        self._pending, self._lock = 0, Lock()

    def wanted(self, keys: Any) -> NDArray[np.bool_]:
        """Which of these keys are among them."""
        return np.asarray(pc.is_in(keys, value_set=self._keys, skip_nulls=True).to_numpy(), np.bool_)

    def add(self, rows: Table) -> None:
        """Take rows; any thread may, and the same rows may come again."""
        with self._lock:
            self._kept.append(rows)
            self._pending += rows.num_rows
            if self._pending > _PENDING_ROWS:
                self._kept = [self._thinned()]
                self._pending = 0

    def rows(self) -> dict[str, list[Row]]:
        """All that is left, by key."""
        found: dict[str, list[Row]] = {}
        if not self._kept:
            return found
        rows = self._thinned()
        turns, settled = self._judged(rows)
        for row, turn, is_settled in zip(_plain(rows), turns.tolist(), settled.tolist(), strict=True):
            verdict = ShownVerdict(**{name: row[name] for name in _SHOWN})
            found.setdefault(row["key"], []).append(
                Row(row["topic"], row["partition"], row["offset"], turn, is_settled, verdict)
            )
        return found

    def _thinned(self) -> Table:
        rows = pa.concat_tables(self._kept).combine_chunks()
        codes = [
            rows[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("key", "topic")
        ]
        _, settled = self._judged(rows)
        of_whom = [rows["partition"].to_numpy(), *codes, settled]
        order = np.lexsort((rows["offset"].to_numpy(), *of_whom))
        ends = np.zeros(len(order), np.bool_)
        ends[-1:] = True
        for column in of_whom:
            ends[:-1] |= column[order][1:] != column[order][:-1]
        return rows.take(pa.array(order[ends | ~settled[order]]))

    def _judged(self, rows: Table) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Of each row its turn, and whether Redis has to know it."""
        topics, partitions, offsets = (rows[name].to_numpy() for name in _PLACE)
        turns, settled = np.zeros(len(offsets), np.int64), np.zeros(len(offsets), np.bool_)
        for topic in TOPICS:
            for number in np.unique(partitions[topics == topic]).tolist():
                here = (topics == topic) & (partitions == number)
                turns[here] = self._order.turns(topic, number, offsets[here])
                settled[here] = turns[here] < self._order.reached(number)
        return turns, settled


def _plain(rows: Table) -> Iterator[dict[str, Any]]:
    """Rows as Redis shows them: times in epoch milliseconds, an empty campaign for none."""
    rows = rows.set_column(rows.schema.get_field_index("ts"), "ts", rows["ts"].cast(pa.int64()))
    for row in rows.to_pylist():
        yield {**row, "campaign": row["campaign"] or "", "reasons": tuple(row["reasons"])}

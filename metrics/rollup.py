"""The merge over judge partitions: the newest block of each source under each key, added up.

Pure and exact: blocks are absolute, so the result depends on which blocks came, not on how often or in which
order. What is held is shown in *parts*: events per minute by day, which make the most rows, all else by table. A day
that is kept elsewhere can be forgotten; given its blocks again, it is as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from metrics.block_rows import block_order
from metrics.merged_events import merge_events
from metrics.merged_rows import RecordBatch, UserRow, merge_users, user_batch
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.partials import EVENTS, Block, BlockKey

Table: TypeAlias = Any
"""A pyarrow.Table; pyarrow has no types."""

DAY_MS = 86_400_000

_Segment: TypeAlias = tuple[str, str, str, str, str | None, int]
_SEGMENT_MS, _EVENTS_SEGMENT_MS = 3 * DAY_MS, DAY_MS // 24
"""Windows that begin within three days, spans of events within an hour, are columns of one segment. Short where a
change makes many rows anew, long where there would be many segments of few rows."""
_SEGMENTS_AT_ONCE = 64
"""Made in one pass, which takes some ten times the memory of their rows."""


class Part(NamedTuple):
    """A part of a metric's table: the UTC day (since 1970) in which a span of events begins; None: all of the table."""

    metric: str
    day: int | None = None


def part_of(key: BlockKey) -> Part:
    """Where the rows of a key are."""
    return Part(key.metric, _start(key) // DAY_MS if key.metric == EVENTS else None)


class Rollup:
    """Numbers of all sources, merged, and as tables.

    Costs the blocks themselves, and 200 to 300 bytes a row for what was merged once. Making a table anew
    costs what changed: some us a row and source in the segments that hold changes (a funnel's window and campaign
    for three days, an event and campaign for an hour).
    """

    def __init__(self) -> None:
        self._blocks: dict[BlockKey, dict[int, Block]] = {}
        self._users: dict[BlockKey, list[UserRow]] = {}
        self._parts: dict[Part, dict[_Segment, set[BlockKey]]] = {}
        self._batches: dict[_Segment, RecordBatch] = {}
        self._changed: dict[BlockKey, list[UserRow]] = {}
        self._reported: dict[BlockKey, list[UserRow]] = {}

    def put(self, block: Block) -> bool:
        """Take a block; an equal turn replaces what is held, so that a repeat is harmless.

        Returns
        -------
        bool
            False if a newer turn of its source is held under its key; the block is forgotten then.
        """
        key = block.key
        sources = self._blocks.setdefault(key, {})
        held = sources.get(block.source)
        if held is not None and held.turn > block.turn:
            return False
        sources[block.source] = block
        if held is None or held.rows != block.rows:
            segment = _segment(key)
            self._parts.setdefault(part_of(key), {}).setdefault(segment, set()).add(key)
            self._batches.pop(segment, None)
            if key not in self._changed:
                self._changed[key] = self._users.get(key, [])
            self._users.pop(key, None)
        return True

    def changed_keys(self) -> list[BlockKey]:
        """Keys whose blocks changed since the last call, in the order of the tables."""
        self._reported, self._changed = self._changed, {}
        return sorted(self._reported, key=block_order)

    def merged(self, key: BlockKey) -> Table:
        """Rows of one key as a piece of its table, summed over sources.

        Raises
        ------
        KeyError
            If no block of it ever came.
        """
        blocks = self._blocks[key]
        if key.metric == EVENTS:
            return pa.Table.from_batches([merge_events([key], [list(blocks.values())]).rows])
        return _user_table(key, self._merged_users(key))

    def gone(self, key: BlockKey) -> Table:
        """Rows of funnels, DAU and retention that a key had when it was merged before and has no more.

        Only for keys of the latest :meth:`changed_keys`. Rows go when a config no longer counts them.
        """
        if key.metric == EVENTS:
            return METRIC_SCHEMAS[EVENTS].empty_table()
        kept = {row[:3] for row in self._merged_users(key)}
        return _user_table(key, [row for row in self._reported[key] if row[:3] not in kept])

    def parts(self) -> list[Part]:
        """The parts of which something is held."""
        return list(self._parts)

    def table(self, name: str) -> Table:
        """All rows of a metric (a key of METRIC_SCHEMAS), by key, then dimension and step or minute."""
        return self._table(name, [part for part in self._parts if part.metric == name])

    def table_of(self, part: Part) -> Table:
        """The rows of a part, ordered like the whole table."""
        return self._table(part.metric, [part])

    def _table(self, name: str, parts: Iterable[Part]) -> Table:
        keys = {segment: of_it for part in parts for segment, of_it in self._parts.get(part, {}).items()}
        ordered = sorted(keys, key=_segment_order)
        missing = [segment for segment in ordered if segment not in self._batches]
        for first in range(0, len(missing), _SEGMENTS_AT_ONCE):
            some = missing[first : first + _SEGMENTS_AT_ONCE]
            self._batches.update(self._made_anew(name, {segment: keys[segment] for segment in some}))
        batches = [self._batches[segment] for segment in ordered]
        return pa.Table.from_batches(batches, schema=METRIC_SCHEMAS[name])

    def blocks_of(self, part: Part) -> list[Block]:
        """All that is held of a part."""
        keys = (key for of_it in self._parts.get(part, {}).values() for key in of_it)
        return [block for key in keys for block in self._blocks[key].values()]

    def changed_parts(self) -> set[Part]:
        """Parts with changes that :meth:`changed_keys` has not told yet."""
        return set(map(part_of, self._changed))

    def forget(self, part: Part) -> None:
        """Hold nothing of a part any more; for one whose blocks are kept and whose changes were all told."""
        for segment, keys in self._parts.pop(part, {}).items():
            self._batches.pop(segment, None)
            for key in keys:
                del self._blocks[key]
                self._users.pop(key, None)

    def _merged_users(self, key: BlockKey) -> list[UserRow]:
        if key not in self._users:
            self._users[key] = merge_users(list(self._blocks[key].values()))
        return self._users[key]

    def _made_anew(
        self, name: str, segments: dict[_Segment, set[BlockKey]]
    ) -> Iterator[tuple[_Segment, RecordBatch]]:
        """Columns of segments, all made in one pass, then cut apart."""
        members = [sorted(keys, key=_start) for keys in segments.values()]
        keys = [key for group in members for key in group]
        if name == EVENTS:
            blocks = (self._blocks[key] for key in keys)
            batch, bounds = merge_events(keys, [list(of_key.values()) for of_key in blocks])
        else:
            rows = [self._merged_users(key) for key in keys]
            batch = user_batch(
                name, [(key, row) for key, of_key in zip(keys, rows, strict=True) for row in of_key]
            )
            bounds = np.cumsum([0, *map(len, rows)])
        ends = np.cumsum([len(group) for group in members]).tolist()
        for segment, first, end in zip(segments, [0, *ends], ends, strict=False):
            # A copy: a slice would keep the whole pass in memory.
            yield segment, batch.take(pa.array(np.arange(bounds[first], bounds[end])))


def _start(key: BlockKey) -> int:
    return -1 if key.start_ms is None else key.start_ms


def _segment(key: BlockKey) -> _Segment:
    length_ms = _EVENTS_SEGMENT_MS if key.metric == EVENTS else _SEGMENT_MS
    return key.metric, key.name, key.window, key.scope, key.campaign, _start(key) // length_ms


def _segment_order(segment: _Segment) -> tuple[str, str, str, str, bool, str, int]:
    metric, name, window, scope, campaign, start = segment
    return block_order(BlockKey(metric, name, window, start, scope, campaign))


def _user_table(key: BlockKey, rows: list[UserRow]) -> Table:
    return pa.Table.from_batches([user_batch(key.metric, [(key, row) for row in rows])])

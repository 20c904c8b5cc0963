"""The merge over judge partitions: the newest block of each source under each key, added up.

Pure and exact: blocks are absolute, so the result depends on which blocks came, not on how often or in which
order. Every key is kept, for the tables show all of history.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa

from metrics.block_rows import block_order
from metrics.merged_rows import RecordBatch, UserRow, merge_events, merge_users, user_batch
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.partials import EVENTS, Block, BlockKey

Table: TypeAlias = Any
"""A pyarrow.Table; pyarrow has no types."""

_Segment: TypeAlias = tuple[str, str, str, str, str | None, int]
_SEGMENT_BITS = 28
"""Windows that begin within 2^28 ms (3.1 days) are made into columns together."""


class Rollup:
    """Numbers of all sources, merged, and as tables.

    Costs the blocks themselves, and 200 to 300 bytes a row for what was merged once. Making a table anew
    costs what changed: some us a row in the segments (a funnel's window and campaign for three days) that
    hold changes.
    """

    def __init__(self) -> None:
        self._blocks: dict[BlockKey, dict[int, Block]] = {}
        self._users: dict[BlockKey, list[UserRow]] = {}
        self._keys: dict[str, dict[_Segment, set[BlockKey]]] = {metric: {} for metric in METRIC_SCHEMAS}
        self._batches: dict[str, dict[_Segment, RecordBatch]] = {metric: {} for metric in METRIC_SCHEMAS}
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
        held = self._blocks.setdefault(key, {}).get(block.source)
        if held is not None and held.turn > block.turn:
            return False
        self._blocks[key][block.source] = block
        if held is None or held.rows != block.rows:
            segment = _segment(key)
            self._keys[key.metric].setdefault(segment, set()).add(key)
            self._batches[key.metric].pop(segment, None)
            before = self._users.pop(key, [])
            self._changed.setdefault(key, before)
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
            return pa.Table.from_batches([merge_events(key, [blocks[source] for source in sorted(blocks)])])
        return _user_table(key, self._merged_users(key))

    def gone(self, key: BlockKey) -> Table:
        """Rows of funnels and DAU that a key had when it was merged before and has no more.

        Only for keys of the latest :meth:`changed_keys`. Rows go when a config no longer counts them.
        """
        if key.metric == EVENTS:
            return METRIC_SCHEMAS[EVENTS].empty_table()
        kept = {row[:3] for row in self._merged_users(key)}
        return _user_table(key, [row for row in self._reported[key] if row[:3] not in kept])

    def table(self, name: str) -> Table:
        """All rows of a metric (a key of METRIC_SCHEMAS), by key, then dimension and step or minute."""
        keys, batches = self._keys[name], self._batches[name]
        for segment in keys.keys() - batches.keys():
            batches[segment] = self._segment_batch(name, sorted(keys[segment], key=block_order))
        ordered = sorted(keys, key=_segment_order)
        return pa.Table.from_batches([batches[segment] for segment in ordered], schema=METRIC_SCHEMAS[name])

    def _merged_users(self, key: BlockKey) -> list[UserRow]:
        if key not in self._users:
            self._users[key] = merge_users(list(self._blocks[key].values()))
        return self._users[key]

    def _segment_batch(self, name: str, keys: list[BlockKey]) -> RecordBatch:
        if name == EVENTS:
            (key,) = keys
            blocks = self._blocks[key]
            return merge_events(key, [blocks[source] for source in sorted(blocks)])
        return user_batch(name, [(key, row) for key in keys for row in self._merged_users(key)])


def _segment(key: BlockKey) -> _Segment:
    start = -1 if key.start_ms is None else key.start_ms
    if key.metric != EVENTS:
        start >>= _SEGMENT_BITS
    return key.metric, key.name, key.window, key.scope, key.campaign, start


def _segment_order(segment: _Segment) -> tuple[str, str, str, str, bool, str, int]:
    metric, name, window, scope, campaign, start = segment
    return block_order(BlockKey(metric, name, window, start, scope, campaign))


def _user_table(key: BlockKey, rows: list[UserRow]) -> Table:
    return pa.Table.from_batches([user_batch(key.metric, [(key, row) for row in rows])])

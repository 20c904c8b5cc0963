"""A Faust table whose owner can wait until what was set is durable in the changelog, and that is never set back.

Faust sends changelog records from a buffer in the background, and its flush gives up after a tenth of a second without
progress. So an offset committed after a flush can be ahead of the changelog: whoever takes the partition over then
never sees the difference. Faust's memory keeps what partitions that went had; when such a one comes back, a key that
another owner has dropped meanwhile would be there again.

And an owner that slept past its session writes once more when it wakes, behind what the next owner wrote. So each
writes, and drops, in its own name: in the changelog a key stands behind the mark of who set it. Of several values of a
key the newest counts, and who sets a key drops, little by little, what it found of former owners. Whatever comes late
from one of those then is either older than what counts, or drops what nobody counts on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery
from faust.tables.table import Table

from streams.batches import TP

_FAUST_LOG = logging.getLogger("faust")
"""What they say beyond warnings is Faust's own business, and a table of all partitions at each rebalance."""

_OWNED = b"\xc1"
"""Begins keys that have an owner; MessagePack, of which keys are, never does."""
_OWNER_BYTES = 8
_NOBODY = b""
"""Owner of keys that an earlier version wrote."""
_TIDIED_AT_ONCE = 50
"""A takeover must not double what is sent while everything waits for it."""


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """The newest value of a key, and under whose names the changelog has one. There are as many as rows of metrics."""

    value: bytes
    owners: tuple[bytes, ...]


class BlockTable(Table):  # type: ignore[type-arg]  # its type arguments do not exist at run time
    """Keys and values are bytes, kept by partition; read and set by the methods here alone.

    Parameters
    ----------
    turn_of
        How new a value is; of equally new ones the last stays.
    args, kwargs
        As of ``faust.Table``.
    """

    logger = _FAUST_LOG

    def __init__(self, *args: Any, turn_of: Callable[[bytes], int], **kwargs: Any) -> None:
        super().__init__(*args, key_type=bytes, value_type=bytes, **kwargs)
        self._turn_of = turn_of
        self._unsent: list[asyncio.Future[Any]] = []
        self._kept: dict[int, dict[bytes, _Kept]] = {}
        self._us: dict[int, bytes] = {}
        self._untidy: dict[int, deque[bytes]] = {}
        self._names: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}

    # -- from the changelog --------------------------------------------------------------------------------------

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Take up records of the changelog: of each key the newest value, whoever wrote it, and whenever."""
        for event in batch:
            owner, key = _split(event.key)
            kept = self._kept.setdefault(event.message.partition, {})
            if event.value is None:
                _drop(kept, key, owner)
            else:
                self._take_up(kept, key, owner, event.value)

    def _take_up(self, kept: dict[bytes, _Kept], key: bytes, owner: bytes, value: bytes) -> None:
        held = kept.get(key)
        if held is not None and self._turn_of(held.value) > self._turn_of(value):
            value = held.value
        kept[key] = _Kept(value, self._with(owner, held))

    def _with(self, owner: bytes, held: _Kept | None) -> tuple[bytes, ...]:
        """The names of a key when one comes to them; the same object for all keys with the same."""
        names = held.owners if held is not None else ()
        names = names if owner in names else (owner, *names)
        return self._names.setdefault(names, names)

    def forget(self, partition: int) -> None:
        """Keep nothing of a partition that went, or whose changelog is about to be read from its beginning."""
        self._kept.pop(partition, None)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Forget the partitions that are not ours; Faust calls it when all others are read."""
        for partition in self._kept.keys() - {partition for _, partition in active_tps}:
            self.forget(partition)
        await super().on_recovery_completed(active_tps, standby_tps)

    # -- for the owner -------------------------------------------------------------------------------------------

    def take_over(self, partition: int) -> list[bytes]:
        """Begin to write in a name of one's own, before anything is set; returns all values of the partition."""
        self._us[partition] = secrets.token_bytes(_OWNER_BYTES)
        self._untidy[partition] = deque()
        return self.values_of(partition)

    def values_of(self, partition: int) -> list[bytes]:
        """All values of a partition."""
        return [kept.value for kept in self._kept.get(partition, {}).values()]

    def put_in(self, partition: int, key: bytes, value: bytes) -> None:
        """Set a key."""
        us, kept = self._us[partition], self._kept.setdefault(partition, {})
        held = kept.get(key)
        kept[key] = _Kept(value, self._with(us, held))
        self.send_changelog(partition, _joined(us, key), value)
        if held is not None and us not in held.owners:
            self._untidy[partition].append(key)

    def tidy(self, partition: int) -> None:
        """Drop some of what former owners have written and we have set since; to be called again and again."""
        us, kept, untidy = self._us[partition], self._kept.get(partition, {}), self._untidy[partition]
        for _ in range(min(len(untidy), _TIDIED_AT_ONCE)):
            key = untidy.popleft()
            if held := kept.get(key):
                self._send_drops(partition, key, [owner for owner in held.owners if owner != us])
                kept[key] = _Kept(held.value, self._with(us, None))

    def drop_in(self, partition: int, key: bytes) -> None:
        """Remove a key, if it is there."""
        held = self._kept.get(partition, {}).pop(key, None)
        if held is not None:
            self._send_drops(partition, key, held.owners)

    def _send_drops(self, partition: int, key: bytes, owners: Iterable[bytes]) -> None:
        for owner in owners:
            self.send_changelog(partition, _joined(owner, key), None, value_serializer="raw")

    def send_changelog(self, *args: Any, **kwargs: Any) -> Any:
        """Send as Faust does, and remember the acknowledgement to come."""
        sent = super().send_changelog(*args, **kwargs)
        self._unsent.append(sent)
        return sent

    def take_unsent(self) -> Sequence[asyncio.Future[Any]]:
        """Acknowledgements of everything that was set since the last call; all done means durable."""
        unsent, self._unsent = self._unsent, []
        return unsent


def _joined(owner: bytes, key: bytes) -> bytes:
    return _OWNED + owner + key if owner else key


def _split(key: bytes) -> tuple[bytes, bytes]:
    """Owner and key of a record in the changelog."""
    if not key.startswith(_OWNED):
        return _NOBODY, key
    begin = len(_OWNED) + _OWNER_BYTES
    return key[len(_OWNED) : begin], key[begin:]


def _drop(kept: dict[bytes, _Kept], key: bytes, owner: bytes) -> None:
    if held := kept.get(key):
        if left := tuple(other for other in held.owners if other != owner):
            kept[key] = _Kept(held.value, left)
        else:
            del kept[key]


class BlockRecovery(Recovery):
    """Faust's reading of changelogs; what is read from the beginning begins empty, and a rebalance may come anywhen."""

    logger = _FAUST_LOG

    def _add(self, table: Any, tp: TP, offsets: Any) -> None:
        super()._add(table, tp, offsets)
        if offsets[tp] is None:
            table.forget(tp.partition)

    async def _seek_offsets(self, consumer: Any, tps: set[TP], offsets: Any, title: str) -> None:
        # Faust looks for a rebalance after every wait, and would seek to nowhere when it came right behind one.
        if any(offsets[tp] is None for tp in tps):
            raise RebalanceAgain
        await super()._seek_offsets(consumer, tps, offsets, title)


class BlockTables(TableManager):
    """The tables of an app, all of them :class:`BlockTable`."""

    logger = _FAUST_LOG

    @property
    def recovery(self) -> Recovery:
        """What reads the changelogs."""
        if self._recovery is None:
            self._recovery = BlockRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

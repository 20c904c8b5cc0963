"""A Faust table whose owner can wait until what was set is durable in the changelog, and that is never set back.

Faust sends changelog records from a buffer in the background, and its flush gives up after a tenth of a second without
progress. So an offset committed after a flush can be ahead of the changelog: whoever takes the partition over then
never sees the difference. And an owner that slept past its session writes once more when it wakes, behind what the next
owner wrote: taken up as it stands, the changelog would bring old numbers back. Faust's memory keeps what partitions
that went had; when such a one comes back, a key that another owner has dropped meanwhile would be there again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery
from faust.tables.table import Table

from streams.batches import TP

_FAUST_LOG = logging.getLogger("faust")
"""What they say beyond warnings is Faust's own business, and a table of all partitions at each rebalance."""


class BlockTable(Table):  # type: ignore[type-arg]  # its type arguments do not exist at run time
    """Keys and values are bytes, kept by partition; read and set by the methods here alone.

    Parameters
    ----------
    turn_of
        How new a value is; of two values of a key in the changelog the newer one stays, whichever was written last.
    args, kwargs
        As of ``faust.Table``.
    """

    logger = _FAUST_LOG

    def __init__(self, *args: Any, turn_of: Callable[[bytes], int], **kwargs: Any) -> None:
        super().__init__(*args, key_type=bytes, value_type=bytes, **kwargs)
        self._turn_of = turn_of
        self._unsent: list[asyncio.Future[Any]] = []
        self._kept: dict[int, dict[bytes, bytes]] = {}
        self._set_back: dict[int, set[bytes]] = {}

    # -- from the changelog --------------------------------------------------------------------------------------

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Take up records of the changelog, those aside that are older than what stands before them."""
        for event in batch:
            key, value = event.key, event.value
            kept = self._kept.setdefault(event.message.partition, {})
            set_back = self._set_back.setdefault(event.message.partition, set())
            held = kept.get(key)
            if value is None:
                kept.pop(key, None)
                set_back.discard(key)
            elif held is not None and self._turn_of(held) > self._turn_of(value):
                set_back.add(key)
            else:
                kept[key] = value
                set_back.discard(key)

    def mend(self, partition: int) -> int:
        """Write newest values again where older ones stand behind them; returns how many. Only for the owner."""
        keys = self._set_back.pop(partition, set())
        for key in keys:
            self.put_in(partition, key, self._kept[partition][key])
        return len(keys)

    def forget(self, partition: int) -> None:
        """Keep nothing of a partition that went, or whose changelog is about to be read from its beginning."""
        self._kept.pop(partition, None)
        self._set_back.pop(partition, None)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Forget the partitions that are not ours; Faust calls it when all others are read."""
        for partition in self._kept.keys() - {partition for _, partition in active_tps}:
            self.forget(partition)
        await super().on_recovery_completed(active_tps, standby_tps)

    # -- for the owner -------------------------------------------------------------------------------------------

    def values_of(self, partition: int) -> list[bytes]:
        """All values of a partition."""
        return list(self._kept.get(partition, {}).values())

    def put_in(self, partition: int, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.send_changelog(partition, key, value)
        self._kept.setdefault(partition, {})[key] = value

    def drop_in(self, partition: int, key: bytes) -> None:
        """Remove a key, if it is there."""
        if self._kept.get(partition, {}).pop(key, None) is not None:
            self.send_changelog(partition, key, None, value_serializer="raw")

    def send_changelog(self, *args: Any, **kwargs: Any) -> Any:
        """Send as Faust does, and remember the acknowledgement to come."""
        sent = super().send_changelog(*args, **kwargs)
        self._unsent.append(sent)
        return sent

    def take_unsent(self) -> Sequence[asyncio.Future[Any]]:
        """Acknowledgements of everything that was set since the last call; all done means durable."""
        unsent, self._unsent = self._unsent, []
        return unsent


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

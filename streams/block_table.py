"""A Faust table whose owner can wait until what was set is durable in the changelog, and that is never set back.

Faust sends changelog records from a buffer in the background, and its flush gives up after a tenth of a second without
progress. So an offset committed after a flush can be ahead of the changelog: whoever takes the partition over then
never sees the difference. And an owner that slept past its session writes once more when it wakes, behind what the next
owner wrote: taken up as it stands, the changelog would bring old numbers back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from faust.tables.table import Table


class BlockTable(Table):  # type: ignore[type-arg]  # its type arguments do not exist at run time
    """Keys and values are bytes.

    Parameters
    ----------
    turn_of
        How new a value is; of two values of a key in the changelog the newer one stays, whichever was written last.
    args, kwargs
        As of ``faust.Table``.
    """

    def __init__(self, *args: Any, turn_of: Callable[[bytes], int], **kwargs: Any) -> None:
        super().__init__(*args, key_type=bytes, value_type=bytes, **kwargs)
        self._turn_of = turn_of
        self._unsent: list[asyncio.Future[Any]] = []
        self._set_back: dict[bytes, int] = {}

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Take up records of the changelog, those aside that are older than what stands before them."""
        for event in batch:
            key, value = event.key, event.value
            held = self.data.get(key)
            if value is None:
                self.data.pop(key, None)
                self._set_back.pop(key, None)
            elif held is not None and self._turn_of(held) > self._turn_of(value):
                self._set_back[key] = event.message.partition
            else:
                self.data[key] = value
                self._set_back.pop(key, None)

    def mend(self, partition: int) -> int:
        """Write newest values again where older ones stand behind them; returns how many. Only for the owner."""
        keys = [key for key, of in self._set_back.items() if of == partition]
        for key in keys:
            del self._set_back[key]
            self.put_in(partition, key, self.data[key])
        return len(keys)

    def send_changelog(self, *args: Any, **kwargs: Any) -> Any:
        """Send as Faust does, and remember the acknowledgement to come."""
        sent = super().send_changelog(*args, **kwargs)
        self._unsent.append(sent)
        return sent

    def take_unsent(self) -> Sequence[asyncio.Future[Any]]:
        """Acknowledgements of everything that was set since the last call; all done means durable."""
        unsent, self._unsent = self._unsent, []
        return unsent

    def put_in(self, partition: int, key: bytes, value: bytes) -> None:
        """Set outside of an agent, where Faust would not know the partition."""
        self.send_changelog(partition, key, value)
        self.data[key] = value

    def drop_in(self, partition: int, key: bytes) -> None:
        """Remove outside of an agent."""
        self.send_changelog(partition, key, None, value_serializer="raw")
        self.data.pop(key, None)

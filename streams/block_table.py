"""A Faust table whose owner can wait until what was set is durable in the changelog.

Faust sends changelog records from a buffer in the background, and its flush gives up after a tenth of a second without
progress. So an offset committed after a flush can be ahead of the changelog: whoever takes the partition over then
never sees the difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from faust.tables.table import Table


class BlockTable(Table):  # type: ignore[type-arg]  # its type arguments do not exist at run time
    """Keys and values are bytes.

    Parameters
    ----------
    args, kwargs
        As of ``faust.Table``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, key_type=bytes, value_type=bytes, **kwargs)
        self._unsent: list[asyncio.Future[Any]] = []

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

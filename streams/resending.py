"""Records that Kafka must take: sent again until it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias

from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)

RESEND_S = 0.5

Send: TypeAlias = Callable[[], Awaitable[Awaitable[Any]]]
"""Hands a record to the producer; what comes of it is awaited apart."""


async def sent_until_taken(send: Send, *, what: str = "a record") -> Awaitable[int]:
    """Hand a record to the producer; when this returns it stands in line behind those that were sent before.

    Delivery: at least once. A record that is sent again may come twice, and behind later ones.

    Parameters
    ----------
    send
        Sends the record; called again while the brokers do not take it.
    what
        What it is, for the log.

    Returns
    -------
    The record's offset, to be awaited once: until the record is durable, however long that takes.
    """
    return _Taken(await send(), send, what)


class _Taken:
    """The offset to come; a coroutine only where somebody awaits it, for many are left when a partition leaves."""

    def __init__(self, sent: Awaitable[Any], send: Send, what: str) -> None:
        self._sent, self._send, self._what = sent, send, what

    def __await__(self) -> Generator[Any, None, int]:
        return self._offset().__await__()

    async def _offset(self) -> int:
        while True:
            try:
                return int((await self._sent).offset)
            except KafkaError as error:
                log.warning("Kafka did not take %s, it is sent again: %r", self._what, error)
                await asyncio.sleep(RESEND_S)
                self._sent = await self._send()

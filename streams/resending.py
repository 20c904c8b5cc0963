"""Records that Kafka must take: sent again until it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
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
    return _taken(await send(), send, what)


async def _taken(sent: Awaitable[Any], send: Send, what: str) -> int:
    while True:
        try:
            return int((await sent).offset)
        except KafkaError as error:
            log.warning("Kafka did not take %s, it is sent again: %r", what, error)
            await asyncio.sleep(RESEND_S)
            sent = await send()

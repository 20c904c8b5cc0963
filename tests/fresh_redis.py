"""A Redis with nothing in it, for as long as a test uses it, and what the test finds there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from redis.asyncio import Redis

from sinks.redis_functions import connect
from tests.services import RedisServer

Use = Callable[[Redis], Awaitable[None]]


def use_fresh(server: RedisServer, use: Use) -> None:
    """Use a Redis without keys and functions."""

    async def main() -> None:
        client = connect(server.url)
        try:
            await client.flushall()
            await client.function_flush()
            await use(client)
        finally:
            await client.aclose()

    asyncio.run(main())


async def hashes(client: Redis, pattern: str) -> dict[str, dict[str, str]]:
    """All hashes whose keys match, as text."""
    found: dict[str, dict[str, str]] = {}
    async for key in client.scan_iter(pattern):
        fields = cast("dict[bytes, bytes]", await client.hgetall(key))
        found[key.decode()] = {name.decode(): value.decode() for name, value in fields.items()}
    return found

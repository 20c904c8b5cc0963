"""What a worker tells its children on their standard input: messages, each after its length."""

from __future__ import annotations

import asyncio
import sys

_LENGTH_BYTES = 8


def framed(message: bytes) -> bytes:
    """A message as :func:`next_message` reads it."""
    return len(message).to_bytes(_LENGTH_BYTES, "little") + message


async def standard_input() -> asyncio.StreamReader:
    """Our standard input, a pipe."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def next_message(told: asyncio.StreamReader) -> bytes | None:
    """The next whole message; None when there comes none any more."""
    try:
        length = int.from_bytes(await told.readexactly(_LENGTH_BYTES), "little")
        return await told.readexactly(length)
    except asyncio.IncompleteReadError:
        return None

"""Counts on their way to the rollup, of which none is lost when a partition leaves in the middle of it.

Counts that were handed over count as told, and a checkpoint without them would be the end of them. Upkeep is cancelled
when partitions leave, and the last checkpoint comes behind it: so what is not known to be durable is sent once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from schemas.partials import Block, BlockKey

Result = TypeVar("Result")


class Publishing:
    """Sends what changed; one call at a time.

    Delivery: at least once; a block is absolute, so a repeat changes nothing.

    Parameters
    ----------
    send
        Sends blocks; returns when they are durable.
    """

    def __init__(self, send: Callable[[Sequence[Block]], Awaitable[None]]) -> None:
        self._send = send
        self._unsent: dict[BlockKey, Block] = {}

    async def publish(self, changed: Callable[[], Sequence[Block]]) -> None:
        """Send what changed since the last call, and what that one did not get through.

        Parameters
        ----------
        changed
            Hands over the blocks that changed, each once; runs in a thread.
        """
        await to_its_end(partial(self._collect, changed))
        await self._send(list(self._unsent.values()))
        self._unsent.clear()

    def _collect(self, changed: Callable[[], Sequence[Block]]) -> None:
        for block in changed():
            self._unsent.pop(block.key, None)  # what is promised stays behind what it is about
            self._unsent[block.key] = block


async def to_its_end(work: Callable[[], Result]) -> Result:
    """Work on the state in a thread; whoever is cancelled meanwhile lets go of the state only when that has ended."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise

"""Counts reach the rollup, wherever a partition that leaves breaks their publishing off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from schemas.partials import Block, BlockKey
from streams.publishing import Publishing


def block(name: str, turn: int) -> Block:
    return Block(BlockKey("dau", name, "1d", 0, "campaign", "c"), 0, turn, b"")


class Rollup:
    """Takes blocks, or lets whoever sends them wait."""

    def __init__(self) -> None:
        self.taken: list[Block] = []
        self.is_away = False
        self.asked = asyncio.Event()

    async def send(self, blocks: Sequence[Block]) -> None:
        self.asked.set()
        if self.is_away:
            await asyncio.get_running_loop().create_future()
        self.taken += blocks


def test_what_was_not_sent_comes_with_the_next_and_in_its_order() -> None:
    async def main() -> None:
        rollup = Rollup()
        publishing = Publishing(rollup.send)
        rollup.is_away = True
        task = asyncio.create_task(
            publishing.publish(lambda: [block(name, 1) for name in ("a", "b", "promise")])
        )
        await rollup.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        rollup.is_away = False
        await publishing.publish(lambda: [block("b", 2), block("promise", 2)])
        assert rollup.taken == [block("a", 1), block("b", 2), block("promise", 2)]
        await publishing.publish(lambda: [block("c", 3)])
        assert rollup.taken[3:] == [block("c", 3)], "what was sent is not sent again"

    asyncio.run(main())


def test_what_is_handed_over_while_it_is_broken_off_is_not_lost_and_ends_first() -> None:
    async def main() -> None:
        rollup = Rollup()
        publishing = Publishing(rollup.send)
        begun, go_on = threading.Event(), threading.Event()

        def changed() -> list[Block]:
            begun.set()
            go_on.wait(10)
            return [block("a", 1)]

        task = asyncio.create_task(publishing.publish(changed))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done, "nobody else may touch the counts yet"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await publishing.publish(list)
        assert rollup.taken == [block("a", 1)]

    asyncio.run(main())

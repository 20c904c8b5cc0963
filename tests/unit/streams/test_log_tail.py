"""A log that many read at their own pace: every record once, whatever breaks a read off."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from streams import log_tail
from streams.batches import TP
from streams.brokers import Brokers
from streams.log_tail import LogTail, Stretch

LOG = TP("labels", 0)


class _Client:
    """A log of ten records, two at a fetch; ``stuck`` holds it up when it has moved already."""

    def __init__(self) -> None:
        self.at, self.stuck, self.moved = 0, asyncio.Event(), asyncio.Event()
        self.stuck.set()

    def assign(self, _: Any) -> None: ...

    def seek(self, _: Any, at: int) -> None:
        self.at = at

    async def getmany(self, tp: Any, **_: Any) -> Mapping[Any, Any]:
        first, self.at = self.at, min(self.at + 2, 10)
        return {tp: [SimpleNamespace(offset=offset) for offset in range(first, self.at)]}

    async def position(self, _: Any) -> int:
        self.moved.set()
        await self.stuck.wait()
        return self.at


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> _Client:
    made = _Client()

    async def connect(*_: Any) -> _Client:
        return made

    monkeypatch.setattr(log_tail, "connect_reader", connect)
    return made


async def _offsets(tail: LogTail, start: int, end: int) -> list[int]:
    found: list[int] = []
    while start < end:
        stretch: Stretch = await tail.read(start, end)
        found += [one.offset for one in stretch.records]
        start = stretch.next
    return found


async def _read_after_a_cancelled_read(client: _Client) -> list[int]:
    tail = LogTail(Brokers("nobody:1"), LOG)
    first = await _offsets(tail, 0, 2)
    client.stuck.clear()
    client.moved.clear()
    reading = asyncio.create_task(tail.read(2, 10))
    await client.moved.wait()
    reading.cancel()
    await asyncio.wait([reading])
    client.stuck.set()
    return [*first, *await _offsets(tail, 2, 10), *await _offsets(tail, 3, 5)]


def test_a_read_that_is_broken_off_loses_nothing(client: _Client) -> None:
    assert asyncio.run(_read_after_a_cancelled_read(client)) == [*range(10), 3, 4]

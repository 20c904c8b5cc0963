"""A record is sent again until Kafka has it; the records behind it do not wait for that."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, NotLeaderForPartitionError

import streams.resending
from streams.resending import sent_until_taken


class Log:
    """A partition whose brokers refuse the first records by these errors."""

    def __init__(self, *refusals: Exception) -> None:
        self.sent: list[str] = []
        self._refusals, self._offsets = iter(refusals), itertools.count(100)

    async def send(self, record: str) -> Awaitable[Any]:
        self.sent.append(record)
        future = asyncio.get_running_loop().create_future()
        refusal = next(self._refusals, None)
        if refusal is None:
            future.set_result(SimpleNamespace(offset=next(self._offsets)))
        else:
            future.set_exception(refusal)
        return future


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.resending, "RESEND_S", 0.0)


def test_what_is_refused_is_sent_again_and_its_last_offset_counts(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        log = Log(KafkaTimeoutError(), NotLeaderForPartitionError())
        first = await sent_until_taken(lambda: log.send("first"), what="alert 7")
        second = await sent_until_taken(lambda: log.send("second"))
        assert log.sent == ["first", "second"], "in line before anyone waits"
        third = await sent_until_taken(lambda: log.send("third"))
        assert [await first, await second, await third] == [101, 102, 100]
        assert log.sent == ["first", "second", "third", "first", "second"]

    asyncio.run(main())
    assert "Kafka did not take alert 7" in caplog.text


def test_what_is_no_refusal_is_raised() -> None:
    async def main() -> None:
        log = Log(ValueError("not Kafka's"))
        await (await sent_until_taken(lambda: log.send("record")))

    with pytest.raises(ValueError, match="not Kafka's"):
        asyncio.run(main())


def test_nobody_has_to_await_it(recwarn: pytest.WarningsRecorder) -> None:
    """When a partition leaves, whoever waited for many is cancelled at one of them."""
    asyncio.run(sent_until_taken(lambda: Log().send("record")))
    gc.collect()
    assert not recwarn.list

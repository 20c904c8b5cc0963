"""What a partition that leaves while an alert is on its way leaves behind: nothing that the next owner is not told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from schemas.alerts import Alert, encode_alert
from schemas.config import AlertChannel
from sinks.alert_channels import Channel
from sinks.alert_stream import AlertStream
from streams.alert_delivery import AlertDelivery
from streams.batches import Batch
from streams.settings import Settings
from streams.transport import TP
from tests.alert_receiver import made_alert


class SlowStream:
    """A Redis that answers when it is let."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def add(self, alerts: Sequence[Alert]) -> int:
        self.asked.set()
        await self.go_on.wait()
        return len(alerts)


def batch_at(start: int) -> Batch:
    record: Any = SimpleNamespace(offset=start, value=encode_alert(made_alert(start)))
    return Batch(TP("alerts", 0), [record], start=start, next=start + 1, generation=1)


def test_an_alert_whose_partition_leaves_is_not_queued(tmp_path: Path) -> None:
    async def main() -> list[tuple[int | None, int]]:
        stream, seen = SlowStream(), list[tuple[int | None, int]]()
        delivery = AlertDelivery(
            Settings(out=str(tmp_path)),
            cast("AlertStream", stream),
            [Channel("ops", AlertChannel(url_env="X"), "http://nowhere")],
            give_up_s=1,
            key_fingerprint="00",
            mark=lambda *_: None,
        )

        async def batches() -> AsyncIterator[Batch]:
            for start in (0, 1):
                yield batch_at(start)
                seen.append((delivery.position(0), len(delivery._notifiers[0]._waiting)))

        telling = asyncio.create_task(delivery.deliver(batches()))
        await stream.asked.wait()
        delivery.leave()
        stream.go_on.set()
        await telling
        return seen

    assert asyncio.run(main()) == [(None, 0), (2, 1)]

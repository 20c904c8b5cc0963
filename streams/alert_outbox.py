"""The way out of alerts begins in Kafka: what the topic ``alerts`` has is told, whatever happens to who raised it."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any

from schemas.alerts import Alert, encode_alert
from streams.resending import sent_until_taken
from streams.settings import Settings
from streams.transport import BatchApp


def alert_partition(alert: Alert, partitions: int) -> int:
    """Where an alert goes: a function of its id alone, so repeats and its end come to the same place."""
    return zlib.crc32(alert.id.encode()) % partitions


class AlertOutbox:
    """Publishes alerts.

    Delivery: at least once, with the same id and state; whoever reads takes the first. Tell before the position
    behind what raised the alert is committed.

    Parameters
    ----------
    app
        Whose producer is used.
    settings
        For the topic's name.
    partitions
        Of the topic.
    """

    def __init__(self, app: BatchApp, settings: Settings, *, partitions: int) -> None:
        self._app, self._topic, self._partitions = app, settings.topic("alerts"), partitions

    async def tell(self, alerts: Iterable[Alert]) -> None:
        """Publish; returns when all of them are durable. While the brokers do not take one it is sent again."""
        sent = [
            await sent_until_taken(partial(self._send, alert), what=f"alert {alert.id}") for alert in alerts
        ]
        for durable in sent:
            await durable

    async def _send(self, alert: Alert) -> Awaitable[Any]:
        partition = alert_partition(alert, self._partitions)
        key, value = alert.key.encode(), encode_alert(alert)
        sent: Awaitable[Any] = await self._app.producer.send(self._topic, key, value, partition, None, None)
        return sent

"""The way out of alerts begins in Kafka: what the topic ``alerts`` has is told, whatever happens to who raised it."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Iterable
from typing import Any

from aiokafka.errors import KafkaError

from schemas.alerts import Alert, encode_alert
from streams.settings import Settings
from streams.transport import BatchApp

log = logging.getLogger(__name__)

RESEND_S = 0.5


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
        sent = [(alert, await self._send(alert)) for alert in alerts]
        for alert, acknowledged in sent:
            await self._durable(alert, acknowledged)

    async def _send(self, alert: Alert) -> Awaitable[Any]:
        partition = alert_partition(alert, self._partitions)
        key, value = alert.key.encode(), encode_alert(alert)
        sent: Awaitable[Any] = await self._app.producer.send(self._topic, key, value, partition, None, None)
        return sent

    async def _durable(self, alert: Alert, sent: Awaitable[Any]) -> None:
        while True:
            try:
                await sent
                return
            except KafkaError as error:
                log.warning("Kafka did not take alert %s, it is sent again: %r", alert.id, error)
                await asyncio.sleep(RESEND_S)
                sent = await self._send(alert)

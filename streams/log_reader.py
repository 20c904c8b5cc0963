"""Reads stretches of the internal topics outside the consumer group, and decides where a first start begins."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from schemas.events import TOPICS
from streams.batches import TP
from streams.brokers import Credentials, addresses, client_auth
from streams.ranges import read_range
from streams.settings import Settings


class LogReader:
    """A reader of topics by role.

    Parameters
    ----------
    settings
        Brokers, topic names and where a first start begins.
    credentials
        For SASL or TLS.
    """

    def __init__(self, settings: Settings, credentials: Credentials | None = None) -> None:
        self._settings, self._credentials = settings, credentials

    async def read(self, role: str, partition: int, start: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        """Offset and value of the committed records of [start, end).

        Raises
        ------
        DataLossError
            The log begins above ``start``.
        """
        tp = TP(self._settings.topic(role), partition)
        async for record in read_range(self._settings.brokers, tp, start, end, credentials=self._credentials):
            yield record.offset, record.value or b""

    async def beginning(self, role: str, partition: int) -> int:
        """First offset that the log holds."""
        tp = TopicPartition(self._settings.topic(role), partition)
        async with self._client() as client:
            return int((await client.beginning_offsets([tp]))[tp])

    async def end(self, role: str, partition: int) -> int:
        """Offset behind the last record that the log holds."""
        tp = TopicPartition(self._settings.topic(role), partition)
        async with self._client() as client:
            return int((await client.end_offsets([tp]))[tp])

    async def first_positions(self, partition: int) -> dict[str, int]:
        """Where each event topic begins on a first start, as ``--from`` says."""
        tps = {topic: TopicPartition(self._settings.topic(topic), partition) for topic in TOPICS}
        async with self._client() as client:
            if self._settings.start == "earliest":
                found = await client.beginning_offsets(list(tps.values()))
            else:
                found = await client.end_offsets(list(tps.values()))
            if self._settings.start not in ("earliest", "latest"):
                times = await client.offsets_for_times(dict.fromkeys(tps.values(), int(self._settings.start)))
                found |= {tp: there.offset for tp, there in times.items() if there is not None}
        return {topic: int(found[tp]) for topic, tp in tps.items()}

    def _client(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=addresses(self._settings.brokers), **client_auth(self._credentials)
        )

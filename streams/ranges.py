"""Reading a closed range of one partition again, outside of any group, as recovery must."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from schemas.errors import DataLossError, UnreachableError
from streams.batches import TP, Record
from streams.brokers import Brokers
from streams.positions import Bounds, loss_sentence

logger = logging.getLogger(__name__)

RETRY_S = 0.5
POLL_MS = 100
MAX_RECORDS = 2_000


async def read_range(
    brokers: Brokers,
    tp: TP,
    start: int,
    end: int,
    *,
    wait_s: float | None = 60.0,
) -> AsyncIterator[Record]:
    """Yield the committed records of [start, end) in order; end when the client stands at `end` or beyond.

    The range may end in transaction markers or in a compaction gap. A broker that goes away meanwhile is
    waited for, and nothing is yielded twice.

    Parameters
    ----------
    brokers
        Which Kafka.
    start, end
        Offsets; an empty range yields nothing and asks nobody.
    wait_s
        How long the first contact may take, in seconds; None waits for ever.

    Raises
    ------
    DataLossError
        The log does not hold all of the range: it begins above `start`, or ends below `end`.
    UnreachableError
        No broker answered in time.
    """
    if start >= end:
        return
    async with _reader(brokers, tp, wait_s) as client:
        await _require_range(client, tp, start, end)
        client.seek(TopicPartition(*tp), start)
        position = start
        while position < end:
            try:
                fetched = await client.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
                reached = await client.position(TopicPartition(*tp))
            except OffsetOutOfRangeError:
                await _require_range(client, tp, position, end)
                client.seek(TopicPartition(*tp), position)
                continue
            except KafkaError as error:
                logger.warning("%s-%d could not be read, trying again: %r", *tp, error)
                await asyncio.sleep(RETRY_S)
                client.seek(TopicPartition(*tp), position)
                continue
            for record in fetched.get(TopicPartition(*tp), ()):
                if record.offset < end:
                    yield record
            position = reached


@asynccontextmanager
async def _reader(brokers: Brokers, tp: TP, wait_s: float | None) -> AsyncIterator[Any]:
    client = await connect_reader(brokers, wait_s)
    try:
        client.assign([TopicPartition(*tp)])
        yield client
    finally:
        await client.stop()


async def connect_reader(brokers: Brokers, wait_s: float | None) -> Any:
    """A client outside of any group that reads committed records from where it is sent.

    Raises
    ------
    UnreachableError
        No broker answered within `wait_s` seconds (None: for ever).
    """
    deadline_s = None if wait_s is None else time.monotonic() + wait_s
    while True:
        client = AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=POLL_MS,
            request_timeout_ms=20_000,
            **brokers.client_options(),
        )
        try:
            await client.start()
        except KafkaError as error:
            await client.stop()
            if deadline_s is not None and time.monotonic() >= deadline_s:
                raise UnreachableError(f"no Kafka broker answers at {brokers}") from error
            await asyncio.sleep(RETRY_S)
        else:
            return client


async def _require_range(client: Any, tp: TP, start: int, end: int) -> None:
    client_tp = TopicPartition(*tp)
    first = (await client.beginning_offsets([client_tp]))[client_tp]
    last = (await client.end_offsets([client_tp]))[client_tp]
    bounds = Bounds(first, last, None)
    if start < first:
        raise DataLossError(loss_sentence(tp, start, bounds))
    if end > last:
        raise DataLossError(loss_sentence(tp, end, bounds))

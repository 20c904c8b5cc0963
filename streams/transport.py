"""What agents use of the batch transport: an app with the proven settings, and agents that are given batches.

The rest of the program imports from here; the modules ``batch_*`` are the inside.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from faust.tables.manager import TableManager

from streams.batch_consumer import BatchConsumer
from streams.batch_thread import FetchOptions, Standing
from streams.batch_transport import SCHEME, BatchApp, TransportOptions, register
from streams.batches import TP, Batch, Record
from streams.brokers import Brokers
from streams.fatal import stop_process
from streams.log_limit import limit_noisy_loggers
from streams.positions import GroupPositions, Positions

__all__ = [
    "TP",
    "Batch",
    "BatchApp",
    "BatchConsumer",
    "Brokers",
    "FetchOptions",
    "GroupPositions",
    "Positions",
    "Record",
    "Standing",
    "batch_agent",
    "consumer_of",
    "make_app",
    "mark_up_to",
]

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 9 * 1024 * 1024
"""Of a produced request: a record of 8 MiB and its frame. The topic's max.message.bytes must allow it."""

NEVER_S = 20 * 24 * 3600.0
"""How long the client may go without reading: sinks that are down for hours are waited for."""

BatchHandler = Callable[[AsyncIterator[Batch]], Awaitable[None]]


def make_app(
    name: str,
    *,
    brokers: Brokers,
    group: str,
    positions: Positions | None = None,
    fetch: FetchOptions | None = None,
    session_timeout_s: float = 6.0,
    group_instance_id: str | None = None,
    idempotent_producer: bool = True,
    tables: type[TableManager] = TableManager,
) -> BatchApp:
    """Return a Faust app on the batch transport, without agents, topics or tables yet.

    Parameters
    ----------
    name
        What brokers and logs call this client.
    brokers
        Which Kafka, and how one gets in.
    group
        The consumer group; also the first part of changelog topics' names. Topics are never created by the
        app.
    positions
        The application's knowledge of positions; without it those of the group.
    fetch
        How to fetch; the default is the proven one.
    session_timeout_s
        After how long without a heartbeat the group gives the partitions of a dead worker to others. 6 s is
        the least a broker allows by default.
    group_instance_id
        Static membership, for a worker that a supervisor starts again within seconds; take 20 s of session
        then.
    idempotent_producer
        Off only for a broker that cannot do it.
    tables
        What looks after its tables.
    """
    register()
    limit_noisy_loggers()
    fetch = fetch or FetchOptions()
    options = TransportOptions(
        positions=positions or GroupPositions(),
        fetch=fetch,
        idempotent_producer=idempotent_producer,
    )
    return BatchApp(
        group,
        transport_options=options,
        # Faust lets the environment overrule arguments; ours has names like PRODUCER_ACKS only by accident.
        env={},
        broker=brokers.urls(SCHEME),
        broker_client_id=name,
        broker_credentials=brokers.credentials,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=min(1.0, session_timeout_s / 6),
        broker_rebalance_timeout=10.0,
        broker_request_timeout=max(20.0, session_timeout_s),
        broker_commit_interval=0.5,
        broker_max_poll_interval=NEVER_S,
        consumer_max_fetch_size=fetch.partition_bytes,
        consumer_group_instance_id=group_instance_id,
        producer_acks=-1,
        producer_linger=0.0,
        producer_max_request_size=MAX_REQUEST_BYTES,
        store="memory://",
        stream_buffer_maxsize=4,
        stream_recovery_delay=0.0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        TableManager=tables,
    )


def consumer_of(app: BatchApp) -> BatchConsumer:
    """Return the app's consumer: marks, durable positions, offsets. It exists once the app has started."""
    return cast("BatchConsumer", app.consumer)


def mark_up_to(consumer: BatchConsumer, tp: TP, position: int) -> None:
    """Note that everything below `position` is durable; nothing happens for a partition that is not owned."""
    durable, generation = consumer.durable(tp), consumer.generation
    if durable is not None and generation is not None and position > durable:
        consumer.mark_durable(tp, durable, position, generation)


def batch_agent(app: BatchApp, topic: str, handler: BatchHandler) -> Any:
    """Run `handler` once per owned partition of `topic` on the partition's batches; returns the agent.

    A batch counts as in progress until the handler asks for the next one; a drain waits for it for half of
    the rebalance timeout. Batches whose partition has left are not shown. An exception that leaves the
    handler stops the process (exit 3), because a Faust worker would go on and stand still.
    """

    async def run(stream: Any) -> None:
        async with aclosing(_batches(app, stream)) as batches:
            try:
                await handler(batches)
            except Exception as error:  # noqa: BLE001 - whatever it was, the batch is neither done nor given up
                stop_process(f"the agent of {topic} failed: {error}")

    # A name of its own: Faust names an agent after its function, and these are all called run.
    run.__qualname__ = run.__name__ = f"{getattr(handler, '__name__', 'agent')}_{topic}"
    source = app.topic(topic, key_serializer="raw", value_serializer="raw", allow_empty=True)
    # One actor per partition: when they share a queue and it is full, nothing is read for anybody any more.
    return app.agent(source, name=run.__name__, isolated_partitions=True)(run)


async def _batches(app: BatchApp, stream: Any) -> AsyncGenerator[Batch, None]:
    consumer = consumer_of(app)
    async for batch in stream:
        if not consumer.is_current(batch.generation):
            continue
        consumer.begin_batch(batch)
        try:
            yield batch
        finally:
            consumer.end_batch(batch)

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import faust
import pytest
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport import by_url

from streams import batch_transport
from streams.batch_consumer import BatchConsumer, ReadOffsets
from streams.batch_thread import BatchThread
from streams.batch_transport import BatchApp, Producer, Transport
from streams.batches import TP
from streams.brokers import Brokers
from streams.transport import FetchOptions, GroupPositions, make_app


def app_of(*, fetch: FetchOptions | None = None, idempotent_producer: bool = True) -> BatchApp:
    brokers = Brokers("127.0.0.1:1,127.0.0.1:2")
    return make_app(
        "worker-1", brokers=brokers, group="judges", fetch=fetch, idempotent_producer=idempotent_producer
    )


@contextmanager
def thread_of(app: faust.App) -> Iterator[BatchThread]:
    """The app's consumer thread, which has an event loop of its own although it never starts."""
    thread = cast("BatchConsumer", app.consumer)._thread
    yield thread
    thread.thread_loop.close()


def test_the_scheme_names_the_transport() -> None:
    batch_transport.register()
    assert by_url("batch://host:9092") is Transport


def test_the_app_has_the_proven_settings() -> None:
    conf = app_of().conf
    assert conf.id == "judges"
    assert conf.broker_client_id == "worker-1"
    assert [str(url) for url in conf.broker] == ["batch://127.0.0.1:1", "batch://127.0.0.1:2"]
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval) == (6.0, 1.0)
    assert (conf.broker_rebalance_timeout, conf.broker_request_timeout) == (10.0, 20.0)
    assert conf.broker_commit_interval == 0.5
    assert conf.stream_buffer_maxsize == 4
    assert not conf.web_enabled
    assert not conf.topic_allow_declare
    assert conf.topic_disable_leader
    assert conf.producer_acks == -1


def test_the_environment_overrules_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "APP_WEB_ENABLED", "yes")
    monkeypatch.setitem(os.environ, "PRODUCER_ACKS", "0")
    conf = app_of().conf
    assert not conf.web_enabled
    assert conf.producer_acks == -1


def test_the_client_reads_committed_records_and_resets_to_nowhere() -> None:
    async def client_of_the_app() -> None:
        app = app_of(fetch=FetchOptions(max_wait_ms=70))
        with thread_of(app) as thread:
            client = thread._create_worker_consumer(cast("Transport", app.transport))
            await client.stop()
        assert client._isolation_level == "read_committed"
        assert client._auto_offset_reset == "none"
        assert client._fetch_max_wait_ms == 70
        assert client._enable_auto_commit is False
        (assignor,) = client._partition_assignment_strategy
        assert isinstance(assignor, PartitionAssignor)

    asyncio.run(client_of_the_app())


@pytest.mark.parametrize("idempotent", [True, False])
def test_the_producer_waits_for_all_replicas_and_writes_nothing_twice(idempotent: bool) -> None:
    async def settings() -> dict[str, Any]:
        producer = cast("Producer", app_of(idempotent_producer=idempotent).producer)
        return {**producer._settings_default(), **producer._settings_extra()}

    found = asyncio.run(settings())
    assert found["acks"] in (-1, "all")
    assert bool(found.get("enable_idempotence")) is idempotent
    assert found["linger_ms"] == 0
    assert found["max_request_size"] > 8 * 1024 * 1024


def test_a_plain_faust_app_gets_the_defaults() -> None:
    async def positions() -> object:
        batch_transport.register()
        app = faust.App("plain", broker="batch://127.0.0.1:1", env={})
        with thread_of(app):
            return cast("BatchConsumer", app.consumer)._positions

    assert isinstance(asyncio.run(positions()), GroupPositions)


def test_batches_are_never_dropped_for_an_offset_read_before() -> None:
    changelog, stream = TP("changelog", 0), TP("clicks", 0)
    offsets = ReadOffsets(lambda tp: tp == changelog)
    offsets[changelog] = 5
    offsets[stream] = 5
    assert (offsets[changelog], offsets[stream], offsets[TP("new", 0)]) == (5, None, None)


def test_a_crash_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(batch_transport, "stop_process", said.append)
    app = app_of()
    app._crash(asyncio.CancelledError())
    assert said == []
    app._crash(RuntimeError("gone"))
    assert said == ["the Kafka client failed: RuntimeError('gone')"]

"""The Redis stream of alerts: each once, in order, with bounded memory, through a Redis that forgot its functions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

import sinks.alert_stream
from sinks.alert_stream import AlertStream
from tests.alert_receiver import made_alert
from tests.fresh_redis import use_fresh
from tests.services import RedisServer

pytestmark = pytest.mark.integration

ALERTS = [made_alert(i, state=state) for i in range(700) for state in ("open", "resolved")]
KEY = "{space}:alerts"


async def entries(client: Redis) -> list[dict[str, str]]:
    found: Any = await client.xrange(KEY)
    return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]


def test_each_is_added_once_in_order(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        stream = AlertStream(client, namespace="space")
        assert await stream.add(ALERTS[:900]) == 900
        await client.function_flush()
        assert await AlertStream(client, namespace="space").add(ALERTS) == 500
        assert await stream.add(ALERTS) == 0
        assert [(entry["id"], entry["state"]) for entry in await entries(client)] == [
            (alert.id, alert.state) for alert in ALERTS
        ]

    use_fresh(redis_server, use)


def test_an_entry_says_everything_and_null_is_empty(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        alert = msgspec.structs.replace(made_alert(), campaign=None)
        await AlertStream(client, namespace="space").add([alert])
        (entry,) = await entries(client)
        values = {
            **msgspec.structs.asdict(alert),
            "evidence": '{"users":12}',
            "campaign": "",
            "dim_value": "",
        }
        assert entry == {name: str(value) for name, value in values.items()}

    use_fresh(redis_server, use)


def test_stream_and_memory_are_bounded(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks.alert_stream, "KEPT", 50)
    monkeypatch.setattr(sinks.alert_stream, "REMEMBERED", 60)

    async def use(client: Redis) -> None:
        stream = AlertStream(client, namespace="space")
        await stream.add(ALERTS)
        assert 50 <= await client.xlen(KEY) < 300
        assert await client.zcard(f"{KEY}:told") == 60
        assert await stream.add(ALERTS[-60:]) == 0

    use_fresh(redis_server, use)


def test_keys_that_somebody_made_into_something_else_hold_nothing_up(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        stream = AlertStream(client, namespace="space")
        for name in (KEY, f"{KEY}:told"):
            await client.set(name, "foreign")
        assert await stream.add(ALERTS[:3]) == 3
        assert await stream.add(ALERTS[:3]) == 0
        assert [entry["id"] for entry in await entries(client)] == [alert.id for alert in ALERTS[:3]]

    use_fresh(redis_server, use)

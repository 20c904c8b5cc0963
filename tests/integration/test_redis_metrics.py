"""Redis, the real one: funnels and daily users, read with one call each, guarded by epoch and position."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from redis.asyncio import Redis

from schemas.errors import FencedError
from sinks.metric_redis import MetricRedis
from sinks.redis_functions import ForgottenError, RedisFunctions
from sinks.tables import Table
from tests.fresh_redis import hashes, use_fresh
from tests.services import RedisServer

pytestmark = pytest.mark.integration

FUNNEL_COLUMNS = ("campaign", "funnel", "window", "window_start", "dim", "dim_value", "step", "step_name")
COUNTS = ("users_gross", "users_suspect", "users_clean")
DAY = datetime(2020, 1, 1, tzinfo=UTC)


def table(columns: Sequence[str], *rows: tuple[Any, ...]) -> Table:
    return pa.Table.from_pylist([dict(zip((*columns, *COUNTS), row, strict=True)) for row in rows])


def funnel(*rows: tuple[Any, ...]) -> Table:
    return table(FUNNEL_COLUMNS, *rows)


def dau(*rows: tuple[Any, ...]) -> Table:
    return table(("date", "campaign", "dim", "dim_value"), *rows)


def metrics_on(client: Redis) -> MetricRedis:
    return MetricRedis(client, key_fingerprint="key")


def test_a_dashboard_reads_a_funnel_and_daily_users_with_one_call_each(redis_server: RedisServer) -> None:
    funnels = funnel(
        ("spring", "purchase", "all", None, "all", None, 1, "view", 10, 4, 6),
        ("spring", "purchase", "all", None, "channel", "ads/1", 2, "buy", 3, 0, 3),
        ("spring", "purchase", "1d", DAY, "all", None, 1, "view", 5, 1, 4),
        (None, "purchase", "all", None, "channel", "-", 1, "view", 1, 1, 0),
        ("-", "purchase", "all", None, "channel", None, 1, "浏览", 2**53, 0, 2**53),
    )
    users = dau(
        (date(2020, 1, 1), "spring", "all", None, 7, 2, 5),
        (date(2020, 1, 2), None, "all_campaigns", None, 9, 0, 9),
    )

    async def use(client: Redis) -> None:
        metrics = metrics_on(client)
        assert await metrics.take_over(2, epoch=1) == 0
        assert await metrics.write(2, 100, {"funnel": funnels, "dau": users}) == 100
        found = await hashes(client, "*:funnel:*") | await hashes(client, "*:dau:*")
        assert {key: {f: json.loads(v) for f, v in fields.items()} for key, fields in found.items()} == {
            "{woolwatch}:funnel:purchase:spring:all": {
                "all/all/-/1": {"step_name": "view", "gross": 10, "suspect": 4, "clean": 6},
                "all/channel/ads%2F1/2": {"step_name": "buy", "gross": 3, "suspect": 0, "clean": 3},
            },
            "{woolwatch}:funnel:purchase:spring:1d": {
                "2020-01-01T00:00:00Z/all/-/1": {"step_name": "view", "gross": 5, "suspect": 1, "clean": 4},
            },
            "{woolwatch}:funnel:purchase:-:all": {
                "all/channel/%2D/1": {"step_name": "view", "gross": 1, "suspect": 1, "clean": 0}
            },
            "{woolwatch}:funnel:purchase:%2D:all": {
                "all/channel/-/1": {"step_name": "浏览", "gross": 2**53, "suspect": 0, "clean": 2**53}
            },
            "{woolwatch}:dau:spring": {"2020-01-01/all/-": {"gross": 7, "suspect": 2, "clean": 5}},
            "{woolwatch}:dau:-": {"2020-01-02/all_campaigns/-": {"gross": 9, "suspect": 0, "clean": 9}},
        }

    use_fresh(redis_server, use)


def test_numbers_are_corrected_and_taken_away(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        metrics = metrics_on(client)
        await metrics.take_over(0, epoch=1)
        await metrics.write(0, 5, {"dau": dau((date(2020, 1, 1), None, "all", None, 1, 0, 1))})
        await metrics.write(0, 5, {"dau": dau((date(2020, 1, 1), None, "all", None, 1, 1, 0))})
        key = "{woolwatch}:dau:-"
        assert (await hashes(client, key))[key] == {"2020-01-01/all/-": '{"gross":1,"suspect":1,"clean":0}'}
        gone = {"dau": dau((date(2020, 1, 1), None, "all", None, 0, 0, 0))}
        assert await metrics.write(0, 6, {}, gone=gone) == 6
        assert await hashes(client, key) == {}

    use_fresh(redis_server, use)


def test_numbers_of_a_lower_position_and_of_a_former_owner_are_refused(redis_server: RedisServer) -> None:
    newer = {"dau": dau((date(2020, 1, 1), None, "all", None, 2, 0, 2))}
    older = {"dau": dau((date(2020, 1, 1), None, "all", None, 1, 0, 1))}

    async def use(client: Redis) -> None:
        zombie, owner = metrics_on(client), metrics_on(client)
        await zombie.take_over(0, epoch=1)
        await owner.take_over(0, epoch=2)
        assert await owner.write(0, 9, newer) == 9
        with pytest.raises(FencedError):
            await zombie.write(0, 12, older)
        late = metrics_on(client)
        assert await late.take_over(0, epoch=3) == 9
        assert await late.write(0, 8, older) == 9
        shown_now = await hashes(client, "*:dau:*")
        assert list(shown_now.values()) == [{"2020-01-01/all/-": '{"gross":2,"suspect":0,"clean":2}'}]

    use_fresh(redis_server, use)


def test_many_numbers_are_written_in_several_calls_before_the_position_moves(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dau(
        *((date(2020, 1, 1), None, "channel", f"c{number}", number, 0, number) for number in range(25))
    )

    async def use(client: Redis) -> None:
        metrics = metrics_on(client)
        await metrics.take_over(0, epoch=1)
        monkeypatch.setattr("sinks.metric_redis.CALL_FIELDS", 10)
        write, calls = RedisFunctions.write, 0

        async def watched(self: RedisFunctions, *arguments: Any) -> int:
            nonlocal calls
            calls += 1
            assert await self.position("{woolwatch}:rollup:0") == 0
            return await write(self, *arguments)

        monkeypatch.setattr(RedisFunctions, "write", watched)
        assert await metrics.write(0, 7, {"dau": rows}) == 7
        assert calls == 3
        found = await hashes(client, "*:dau:*")
        assert {k: json.loads(v)["gross"] for k, v in found["{woolwatch}:dau:-"].items()} == {
            f"2020-01-01/channel/c{number}": number for number in range(25)
        }

    use_fresh(redis_server, use)


def test_metrics_that_redis_forgot_are_noticed(redis_server: RedisServer) -> None:
    rows = {"dau": dau((date(2020, 1, 1), None, "all", None, 1, 0, 1))}

    async def use(client: Redis) -> None:
        metrics = metrics_on(client)
        await metrics.take_over(0, epoch=1)
        await metrics.write(0, 5, rows)
        await client.flushall()
        with pytest.raises(ForgottenError):
            await metrics.write(0, 6, {})
        assert await metrics.take_over(0, epoch=1) == 0
        assert await metrics.write(0, 6, rows) == 6
        assert await hashes(client, "*:dau:*") != {}

    use_fresh(redis_server, use)

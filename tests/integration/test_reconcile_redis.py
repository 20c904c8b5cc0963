"""Redis beside the tables: what differs is found, and what is only on its way is not."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from redis.asyncio import Redis

from sinks.local_store import LocalStore
from sinks.metric_files import MetricFiles
from sinks.metric_redis import MetricRedis
from sinks.parquet import ParquetSink
from sinks.redis import RedisSink
from sinks.redis_contents import RedisContents
from sinks.tables import Table
from streams.reconcile_redis import RedisReport, reconcile_redis
from tests.fresh_redis import use_fresh
from tests.services import RedisServer
from tests.unit.sinks.turns import Made, made_turn

pytestmark = pytest.mark.integration

TURNS, PARTITION, NAMESPACE = 8, 3, "wool*[watch]"
PREFIX = f"{{{NAMESPACE}}}"
Turns = Sequence[Made]


class Both:
    """Redis and tables of one installation, written as a worker writes them."""

    def __init__(self, client: Redis, root: Path) -> None:
        self.client, self.store = client, LocalStore(root)
        self.redis = RedisSink(client, partition=PARTITION, key_fingerprint="key", namespace=NAMESPACE)
        self.tables = ParquetSink(self.store, PARTITION, key_fingerprint="key")
        self.files, self.made = (
            MetricFiles(self.store),
            [made_turn(number, users=9) for number in range(TURNS)],
        )
        self.numbers = MetricRedis(client, key_fingerprint="key", namespace=NAMESPACE)

    async def open(self) -> None:
        self.tables.open()
        await self.redis.take_over(epoch=1)
        await self.numbers.take_over(0, epoch=1)

    async def show(self, turns: Turns) -> None:
        await self.redis.write([each.turn for each in turns])

    def commit(self, turns: Turns) -> None:
        for each in turns:
            self.tables.write([each.turn])

    async def show_users(self, position: int, counts: list[int]) -> None:
        await self.numbers.write(0, position, {"dau": dau(counts)})

    def commit_users(self, position: int, counts: list[int]) -> None:
        self.files.replace("dau", 0, position, dau(counts))

    async def reconcile(self, *, looks: int = 2) -> tuple[RedisReport, list[str]]:
        contents = RedisContents(self.client, NAMESPACE)
        return await reconcile_redis(contents, self.store, looks=looks, pause_s=0.01)

    async def held(self) -> int:
        """Entries of users and devices, counted by Redis itself."""
        count = 0
        async for key in self.client.scan_iter("*:verdict:*"):
            count += 1 if b":user:" in key else await self.client.hlen(key)
        return count

    async def user(self) -> str:
        """A key of a user."""
        keys: list[bytes] = [key async for key in self.client.scan_iter("*:verdict:user:*")]
        return min(keys).decode()


def dau(counts: list[int]) -> Table:
    """Some days."""
    return pa.table(
        {
            "campaign": ["秋/1"] * len(counts),
            "date": [dt.date(2020, 1, 1 + day) for day in range(len(counts))],
            "dim": ["all"] * len(counts),
            "dim_value": pa.array([None] * len(counts), pa.string()),
            "users_gross": counts,
            "users_suspect": [0] * len(counts),
            "users_clean": counts,
        }
    )


def said_of_users(day: int, shown: int | None, have: int) -> str:
    """What is said of a day that differs."""
    texts = ["nothing" if n is None else f'{{"gross":{n},"suspect":0,"clean":{n}}}' for n in (shown, have)]
    return (
        f"{PREFIX}:dau:%E7%A7%8B%2F1 2020-01-0{day}/all/-: Redis shows {texts[0]}, the tables have {texts[1]}"
    )


def on(server: RedisServer, root: Path, use: Callable[[Both], Awaitable[None]]) -> None:
    async def main(client: Redis) -> None:
        both = Both(client, root)
        await both.open()
        await use(both)

    use_fresh(server, main)


def test_what_is_equal_is_counted_and_nothing_is_said(redis_server: RedisServer, tmp_path: Path) -> None:
    async def use(both: Both) -> None:
        assert await both.reconcile() == (RedisReport(), [])
        await both.show(both.made)
        both.commit(both.made)
        await both.show_users(5, [7, 9])
        both.commit_users(5, [7, 9])
        held = await both.held()
        assert held > 5
        assert await both.reconcile(looks=1) == (RedisReport(held, 2, 0, 0), [])
        await both.client.delete(await both.user())
        assert await both.reconcile(looks=1) == (RedisReport(held - 1, 2, 1, 0), [])

    on(redis_server, tmp_path, use)


def test_a_verdict_that_went_back_is_found(redis_server: RedisServer, tmp_path: Path) -> None:
    async def use(both: Both) -> None:
        both.commit(both.made)
        await both.show(both.made[:4])
        old = {
            key: (await both.client.dump(key) or b"") async for key in both.client.scan_iter("*:verdict:*")
        }
        await both.show(both.made[4:])
        assert (await both.reconcile())[1] == []
        for key, content in old.items():
            await both.client.restore(key, 0, content, replace=True)
        _, problems = await both.reconcile()
        assert any(problem.startswith("user ") for problem in problems)
        assert any(problem.startswith("device ") for problem in problems)

    on(redis_server, tmp_path, use)


def test_what_somebody_overwrote_is_found(redis_server: RedisServer, tmp_path: Path) -> None:
    async def use(both: Both) -> None:
        await both.show(both.made)
        both.commit(both.made)
        await both.show_users(5, [7])
        both.commit_users(5, [7])
        user = await both.user()
        await both.client.hset(user, "level", "pass")
        await both.client.hset(f"{PREFIX}:verdict:device:{'0' * 32}", "3", json.dumps({"level": 5}))
        old = {"level": "block", "score": 1, "event": "e", "event_id": "i", "ts": 10**30}
        old |= {"campaign": "", "config_hash": "", "reasons": [], "user": ""}
        await both.client.hset(f"{PREFIX}:verdict:device:{'1' * 32}", "3", json.dumps(old))
        await both.client.set(f"{PREFIX}:verdict:user:x", "mine")
        await both.client.set(f"{PREFIX}:funnel:a", "mine, too")
        _, problems = await both.reconcile()
        assert [problem.split()[0].removeprefix(PREFIX) for problem in problems] == [
            ":verdict:user:x",
            "user",
            "device",
            "device",
            ":funnel:a",
        ]
        assert user.rpartition(":")[2] in problems[1]

    on(redis_server, tmp_path, use)


def test_one_that_stays_behind_is_said_and_is_no_problem(redis_server: RedisServer, tmp_path: Path) -> None:
    async def use(both: Both) -> None:
        await both.show(both.made[:6])
        both.commit(both.made[:4])
        await both.show_users(6, [7])
        both.commit_users(5, [6])
        report, problems = await both.reconcile()
        assert problems == []
        assert report.waiting == (
            "judge partition 3: the tables stand at turn 4, Redis shows turn 6",
            said_of_users(1, 7, 6),
        )
        both.commit(both.made[4:])
        report, problems = await both.reconcile()
        assert problems == []
        assert report.waiting[0] == "judge partition 3: Redis stands at turn 6, the tables have turn 8"

    on(redis_server, tmp_path, use)


def test_what_is_on_its_way_is_waited_for(redis_server: RedisServer, tmp_path: Path) -> None:
    """A worker writes into one and the other while both are read."""

    async def use(both: Both) -> None:
        async def work() -> None:
            for number in range(2, TURNS, 2):
                await both.show(both.made[: number + 2])
                await asyncio.sleep(0.02)
                both.commit(both.made[number : number + 2])
                await both.show_users(5 + number, [7, number])
                await asyncio.sleep(0.02)
                both.commit_users(5 + number, [7, number])

        await both.show(both.made[:3])
        both.commit(both.made[:2])
        await both.show_users(5, [7])
        (report, problems), _ = await asyncio.gather(both.reconcile(looks=1000), work())
        assert problems == []
        assert report.verdicts > 3
        assert report.numbers > 0
        assert report.absent == 0

    on(redis_server, tmp_path, use)


def test_numbers_that_differ_all_the_while_are_found(redis_server: RedisServer, tmp_path: Path) -> None:
    async def use(both: Both) -> None:
        await both.show_users(5, [7, 9, 3])
        both.commit_users(5, [7, 8, 3, 4])
        _, problems = await both.reconcile()
        assert problems == [said_of_users(2, 9, 8), said_of_users(4, None, 4)]
        await both.show_users(6, [1, 2, 3, 4])
        both.commit_users(6, list(range(20)))
        assert (await both.reconcile())[1][-1] == "and 15 more like these"

    on(redis_server, tmp_path, use)


def test_another_key_is_found(redis_server: RedisServer, tmp_path: Path) -> None:
    async def use(both: Both) -> None:
        await both.client.set(f"{PREFIX}:key", "another")
        assert (await both.reconcile())[1] == ["Redis and the tables were written with different keys"]

    on(redis_server, tmp_path, use)


def test_the_namespace_of_another_is_not_read(redis_server: RedisServer, tmp_path: Path) -> None:
    async def use(both: Both) -> None:
        await both.client.hset("{woolxwatch}:verdict:user:1", "level", "block")
        await both.client.hset("{woolxwatch}:judge:3", "position", 9)
        assert await both.reconcile() == (RedisReport(), [])

    on(redis_server, tmp_path, use)

"""What Redis forgot comes back from the tables: every byte as in a Redis that forgot nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import sinks.redis_functions
import streams.redis_restore
from schemas.errors import StateError, UnreachableError
from sinks.local_store import LocalStore
from sinks.parquet import ParquetSink
from sinks.redis import RedisSink
from sinks.redis_contents import RedisContents
from streams.redis_restore import RedisRestore
from streams.shown_verdicts import VerdictRows
from tests.fresh_redis import hashes, use_fresh
from tests.services import RedisServer
from tests.unit.sinks.test_compaction import compacted
from tests.unit.sinks.turns import Made, made_turn

pytestmark = pytest.mark.integration

PARTITION, TURNS, KEPT = 3, 10, 7
"""KEPT: the judge's checkpoint; it can make this turn again, and none before."""
Forget = Callable[[Redis, dict[bytes, bytes]], Awaitable[None]]
Shown = dict[str, dict[str, str]]


def made_turns() -> list[Made]:
    return [made_turn(number, users=40, days=2) for number in range(TURNS)]


def committed(root: Path, made: list[Made], *, per_commit: int = 1, partition: int = PARTITION) -> None:
    sink = ParquetSink(LocalStore(root), partition, key_fingerprint="key")
    sink.open()
    for first in range(0, len(made), per_commit):
        sink.write([each.turn for each in made[first : first + per_commit]])


async def sink_at(client: Redis, *, epoch: int, turn: int, **settings: Any) -> RedisSink:
    sink = RedisSink(client, partition=PARTITION, key_fingerprint="key", **settings)
    await sink.take_over(epoch=epoch, turn=turn)
    return sink


def restore_by(sink: RedisSink, client: Redis, root: Path) -> RedisRestore:
    return RedisRestore(sink, RedisContents(client), LocalStore(root), PARTITION)


async def verdicts_in(client: Redis) -> Shown:
    return await hashes(client, "*:verdict:*")


async def everything(client: Redis) -> dict[bytes, bytes]:
    return {key: await client.dump(key) or b"" async for key in client.scan_iter("*")}


async def forget_all(client: Redis, _: dict[bytes, bytes]) -> None:
    await client.flushall()


async def forget_the_positions(client: Redis, _: dict[bytes, bytes]) -> None:
    await client.delete("{woolwatch}:judge:3")


async def become_an_older_replica(client: Redis, older: dict[bytes, bytes]) -> None:
    await client.flushall()
    for key, content in older.items():
        await client.restore(key, 0, content)


async def become_strings(client: Redis, _: dict[bytes, bytes]) -> None:
    async for key in client.scan_iter("*"):
        if not key.endswith(b":key"):
            await client.set(key, "mine")


@pytest.fixture(autouse=True)
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.redis_restore, "_ROWS_A_CALL", 2)
    monkeypatch.setattr(streams.redis_restore, "_KEYS_AT_ONCE", 5)
    monkeypatch.setattr(streams.redis_restore, "_LOOK_AGAIN_S", 0.01)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("is_compacted", [False, True])
@pytest.mark.parametrize(
    "forget", [forget_all, forget_the_positions, become_an_older_replica, become_strings]
)
def test_redis_ends_as_if_it_had_forgotten_nothing(
    redis_server: RedisServer, tmp_path: Path, forget: Forget, is_compacted: bool, goes_on: bool
) -> None:
    """``goes_on``: turns are judged, and shown, while it is restored."""
    made = made_turns()

    async def use(client: Redis) -> None:
        sink = await sink_at(client, epoch=1, turn=0)
        await sink.write([each.turn for each in made[:4]])
        older = await everything(client)
        await sink.write([each.turn for each in made[4:KEPT]])
        at_the_checkpoint = await verdicts_in(client)
        await sink.write([each.turn for each in made[KEPT:]])
        at_the_end = await verdicts_in(client)
        await forget(client, older)
        committed(tmp_path, made)
        committed(tmp_path, [made_turn(n, users=80, partition=4, config="b") for n in range(4)], partition=4)
        if is_compacted:
            compacted(tmp_path)
        sink = await sink_at(client, epoch=2, turn=KEPT)
        assert [sink.lacks] == [4 if forget is become_an_older_replica else 0]
        restore = asyncio.create_task(restore_by(sink, client, tmp_path).run())
        if goes_on:
            for each in made[KEPT:]:
                await sink.write([each.turn])
                await asyncio.sleep(0.01)
            await restore
            assert await verdicts_in(client) == at_the_end
        else:
            await restore
            # Whoever is judged again in the turns to come may have the later verdict already.
            found, later = (
                await verdicts_in(client),
                {row["user"] for each in made[KEPT:] for row in each.verdicts},
            )
            of_others = [
                {key: value for key, value in shown.items() if ":user:" in key and key[-32:] not in later}
                for shown in (found, at_the_checkpoint)
            ]
            assert of_others[0] == of_others[1]
            assert of_others[0]
            await sink.write([each.turn for each in made[KEPT:]])
            assert await verdicts_in(client) == at_the_end
        assert sink.lacks is None
        assert (await sink_at(client, epoch=3, turn=KEPT)).lacks is None

    use_fresh(redis_server, use)


def test_whoever_is_killed_in_it_is_followed_by_the_next_owner(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first owner dies at call n, with its reply lost or not; the second has judged further."""
    made = made_turns()

    async def broken_off(client: Redis, at: int) -> bool:
        """Whether there was a call ``at``."""
        monkeypatch.setattr(streams.redis_restore, "_ROWS_A_CALL", 2)
        await client.flushall()
        sink = await sink_at(client, epoch=1, turn=0)
        await sink.write([each.turn for each in made])
        want = await verdicts_in(client)
        await client.flushall()
        first = await sink_at(client, epoch=2, turn=6)
        write, numbers, died = RedisSink.restore, itertools.count(), asyncio.Event()

        async def dying(self: RedisSink, *arguments: Any, **more: Any) -> None:
            if next(numbers) == at:
                died.set()
                await asyncio.Event().wait()
            await write(self, *arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(RedisSink, "restore", dying)
            restore = asyncio.create_task(restore_by(first, client, tmp_path).run())
            dead = asyncio.create_task(died.wait())
            await asyncio.wait([restore, dead], return_when=asyncio.FIRST_COMPLETED)
            for task in (restore, dead):
                task.cancel()
            await asyncio.gather(restore, dead, return_exceptions=True)
        await first.write([each.turn for each in made[6:8]])
        monkeypatch.setattr(streams.redis_restore, "_ROWS_A_CALL", 3)  # other calls than those that were in
        second = await sink_at(client, epoch=3, turn=7)
        assert (second.lacks is None) == (not died.is_set())
        await asyncio.gather(
            restore_by(second, client, tmp_path).run(), second.write([each.turn for each in made[7:]])
        )
        assert await verdicts_in(client) == want
        return died.is_set()

    async def use(client: Redis) -> None:
        committed(tmp_path, made)
        calls = 0
        while await broken_off(client, calls):
            calls += 1
        assert calls > 5

    use_fresh(redis_server, use)


def test_who_was_cleared_meanwhile_is_shown_no_more(redis_server: RedisServer, tmp_path: Path) -> None:
    made = made_turns()
    for each in made[4:]:
        each.turn.level[:] = 0

    async def use(client: Redis) -> None:
        committed(tmp_path, made)
        await (await sink_at(client, epoch=1, turn=0)).write([each.turn for each in made[:4]])
        before = await verdicts_in(client)
        sink = await sink_at(client, epoch=2, turn=TURNS)
        assert sink.lacks == 4
        await restore_by(sink, client, tmp_path).run()
        cleared = {row["user"] for each in made[4:] for row in each.verdicts}
        users = {key for key in before if ":user:" in key}
        left = {key for key in await verdicts_in(client) if ":user:" in key}
        assert left == {key for key in users if key[-32:] not in cleared} != users

    use_fresh(redis_server, use)


def test_within_a_commit_the_order_of_the_turns_counts(redis_server: RedisServer, tmp_path: Path) -> None:
    made = made_turns()

    async def use(client: Redis) -> None:
        committed(tmp_path, made, per_commit=TURNS)
        sink = await sink_at(client, epoch=1, turn=0)
        await sink.write([each.turn for each in made])
        want = await verdicts_in(client)
        await client.flushall()
        await restore_by(await sink_at(client, epoch=2, turn=TURNS), client, tmp_path).run()
        assert await verdicts_in(client) == want

    use_fresh(redis_server, use)


def test_a_call_that_comes_late_or_twice_undoes_nothing(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each first reply is lost; at the end every call of the restoring comes once more."""
    made = made_turns()
    write, sent = sinks.redis_functions.RedisFunctions.write, list[tuple[Any, ...]]()

    async def losing(self: Any, name: str, *arguments: Any) -> int:
        position: int = await write(self, name, *arguments)
        if name == "judge_restore" and (not sent or sent[-1] != arguments):
            sent.append(arguments)
            raise UnreachableError("the reply is lost")
        return position

    async def use(client: Redis) -> None:
        committed(tmp_path, made)
        sink = await sink_at(client, epoch=1, turn=0)
        await sink.write([each.turn for each in made])
        want = await verdicts_in(client)
        await client.flushall()
        sink = await sink_at(client, epoch=2, turn=KEPT)
        with monkeypatch.context() as patch:
            patch.setattr(sinks.redis_functions.RedisFunctions, "write", losing)
            await restore_by(sink, client, tmp_path).run()
        await sink.write([each.turn for each in made[KEPT:]])
        assert await verdicts_in(client) == want
        assert len(sent) > 5
        for arguments in sent:
            await write(sink._functions, "judge_restore", *arguments)
        assert await verdicts_in(client) == want

    use_fresh(redis_server, use)


def test_what_would_have_expired_stays_away_and_the_rest_lives_no_longer(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    made, day_ms = made_turns(), 86_400_000

    async def use(client: Redis) -> None:
        committed(tmp_path, made)
        sink = await sink_at(client, epoch=1, turn=TURNS, ttl_s=86_400)
        await restore_by(sink, client, tmp_path).run()
        newest = max(row["ts"].timestamp() * 1000 for turn in made for row in turn.verdicts)
        found = await hashes(client, "*:verdict:user:*")
        last = {row["user"]: row for turn in made for row in turn.verdicts}
        due = {
            user: row["ts"].timestamp() * 1000 + day_ms - newest
            for user, row in last.items()
            if row["level"] != "pass"
        }
        assert 0 < sum(left > 0 for left in due.values()) < len(due)
        assert {key.rpartition(":")[2] for key in found} == {user for user, left in due.items() if left > 0}
        for key in found:
            left_ms = await client.pttl(key)
            assert due[key.rpartition(":")[2]] - 60_000 < left_ms <= due[key.rpartition(":")[2]]

    use_fresh(redis_server, use)


def test_tables_that_can_not_be_read_are_tried_again(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on meanwhile."""
    made, tries = made_turns(), itertools.count()
    monkeypatch.setattr(streams.redis_restore, "_TRY_AGAIN_S", 0.01)
    newest = VerdictRows.newest

    def changing(self: VerdictRows, *arguments: Any) -> Any:
        if next(tries) < 5 and next(tries) % 2:
            raise StateError("compacted all the while")
        return newest(self, *arguments)

    async def use(client: Redis) -> None:
        committed(tmp_path, made)
        sink = await sink_at(client, epoch=1, turn=0)
        await sink.write([each.turn for each in made])
        want = await verdicts_in(client)
        await client.flushall()
        sink = await sink_at(client, epoch=2, turn=4)
        with monkeypatch.context() as patch:
            patch.setattr(VerdictRows, "newest", changing)
            restore = asyncio.create_task(restore_by(sink, client, tmp_path).run())
            for each in made[4:]:
                await sink.write([each.turn])
                await asyncio.sleep(0.01)
            await restore
        assert await verdicts_in(client) == want
        assert next(tries) > 5

    use_fresh(redis_server, use)


def test_the_tables_are_waited_for(redis_server: RedisServer, tmp_path: Path) -> None:
    made = made_turns()

    async def use(client: Redis) -> None:
        first = await sink_at(client, epoch=1, turn=0)
        await first.write([each.turn for each in made])
        want = await verdicts_in(client)
        await client.flushall()
        sink = await sink_at(client, epoch=2, turn=TURNS)
        restore = asyncio.create_task(restore_by(sink, client, tmp_path).run())
        tables = ParquetSink(LocalStore(tmp_path), PARTITION, key_fingerprint="key")
        await asyncio.to_thread(tables.open)
        for each in made:
            assert await verdicts_in(client) == {}
            await asyncio.to_thread(tables.write, [each.turn])
        await restore
        assert await verdicts_in(client) == want

    use_fresh(redis_server, use)

"""Redis, the real one: last verdicts, guarded by epoch and position, through what goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import sinks.redis
from schemas.errors import FencedError, StateError, UnreachableError
from schemas.verdicts import Verdicts
from sinks.patience import patiently
from sinks.redis import RedisSink
from sinks.redis_functions import ForgottenError, RedisFunctions, connect
from tests.fresh_redis import hashes, use_fresh
from tests.services import RedisServer
from tests.unit.sinks.turns import Made, Row, made_turn

pytestmark = pytest.mark.integration

NOTHING = (b"\x9a" + b"\x90" * 10, b"\x93\x90\x90\x90", b"\x91\x90", b"\x91\x90")
"""The four tables of a call that shows nothing."""


def sink_on(client: Redis, **settings: Any) -> RedisSink:
    return RedisSink(client, partition=3, key_fingerprint="key", **settings)


def turns_of(made: Sequence[Made]) -> list[Verdicts]:
    return [turn.turn for turn in made]


def shown(row: Row) -> dict[str, Any]:
    """What Redis shows of a row of ``verdicts/``."""
    return {
        "score": row["score"],
        "level": row["level"],
        "reasons": row["reasons"],
        "event": row["event"],
        "event_id": row["event_id"],
        "ts": round(row["ts"].timestamp() * 1000),
        "campaign": row["campaign"] or "",
        "config_hash": row["config_hash"],
    }


async def assert_last_verdicts(client: Redis, made: Sequence[Made], namespace: str = "woolwatch") -> None:
    """Compare users and devices with a walk over all rows in plain Python; late rows are not among them."""
    users: dict[str, dict[str, Any]] = {}
    devices: dict[str, dict[str, Any]] = {}
    for row in (row for turn in made for row in turn.verdicts):
        user, device = (f"{{{namespace}}}:verdict:{kind}:{row[kind]}" for kind in ("user", "device"))
        if row["level"] == "pass":
            users.pop(user, None)
            devices.pop(device, None)
            continue
        users[user] = shown(row)
        if row["device"]:
            devices[device] = {"3": {**shown(row), "user": row["user"]}}
    found = await hashes(client, "*:verdict:user:*")
    typed = {
        key: {
            **fields,
            "score": float(fields["score"]),
            "ts": int(fields["ts"]),
            "reasons": json.loads(fields["reasons"]),
        }
        for key, fields in found.items()
    }
    assert typed == users
    found = await hashes(client, "*:verdict:device:*")
    assert {k: {f: json.loads(v) for f, v in fields.items()} for k, fields in found.items()} == devices


@pytest.mark.parametrize("cuts", [[8], [1] * 8, [3, 5]])
def test_the_last_verdict_of_each_user_and_device_is_shown(
    redis_server: RedisServer, cuts: list[int]
) -> None:
    made = [made_turn(number) for number in range(8)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        assert await sink.take_over(epoch=1) == 0
        turns = turns_of(made)
        position = 0
        for cut in cuts:
            assert await sink.write(turns[position : position + cut]) == position + cut
            position += cut
            await assert_last_verdicts(client, made[:position])
        assert await sink.position() == 8

    use_fresh(redis_server, use)


@pytest.mark.parametrize("call_bytes", [1, 700, 3000])
def test_calls_of_any_size_end_in_the_same(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, call_bytes: int
) -> None:
    monkeypatch.setattr(sinks.redis, "CALL_BYTES", call_bytes)
    monkeypatch.setattr(sinks.redis, "PART_ROWS", 30)
    made = [made_turn(number, events=40 if number == 2 else 7, users=50) for number in range(6)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        assert await sink.write(turns_of(made)) == 6
        await assert_last_verdicts(client, made)
        assert await sink.position() == 6

    use_fresh(redis_server, use)


def test_a_write_that_breaks_off_after_any_call_is_taken_up_and_nothing_goes_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of call n is lost; a new owner begins where Redis stands, with other cuts."""
    monkeypatch.setattr(sinks.redis, "CALL_BYTES", 500)
    made = [made_turn(number, events=9, users=20) for number in range(6)]
    order = {row["event_id"]: i for i, row in enumerate(r for turn in made for r in turn.verdicts)}

    async def places(client: Redis) -> dict[str, int]:
        return {key: order[v["event_id"]] for key, v in (await hashes(client, "*:verdict:user:*")).items()}

    async def broken_off(client: Redis, broken_at: int) -> dict[str, int] | None:
        """Write until the reply of a call is lost; what is shown then, None when there were fewer calls."""
        write, numbers = RedisFunctions.write, itertools.count(1)

        async def broken(self: RedisFunctions, *arguments: Any) -> int:
            reply = await write(self, *arguments)
            if next(numbers) == broken_at:
                raise UnreachableError("the reply is lost")
            return reply

        await client.flushall()
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        with monkeypatch.context() as patch:
            patch.setattr(RedisFunctions, "write", broken)
            try:
                await sink.write(turns_of(made))
            except UnreachableError:
                return await places(client)
        return None

    async def use(client: Redis) -> None:
        broken_at = 1
        while (before := await broken_off(client, broken_at)) is not None:
            sink = sink_on(client)
            position = await sink.take_over(epoch=2)
            newest: dict[str, int] = {}
            cleared: set[str] = set()
            for turn in turns_of(made[position:]):
                await sink.write([turn])
                after = await places(client)
                # Who was shown may be cleared by a later pass, but comes back only with something newer.
                cleared |= before.keys() - after.keys()
                newest = {**newest, **before}
                for user, place in after.items():
                    least = newest.get(user, -1) + (user in cleared)
                    assert place >= least
                cleared -= after.keys()
                before = after
            await assert_last_verdicts(client, made)
            broken_at += 1
        assert broken_at > 6

    use_fresh(redis_server, use)


def test_a_repeat_and_an_overlap_change_nothing(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(6)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        await sink.write(turns_of(made[:4]))
        assert await sink.write(turns_of(made[:2])) == 4
        assert await sink.write([]) == 4
        await assert_last_verdicts(client, made[:4])
        assert await sink.write(turns_of(made[1:])) == 6
        await assert_last_verdicts(client, made)
        with pytest.raises(ValueError, match="expected turns from 6 on"):
            await sink.write([made_turn(8).turn])

    use_fresh(redis_server, use)


def test_a_turn_without_verdicts_moves_the_position(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        assert await sink.write([made_turn(0, events=0).turn, made_turn(1, events=0).turn]) == 2
        assert await sink.position() == 2

    use_fresh(redis_server, use)


def test_a_former_owner_is_refused(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(4)]

    async def use(client: Redis) -> None:
        zombie, owner = sink_on(client), sink_on(client)
        await zombie.take_over(epoch=7)
        await zombie.write(turns_of(made[:1]))
        assert await owner.take_over(epoch=8) == 1
        with pytest.raises(FencedError):
            await zombie.write(turns_of(made))
        with pytest.raises(FencedError):
            await zombie.take_over(epoch=7)
        await assert_last_verdicts(client, made[:1])
        await owner.write(turns_of(made))
        await assert_last_verdicts(client, made)

    use_fresh(redis_server, use)


def test_what_redis_forgot_is_noticed_and_rebuilt(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(6)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        await sink.write(turns_of(made[:4]))
        await client.flushall()

        with pytest.raises(ForgottenError) as forgot:
            await sink.write(turns_of(made[4:]))

        assert forgot.value.position == 0
        assert await sink.take_over(epoch=2) == 0
        assert await sink.write(turns_of(made)) == 6
        await assert_last_verdicts(client, made)

    use_fresh(redis_server, use)


def test_a_failover_to_an_older_state_is_noticed(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(6)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        await sink.write(turns_of(made[:4]))
        await client.hset("{woolwatch}:judge:3", "position", "2")
        with pytest.raises(ForgottenError) as forgot:
            await sink.write(turns_of(made[4:]))
        assert forgot.value.position == 2
        assert await sink.take_over(epoch=2) == 2

    use_fresh(redis_server, use)


def test_turns_that_can_not_be_made_again_are_passed_over_and_noted(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(6)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        assert await sink.take_over(epoch=1, turn=4) == 4
        assert sink.lacks == 0
        await sink.write(turns_of(made[4:]))
        await assert_last_verdicts(client, made[4:])
        assert await sink.take_over(epoch=2, turn=3) == 6, "never back"
        assert await sink.take_over(epoch=3, turn=9) == 9
        assert sink.lacks == 0, "of several gaps the first"

    use_fresh(redis_server, use)


def test_functions_that_are_gone_are_loaded_again(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(2)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        await client.function_flush()
        await sink.write(turns_of(made))
        await assert_last_verdicts(client, made)

    use_fresh(redis_server, use)


def test_verdicts_expire_and_positions_do_not(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        sink = sink_on(client, ttl_s=1000)
        await sink.take_over(epoch=1)
        await sink.write([made_turn(0).turn])
        async for key in client.scan_iter("*"):
            left_ms = await client.pttl(key)
            assert (990_000 < left_ms <= 1_000_000) if b":verdict:" in key else left_ms == -1

    use_fresh(redis_server, use)


def test_namespaces_do_not_touch(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(2)]

    async def use(client: Redis) -> None:
        one, two = sink_on(client, namespace="one"), sink_on(client, namespace="two")
        await one.take_over(epoch=5)
        assert await two.take_over(epoch=1) == 0
        await two.write(turns_of(made))
        await assert_last_verdicts(client, made, "two")

    use_fresh(redis_server, use)
    with pytest.raises(ValueError, match="braces"):
        RedisFunctions(connect(redis_server.url), "a{b")


def test_another_pseudonym_key_is_refused(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        await sink_on(client).take_over(epoch=1)
        other = RedisSink(client, partition=0, key_fingerprint="other")
        with pytest.raises(StateError, match="WOOLWATCH_KEY"):
            await other.take_over(epoch=1)

    use_fresh(redis_server, use)


def test_nothing_of_a_person_is_in_redis(redis_server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        await sink.write([made_turn(number).turn for number in range(4)])
        everything = str(await hashes(client, "*:verdict:*"))
        assert "user 1" not in everything
        assert "device 1" not in everything

    use_fresh(redis_server, use)


def test_what_somebody_made_of_our_keys_is_replaced(redis_server: RedisServer) -> None:
    made = [made_turn(number) for number in range(4)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        assert await sink.write(turns_of(made[:3])) == 3
        for kind in ("verdict", "judge"):
            async for key in client.scan_iter(f"{{woolwatch}}:{kind}:*"):
                await client.set(key, "not a hash")
        with pytest.raises(ForgottenError):
            await sink.write(turns_of(made[3:]))
        await sink.take_over(epoch=1)
        assert await sink.write(turns_of(made)) == 4
        await assert_last_verdicts(client, made)

    use_fresh(redis_server, use)


def test_what_redis_refuses_is_tried_again_and_not_dropped(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = [made_turn(number) for number in range(4)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        await client.config_set("maxmemory", "1")

        async def cure(_: float) -> None:
            assert await sink.position() == 0
            await client.config_set("maxmemory", "0")

        assert await patiently("redis", lambda: sink.write(turns_of(made)), sleep=cure) == 4
        await assert_last_verdicts(client, made)

    use_fresh(redis_server, use)
    assert "Redis refuses: " in caplog.text
    assert "maxmemory" in caplog.text


@pytest.mark.faults
def test_a_server_that_is_away_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Redis dies between two writes, with all it had; it is rebuilt from the turns that are given again."""
    made = [made_turn(number) for number in range(6)]

    async def use(client: Redis) -> None:
        sink = sink_on(client)
        await sink.take_over(epoch=1)
        await sink.write(turns_of(made[:3]))
        server.kill()
        with pytest.raises(UnreachableError, match="does not answer"):
            await sink.write(turns_of(made[3:]))

        async def restart(_: float) -> None:
            await asyncio.to_thread(server.start)

        async def attempt() -> int:
            return await sink.write(turns_of(made[3:]))

        with pytest.raises(ForgottenError):
            await patiently("redis", attempt, sleep=restart)
        assert await sink.take_over(epoch=2) == 0
        assert await sink.write(turns_of(made)) == 6
        await assert_last_verdicts(client, made)

    with RedisServer(tmp_path) as server:
        use_fresh(server, use)
    assert "waiting since" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        ("judge_write", "s", 1, 0, "x", "p", "3", *NOTHING),
        ("judge_write", "s", 1, 0, 1, "p", "3", b"\x91\x90", *NOTHING[1:]),
        ("judge_write", "s", 1, 0, 1, "p", "3", NOTHING[0], b"\x93\x91\xa1a\x90\x90", *NOTHING[2:]),
        ("judge_restore", "s", 1, 0, 1, "x", "p", "3", *NOTHING),
        ("judge_restore", "s", 1, 0, 1, 1, "p", "3", b"\x91\x90", *NOTHING[1:]),
        ("metric_write", "s", 1, 0, 1, b"\xc1"),
    ],
)
def test_malformed_calls_write_nothing(redis_server: RedisServer, arguments: tuple[Any, ...]) -> None:
    async def use(client: Redis) -> None:
        functions = RedisFunctions(client)
        await functions.take_over("s", epoch=1, at_least=0, key_fingerprint="key")
        with pytest.raises(ValueError, match="expected"):
            await functions.write(*arguments)
        assert await functions.position("s") == 0

    use_fresh(redis_server, use)

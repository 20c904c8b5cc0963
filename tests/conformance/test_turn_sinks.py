"""What every sink of turns promises, each by the same tests: every turn once, in order, whatever the cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow.parquet as pq
import pytest

from schemas.verdicts import Verdicts
from sinks.local_store import LocalStore
from sinks.object_store import ObjectStore
from sinks.parquet import ParquetSink
from sinks.redis import RedisSink
from sinks.redis_functions import connect
from sinks.store import Store
from tests.services import RedisServer
from tests.unit.sinks.turns import made_turn

pytestmark = pytest.mark.integration

Result = TypeVar("Result")

PARTITION = 3
TURNS = [made_turn(number, config="ab"[number // 4]).turn for number in range(8)]


class TurnSink(Protocol):
    """A sink on something that outlives it; every instance is a new owner."""

    def open(self) -> int:
        """Take the partition over; returns the position."""
        ...

    def write(self, verdicts: Sequence[Verdicts]) -> int:
        """Write; returns the position."""
        ...

    def shown(self) -> object:
        """Everything that a reader sees."""
        ...


class ParquetTarget:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._sink = ParquetSink(store, PARTITION, key_fingerprint="key")
        self.open = self._sink.open
        self.write = self._sink.write

    def shown(self) -> object:
        names = [name for table in ("verdicts", "late") for name in self._store.names(table)]
        rows = [row for name in names for row in pq.ParquetFile(self._store.open(name)).read().to_pylist()]
        return sorted(rows, key=lambda row: (row["topic"], row["offset"]))


class RedisTarget:
    epoch = 0

    def __init__(self, url: str, namespace: str) -> None:
        self._url, self._namespace = url, namespace
        self._position = 0
        RedisTarget.epoch += 1
        self._epoch = RedisTarget.epoch

    def open(self) -> int:
        return self._run(lambda sink: sink.take_over(epoch=self._epoch))

    def write(self, verdicts: Sequence[Verdicts]) -> int:
        async def write(sink: RedisSink) -> int:
            await sink.take_over(epoch=self._epoch)
            return await sink.write(verdicts)

        return self._run(write)

    def shown(self) -> object:
        async def shown() -> dict[bytes, Any]:
            client = connect(self._url)
            try:
                keys = [key async for key in client.scan_iter(f"{{{self._namespace}}}:verdict:*")]
                return {key.partition(b"}")[2]: await client.hgetall(key) for key in keys}
            finally:
                await client.aclose()

        return asyncio.run(shown())

    def _run(self, use: Callable[[RedisSink], Coroutine[Any, Any, Result]]) -> Result:
        async def main() -> Result:
            client = connect(self._url)
            try:
                return await use(
                    RedisSink(client, partition=PARTITION, key_fingerprint="key", namespace=self._namespace)
                )
            finally:
                await client.aclose()

        return asyncio.run(main())


Make = Callable[[str], TurnSink]


@pytest.fixture(params=["parquet", "parquet on s3", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Make:
    """Make an owner of a named place."""
    if request.param == "parquet":
        return lambda name: ParquetTarget(LocalStore(tmp_path / name))
    if request.param == "parquet on s3":
        uri: str = request.getfixturevalue("s3_uri")
        return lambda name: ParquetTarget(ObjectStore(f"{uri}/{name}"))
    server: RedisServer = request.getfixturevalue("redis_server")
    RedisTarget.epoch = 0
    return lambda name: RedisTarget(server.url, f"{topic_prefix}{name}")


def test_it_begins_at_turn_0_and_counts_on(make: Make) -> None:
    sink = make("a")
    assert sink.open() == 0
    assert sink.write(TURNS[:3]) == 3
    assert sink.write(TURNS[3:4]) == 4


def test_cuts_do_not_show(make: Make) -> None:
    whole, pieces = make("a"), make("b")
    whole.open()
    pieces.open()
    whole.write(TURNS)
    for turn in TURNS:
        pieces.write([turn])
    assert whole.shown() == pieces.shown() != []


def test_a_repeat_changes_nothing(make: Make) -> None:
    sink = make("a")
    sink.open()
    sink.write(TURNS[:5])
    before = sink.shown()
    assert sink.write(TURNS[:5]) == sink.write(TURNS[2:4]) == sink.write([]) == 5
    assert sink.shown() == before


def test_a_new_owner_stands_where_the_old_one_ended(make: Make) -> None:
    first, whole = make("a"), make("b")
    first.open()
    first.write(TURNS[:5])
    second = make("a")
    assert second.open() == 5
    assert second.write(TURNS[1:]) == 8
    whole.open()
    whole.write(TURNS)
    assert second.shown() == whole.shown()


@pytest.mark.parametrize("numbers", [(3,), (2, 4)])
def test_a_gap_is_refused_whole(make: Make, numbers: tuple[int, ...]) -> None:
    sink = make("a")
    sink.open()
    sink.write(TURNS[:2])
    before = sink.shown()
    with pytest.raises(ValueError, match="expected turns from 2 on"):
        sink.write([TURNS[number] for number in numbers])
    assert sink.shown() == before
    assert make("a").open() == 2

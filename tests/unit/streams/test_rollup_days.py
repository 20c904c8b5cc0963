"""Closed days, by the rollup's own code on logs in memory: whatever is killed, no minute is lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.rollup import DAY_MS
from schemas.config import Config
from schemas.partials import Block, BlockKey, EventRows, encode_rows
from sinks.local_store import LocalStore
from sinks.metric_files import MetricFiles
from streams.batches import TP, Batch
from streams.rollup import RollupApp, changelog_name
from streams.settings import Settings

BEGIN_MS = 20_000 * DAY_MS
_HOUR_MS = 3_600_000
STEPS = (
    "metrics.staged",
    "metrics.renamed",
    "rollup.shown",
    "rollup.durable",
    "rollup.archived",
    "a key is dropped",
    "rollup.closed",
)
PARTIALS = "partials"

Counted = tuple[int, int, int, int]
"""Day, hour, source, and how often an event was seen in that hour by now."""


class Killed(BaseException):
    """What a process dies of; nothing catches it."""


def block(counted: Counted, turn: int) -> Block:
    day, hour, source, count = counted
    key = BlockKey("events", "look", "5m", BEGIN_MS + day * DAY_MS + hour * _HOUR_MS, "campaign", "c")
    columns = EventRows(
        channels=[None],
        minute=b"\0",
        channel=np.zeros(1, "<u2").tobytes(),
        numbers=np.array([count, 0, 0, 0, 0], "<i8").tobytes(),
        histogram_row=b"",
        bucket=b"",
        bucket_count=b"",
    )
    return Block(key, source, turn, encode_rows(columns))


class Kafka:
    """The partials, the changelog and the position of one rollup partition; they outlive every process."""

    def __init__(self) -> None:
        self.partials: list[bytes] = []
        self.changelog: list[SimpleNamespace] = []
        self.position = 0

    def publish(self, counts: Sequence[Counted]) -> None:
        turn = len(self.partials)
        self.partials.append(msgspec.msgpack.encode([block(counted, turn) for counted in counts]))

    def compact(self) -> None:
        """As a broker does: of each key only the newest, and nothing of what was dropped."""
        newest = {record.key: record for record in self.changelog}
        self.changelog = [record for record in newest.values() if record.value is not None]


class Life:
    """A rollup process from its start to its death."""

    def __init__(self, kafka: Kafka, out: Path, fault_point: Callable[[str], None]) -> None:
        self._kafka, self._fault_point = kafka, fault_point
        self.app = RollupApp(Settings(out=str(out), topics={}), Config(), partitions=1, key_fingerprint="00")
        self.app._shown._redis = cast("Any", _NoRedis())
        self.app._table.send_changelog = self._send  # type: ignore[method-assign]
        self.app._table.apply_changelog_batch(kafka.changelog)
        self.read = kafka.position
        self.is_owner = True
        self.drops_wait = False
        self._waiting: list[SimpleNamespace] = []

    def _send(self, partition: int, key: bytes, value: bytes | None, **_: Any) -> None:
        if value is None:
            self._fault_point("a key is dropped")
        self._waiting.append(
            SimpleNamespace(key=key, value=value, message=SimpleNamespace(partition=partition))
        )
        if value is not None or not self.drops_wait:
            self._arrive()

    def _arrive(self) -> None:
        self._kafka.changelog += self._waiting
        self._waiting = []

    async def wake(self) -> None:
        """Go on, long after somebody else has taken over: what waited arrives, and all is done that was due."""
        self.drops_wait = False
        self._arrive()
        await self.app.flush()

    # What the app asks of its consumer.
    generation = 1

    def is_current(self, _: object) -> bool:
        return True

    def durable(self, _: object) -> int:
        return self._kafka.position

    def mark_durable(self, tp: TP, start: int, position: int, generation: int) -> None:
        del tp, start, generation
        if self.is_owner:  # others are refused by the broker
            self._kafka.position = position

    async def step(self) -> None:
        """Merge one record, if there is one, and show what changed."""
        if self.read < len(self._kafka.partials):
            await self.merge()
        await self.app.flush()

    async def merge(self) -> None:
        """Merge one record."""
        await self.app.merge(self._batches())

    async def _batches(self) -> Any:
        # Whoever is killed in a flush has no loop that flushes as well.
        self.app._flushing = cast("Any", asyncio.get_running_loop().create_future())
        record = SimpleNamespace(
            offset=self.read, timestamp=0, key=None, value=self._kafka.partials[self.read], headers=()
        )
        self.read += 1
        yield Batch(TP(PARTIALS, 0), [record], start=self.read - 1, next=self.read, generation=1)


class _NoRedis:
    async def take_over(self, partition: int, *, epoch: int) -> None:
        """Nobody looks at Redis here."""

    async def write(self, *_: object, **__: object) -> None:
        """Nobody looks at Redis here."""


class World:
    """What there is, what was counted, and what kills."""

    def __init__(self, out: Path, patch: pytest.MonkeyPatch) -> None:
        self.kafka, self.out = Kafka(), out
        self.expected: dict[tuple[int, int], dict[int, int]] = {}
        self.life: Life | None = None
        self._frozen: list[Life] = []
        self._awake: Life | None = None
        self._dies_at = ""
        for module in ("streams.rollup", "sinks.local_store"):
            patch.setattr(f"{module}.fault_point", self.pass_by)
        patch.setattr("streams.rollup.consumer_of", lambda _: self.running())
        patch.setattr("streams.closed_days.QUIET_S", 0.0)

    def pass_by(self, step: str) -> None:
        """Die here, if that is what was asked for."""
        if step and step == self._dies_at:
            self._dies_at = ""
            raise Killed

    def count(self, *counts: Counted) -> None:
        for day, hour, source, count in counts:
            self.expected.setdefault((day, hour), {})[source] = count
        self.kafka.publish(counts)

    async def go_on(self, *, dies_at: str = "") -> None:
        """One step of the process, of a new one where the last was killed."""
        self._dies_at = dies_at
        self.life = self.life or Life(self.kafka, self.out, self.pass_by)
        try:
            await self.life.step()
        except Killed:
            self.life = None

    def freeze(self) -> None:
        """The process stands still, and the next step is that of another one."""
        if self.life is not None:
            self.life.is_owner = False
            self._frozen.append(self.life)
            self.life = None

    def drops_wait(self) -> None:
        """Keys that are dropped stay for now in the buffer that sends to the changelog."""
        if self.life is not None:
            self.life.drops_wait = True

    async def thaw(self) -> None:
        """All processes that stood still go on, once."""
        frozen, self._frozen = self._frozen, []
        for life in frozen:
            self._awake = life
            with suppress(Killed):
                await life.wake()
        self._awake = None

    def running(self) -> Life | None:
        """The process whose code runs now."""
        return self._awake or self.life

    async def rest(self) -> None:
        """Until all is shown, and all that can be closed is."""
        while self.life is None or self.life.read < len(self.kafka.partials):
            await self.go_on()
        for _ in range(5):
            await self.go_on()

    def right(self) -> None:
        """Whether the tables say what was counted, each hour once."""
        with duckdb.connect() as connection:
            rows = connection.execute(
                "select epoch_ms(window_start), count from read_parquet(?)",
                [f"{self.out}/metrics/events/*.parquet"],
            ).fetchall()
        found = sorted(((ms - BEGIN_MS) // DAY_MS, (ms - BEGIN_MS) % DAY_MS // _HOUR_MS, n) for ms, n in rows)
        assert found == sorted((*at, sum(counts.values())) for at, counts in self.expected.items())

    def days_held(self) -> set[int]:
        assert self.life is not None
        parts = self.life.app._owned[0].merged.parts()
        return {part.day - BEGIN_MS // DAY_MS for part in parts if part.day is not None}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_days_that_are_over_leave_memory_and_changelog_but_not_the_tables(world: World) -> None:
    async def main() -> None:
        for day in range(30):
            world.count((day, 5, 0, day + 1), (day, 7, 1, 2))
            await world.go_on()
        world.count((30, 0, 0, 1))
        await world.rest()

    asyncio.run(main())
    world.right()
    assert world.days_held() == {29, 30}, "an hour must have passed since a day's end"
    world.kafka.compact()
    assert len(world.kafka.changelog) == 3
    assert len(list((world.out / "metrics" / "events").iterdir())) == 31


@pytest.mark.parametrize("dies_at", ["", *STEPS])
def test_an_event_for_a_closed_day_is_added_to_what_it_had(world: World, dies_at: str) -> None:
    async def main() -> None:
        world.count((0, 5, 0, 10), (0, 5, 1, 20), (0, 9, 1, 1))
        world.count((3, 5, 0, 1))
        await world.rest()
        assert world.days_held() == {3}
        world.count((0, 5, 0, 11), (0, 9, 2, 1))
        await world.go_on(dies_at=dies_at)
        await world.go_on(dies_at=dies_at)
        world.count((3, 5, 0, 2))
        await world.rest()
        assert world.days_held() == {3}

    asyncio.run(main())
    world.right()


@pytest.mark.parametrize("freezes", ["before", "behind"])
def test_an_owner_that_wakes_while_a_closed_day_is_open_again_takes_nothing_away(
    world: World, monkeypatch: pytest.MonkeyPatch, freezes: str
) -> None:
    """It froze before, or behind, the writing of the archive; the next owner dies before it has written one."""

    async def main() -> None:
        world.count((0, 5, 0, 10))
        await world.go_on()
        world.drops_wait()
        world.count((3, 5, 0, 1))
        if freezes == "before":
            assert world.life is not None
            await world.life.merge()
        else:
            await world.go_on()
            assert world.days_held() == {3}
        world.freeze()
        monkeypatch.setattr("streams.closed_days.QUIET_S", 1e9)
        world.count((0, 5, 0, 11))
        await world.go_on()
        await world.go_on()
        assert world.days_held() == {0, 3}
        monkeypatch.setattr("streams.closed_days.QUIET_S", 0.0)
        await world.thaw()
        world.kafka.compact()
        world.life = None
        world.count((0, 9, 0, 1))
        await world.rest()

    asyncio.run(main())
    world.right()
    assert world.days_held() == {3}


@pytest.mark.parametrize("method", ["archive", "replace"])
def test_a_day_that_changes_while_files_are_written_stays_open(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    write = getattr(MetricFiles, method)

    def changed_meanwhile(files: MetricFiles, *args: Any, **kwargs: Any) -> bool:
        monkeypatch.setattr(MetricFiles, method, write)
        done: bool = write(files, *args, **kwargs)
        assert world.life is not None
        world.count((0, 5, 1, 21))
        asyncio.run_coroutine_threadsafe(world.life.merge(), loop[0]).result(10)
        return done

    loop: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loop.append(asyncio.get_running_loop())
        world.count((0, 5, 0, 10), (0, 5, 1, 20), (3, 5, 0, 1))
        monkeypatch.setattr(MetricFiles, method, changed_meanwhile)
        await world.go_on()
        assert world.days_held() == {0, 3}
        await world.rest()
        assert world.days_held() == {3}

    asyncio.run(main())
    world.right()


def test_an_owner_that_was_overtaken_closes_nothing(world: World) -> None:
    later = MetricFiles(LocalStore(world.out))
    assert later.archive("events", 0, 99, [], day=BEGIN_MS // DAY_MS)

    async def main() -> None:
        world.count((0, 5, 0, 10))
        world.count((3, 5, 0, 1))
        await world.rest()

    asyncio.run(main())
    assert world.days_held() == {0, 3}


def test_the_one_file_of_an_earlier_version_gives_way(world: World) -> None:
    world.count((0, 5, 0, 10))
    asyncio.run(world.go_on())
    whole = world.out / "metrics" / "events" / "part-0.parquet"
    (of_day,) = whole.parent.iterdir()
    of_day.rename(whole)
    world.life = None
    world.count((1, 5, 0, 1))
    asyncio.run(world.rest())
    world.right()
    assert not whole.exists()


def test_the_changelog_has_the_name_that_faust_gives_it(world: World) -> None:
    life = Life(world.kafka, world.out, world.pass_by)
    assert life.app._table.changelog_topic.get_topic_name() == changelog_name(life.app.app.conf.id)


counted = st.tuples(st.integers(0, 6), st.sampled_from([0, 23]), st.integers(0, 2), st.integers(1, 50))
moves = st.one_of(
    st.lists(counted, min_size=1, max_size=4),
    st.sampled_from(["", *STEPS, "compact", "die", "freeze", "thaw", "drops wait"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(moves, min_size=5, max_size=20))
def test_whatever_comes_and_whatever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, story: list[Any]
) -> None:
    async def main(world: World) -> None:
        seen: dict[tuple[int, int, int], int] = {}
        for move in story:
            if isinstance(move, list):
                for day, hour, source, more in move:
                    seen[day, hour, source] = seen.get((day, hour, source), 0) + more
                world.count(*{(day, hour, source, seen[day, hour, source]) for day, hour, source, _ in move})
            elif move == "compact":
                world.kafka.compact()
            elif move == "die":
                world.life = None
            elif move == "freeze":
                world.freeze()
            elif move == "thaw":
                await world.thaw()
            elif move == "drops wait":
                world.drops_wait()
            else:
                await world.go_on(dies_at=move)
        world.count((6, 23, 3, 1))
        await world.rest()

    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("story"), patch)
        asyncio.run(main(world))
        world.right()
        assert world.days_held() == {6}

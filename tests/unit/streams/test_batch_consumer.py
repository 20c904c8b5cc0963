from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar, cast

import pytest

from schemas.errors import UnreachableError
from streams import batch_consumer
from streams.batch_consumer import BatchConsumer
from streams.batch_thread import BatchThread, Placement
from streams.batches import TP, Batch
from streams.brokers import Brokers
from streams.positions import Bounds
from streams.transport import FetchOptions, make_app

Answer = TypeVar("Answer")

PLACE = TP("clicks", 0)
OTHER = TP("clicks", 1)


class StopProcess(BaseException):
    """What the test raises instead of ending its own process."""


class FakeAssignment:
    def __init__(self, *tps: TP) -> None:
        self.tps = tps


class FakeThread:
    """The other half of the transport, with a log of [10, 100) and a committed offset per partition."""

    def __init__(self) -> None:
        self.assignment: FakeAssignment | None = FakeAssignment(PLACE, OTHER)
        self.placement: Placement | None = None
        self.generation = 7
        self.committed: dict[TP, int | None] = {PLACE: 30, OTHER: None}

    def assigned(self) -> FakeAssignment | None:
        return self.assignment

    def placed(self) -> Placement | None:
        placement = self.placement
        return placement if placement is not None and placement.assignment is self.assignment else None

    async def on_loop(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return await work

    async def bounds(self, tps: Collection[TP]) -> dict[TP, Bounds]:
        return {tp: Bounds(10, 100, self.committed[tp]) for tp in tps}

    async def place(self, assignment: FakeAssignment, starts: Mapping[TP, int]) -> int | None:
        if assignment is not self.assignment:
            return None
        self.placement = Placement(assignment, self.generation, dict(starts))
        return self.generation


class Hooks:
    """An application that answers when the test says so."""

    def __init__(self) -> None:
        self.wanted: dict[TP, int] = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None
        self.abandoned: list[int] = []
        self.losses: list[tuple[TP, int, int]] = []
        self.accepts = False

    async def start_positions(self, tps: Collection[TP]) -> Mapping[TP, int]:
        assert tps
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return self.wanted

    def abandon(self, generation: int) -> None:
        self.abandoned.append(generation)

    def on_data_loss(self, tp: TP, expected: int, found: int) -> bool:
        self.losses.append((tp, expected, found))
        return self.accepts


class Stage:
    """A consumer whose other half is a fake."""

    def __init__(self) -> None:
        self.hooks = Hooks()
        app = make_app(
            "worker",
            brokers=Brokers("127.0.0.1:1"),
            group="judges",
            positions=self.hooks,
            fetch=FetchOptions(held_bytes=10),
        )
        app.conf.broker_rebalance_timeout = 0.05
        self.consumer = cast("BatchConsumer", app.consumer)
        self.consumer._thread.thread_loop.close()
        self.thread = FakeThread()
        self.consumer._thread = cast("BatchThread", self.thread)
        self.commits = 0
        self.consumer.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, *_: object, **__: object) -> bool:
        self.commits += 1
        return True

    async def place(self) -> None:
        await self.consumer.perform_seek()
        assert self.consumer._placing is not None
        await self.consumer._placing


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []

    def stop_process(sentence: str, *, exit_code: int = 3) -> NoReturn:
        said.append(f"{exit_code}: {sentence}")
        raise StopProcess

    monkeypatch.setattr(batch_consumer, "stop_process", stop_process)
    return said


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    """Run a scene on a stage of its own."""

    async def on_stage() -> None:
        await scene(Stage())

    asyncio.run(on_stage())


class FakeRecord:
    topic, partition, key, headers, timestamp, offset = "clicks", 0, None, (), 0, 0

    def __init__(self, value: bytes) -> None:
        self.value = value


def batch_of(start: int, next: int, *, generation: int = 7, size: int = 4) -> Batch:
    return Batch(PLACE, [FakeRecord(bytes(size))], start=start, next=next, generation=generation)


def test_partitions_start_where_application_group_and_log_say() -> None:
    async def scene(stage: Stage) -> None:
        stage.hooks.wanted = {PLACE: 50}
        await stage.place()
        assert stage.consumer.durable(PLACE) == 50
        assert stage.consumer.durable(OTHER) == 10
        assert stage.consumer.generation == 7
        # What the group has not committed yet is committed at once, also when it lies lower.
        assert stage.consumer._should_commit(PLACE, 50)
        assert stage.consumer._should_commit(OTHER, 10)
        assert not stage.consumer._should_commit(PLACE, 30)

    play(scene)


def test_a_slow_application_holds_up_reading_but_not_faust() -> None:
    async def scene(stage: Stage) -> None:
        stage.hooks.may_answer.clear()
        await stage.consumer.perform_seek()
        await stage.consumer.perform_seek()
        assert not stage.consumer._may_read(PLACE)
        stage.hooks.may_answer.set()
        assert stage.consumer._placing is not None
        await stage.consumer._placing
        assert stage.consumer._may_read(PLACE)

    play(scene)


def test_partitions_that_leave_while_they_are_placed_are_not_taken() -> None:
    async def scene(stage: Stage) -> None:
        stage.hooks.may_answer.clear()
        await stage.consumer.perform_seek()
        await stage.consumer.wait_empty()
        stage.hooks.may_answer.set()
        assert stage.consumer._placing is not None
        with pytest.raises(asyncio.CancelledError):
            await stage.consumer._placing
        assert stage.consumer.generation is None
        assert stage.hooks.abandoned == []

    play(scene)


def test_a_rebalance_in_the_middle_of_placing_leaves_it_to_the_next() -> None:
    async def scene(stage: Stage) -> None:
        stage.hooks.may_answer.clear()
        await stage.consumer.perform_seek()
        stage.thread.assignment = FakeAssignment(PLACE)
        stage.hooks.may_answer.set()
        assert stage.consumer._placing is not None
        await stage.consumer._placing
        assert stage.consumer.durable(PLACE) is None
        await stage.place()
        assert stage.consumer.durable(PLACE) == 30

    play(scene)


@pytest.mark.parametrize(("wanted", "gone"), [(5, "[5, 10)"), (120, "[100, 120)")])
def test_a_start_outside_of_the_log_stops_the_process(stopped: list[str], wanted: int, gone: str) -> None:
    async def scene(stage: Stage) -> None:
        stage.hooks.wanted = {PLACE: wanted}
        with pytest.raises(StopProcess):
            await stage.place()
        assert stage.hooks.losses == [(PLACE, wanted, 10)]

    play(scene)
    assert len(stopped) == 1
    assert stopped[0].startswith("3: data lost: clicks-0 ")
    assert gone in stopped[0]


def test_an_accepted_loss_goes_on_at_the_logs_start() -> None:
    async def scene(stage: Stage) -> None:
        stage.hooks.wanted = {PLACE: 5}
        stage.hooks.accepts = True
        await stage.place()
        assert stage.consumer.durable(PLACE) == 10

    play(scene)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnreachableError("redis does not answer"), "3: redis does not answer"),
        (ValueError("x"), "3: the positions to start at could not be determined"),
    ],
)
def test_an_application_without_an_answer_stops_the_process(
    stopped: list[str], error: Exception, said: str
) -> None:
    async def scene(stage: Stage) -> None:
        stage.hooks.error = error
        with pytest.raises(StopProcess):
            await stage.place()

    play(scene)
    assert stopped == [said]


def test_a_hole_between_marks_stops_the_process(stopped: list[str]) -> None:
    async def scene(stage: Stage) -> None:
        await stage.place()
        assert stage.consumer.mark_durable(PLACE, 30, 40, 7)
        assert not stage.consumer.mark_durable(PLACE, 40, 50, 6)
        with pytest.raises(StopProcess):
            stage.consumer.mark_durable(PLACE, 50, 60, 7)

    play(scene)
    assert "[50, 60) was marked durable, but [40, 50) never was" in stopped[0]


def test_a_partition_over_its_bytes_is_not_read_until_a_batch_is_finished() -> None:
    async def scene(stage: Stage) -> None:
        await stage.place()
        consumer = stage.consumer
        batches = [batch_of(30, 40, size=6), batch_of(40, 50, size=6)]
        for batch in batches:
            assert consumer._may_read(PLACE)
            consumer._take(batch)
        assert not consumer._may_read(PLACE)
        assert consumer._may_read(OTHER)
        consumer.end_batch(batches[0])
        assert consumer._may_read(PLACE)

    play(scene)


def test_a_drain_waits_for_what_is_in_progress_and_commits_it() -> None:
    async def scene(stage: Stage) -> None:
        await stage.place()
        stage.consumer.app.conf.broker_rebalance_timeout = 60.0
        batch = batch_of(30, 40)
        stage.consumer.begin_batch(batch)
        draining = asyncio.create_task(stage.consumer.wait_empty())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stage.hooks.abandoned == [7]
        assert not stage.consumer.is_current(7)
        assert stage.consumer.mark_durable(PLACE, 30, 40, 7)
        assert stage.commits == 0
        stage.consumer.end_batch(batch)
        await draining
        assert stage.commits == 1
        await stage.consumer.wait_empty()
        assert stage.hooks.abandoned == [7]

    play(scene)


def test_a_drain_leaves_the_slow_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(stage: Stage) -> None:
        await stage.place()
        stage.consumer.begin_batch(batch_of(30, 40))
        stage.consumer.begin_batch(batch_of(10, 20, generation=6))
        await stage.consumer.wait_empty()

    play(scene)
    assert "left behind: Batch(clicks-0 [30, 40), 1 records)" in caplog.text
    assert "[10, 20)" not in caplog.text

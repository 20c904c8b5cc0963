"""Whoever wrote a checkpoint, and whenever: the next owner that takes it up has all turns and all lessons."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from schemas.config import parse_config
from schemas.errors import Abandoned
from schemas.events import TOPICS
from schemas.lessons import decode_lessons
from schemas.sightings import Claim
from streams.judge_seat import JudgeSeat
from tests.labelled_events import CONFIG, labelled_events
from tests.memory_log import MemoryLogs, WayOut

CONFIG_PARSED, _ = parse_config({"a.yaml": CONFIG.encode()})
LABELS_AT = 20
"""Labels of the first events; their lessons fall due in the turns behind."""

Scenario = Callable[[MemoryLogs], Coroutine[Any, Any, None]]


def on_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: Scenario) -> MemoryLogs:
    """Run it on 60 events and the labels of the first of them."""

    async def run() -> MemoryLogs:
        logs = MemoryLogs(tmp_path, CONFIG_PARSED, monkeypatch)
        events = labelled_events(200)[:60]
        for event in events:
            logs.write(TOPICS[0], 0, json.dumps({k: v for k, v in event.items() if k != "label"}).encode())
        for event in events[:LABELS_AT]:
            label = {
                "event_id": event["event_id"],
                "label": event.get("label", 0),
                "ts": event["ts"] + 9_000_000,
            }
            logs.write("labels", 0, json.dumps(label).encode())
        await scenario(logs)
        return logs

    return asyncio.run(asyncio.wait_for(run(), 60))


def counting_lessons(logs: MemoryLogs) -> list[tuple[int, int, list[int]]]:
    """Turn, part and labels of the lessons that count, by the log alone."""
    claim, last, found = b"", (-1, -1), []
    for record in logs.logs["lessons", 0]:
        lesson = decode_lessons(record.value)
        if isinstance(lesson, Claim):
            claim = lesson.claim
        elif lesson.claim == claim and (lesson.turn, lesson.part) > last:
            last = lesson.turn, lesson.part
            found.append((*last, lesson.label.tolist()))
    return found


async def judge_all(logs: MemoryLogs, seat: JudgeSeat) -> None:
    for start in range(0, 60, 10):
        await logs.judge(seat, start, start + 10)


async def undisturbed(logs: MemoryLogs) -> None:
    await judge_all(logs, await logs.take_seat())


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryLogs:
    return on_logs(tmp_path / "undisturbed", monkeypatch, undisturbed)


def same(logs: MemoryLogs, expected: MemoryLogs) -> None:
    assert len(counting_lessons(expected)) > 2
    assert counting_lessons(logs) == counting_lessons(expected)
    assert sorted(logs.sunk) == sorted(expected.sunk)
    for turn, verdicts in expected.sunk.items():
        assert logs.sunk[turn].score.tolist() == verdicts.score.tolist(), turn
        assert logs.sunk[turn].batch.next == verdicts.batch.next


async def overtake(
    logs: MemoryLogs, zombie: WayOut, *, before: str, doing: Coroutine[Any, Any, None]
) -> tuple[asyncio.Task[None], JudgeSeat]:
    """Somebody takes the seat of a zombie that fell asleep just before it wrote to a topic.

    Returns what the zombie goes on with, awake again, its record behind the other's claim; and the other's seat.
    """
    zombie.sleeps_before = before
    task = asyncio.create_task(doing)
    await zombie.asleep.wait()
    successor = await logs.take_seat()
    zombie.wake()
    await asyncio.sleep(0)
    return task, successor


def test_a_checkpoint_of_a_zombie_never_holds_turns_whose_lessons_are_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: MemoryLogs
) -> None:
    async def scenario(logs: MemoryLogs) -> None:
        out = WayOut(logs)
        zombie = await logs.take_seat(out)
        await logs.judge(zombie, 0, 10)
        await logs.judge(zombie, 10, 20)
        await zombie.checkpoint()
        judging, _ = await overtake(logs, out, before="lessons", doing=logs.judge(zombie, 20, 30))
        await judging  # and who claimed was killed at once
        await zombie.checkpoint()
        await judge_all(logs, await logs.take_seat())

    same(on_logs(tmp_path, monkeypatch, scenario), expected)


def test_a_checkpoint_amid_recorded_turns_loses_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: MemoryLogs
) -> None:
    async def scenario(logs: MemoryLogs) -> None:
        await judge_all(logs, await logs.take_seat())  # and is killed
        second = await logs.take_seat()
        await logs.judge(second, 0, 40)
        await second.close()
        last = await logs.take_seat()
        assert last.order.recorded_left > 0
        await logs.judge(last, 0, 60)

    same(on_logs(tmp_path, monkeypatch, scenario), expected)


def test_a_zombie_takes_in_no_labels_by_a_turn_that_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: MemoryLogs
) -> None:
    async def scenario(logs: MemoryLogs) -> None:
        out = WayOut(logs)
        zombie = await logs.take_seat(out)
        taking, last = await overtake(logs, out, before="sightings", doing=zombie.take_labels(caught_up=True))
        await judge_all(logs, last)
        await taking
        await zombie.checkpoint()
        assert await zombie.order.at_rest(_nothing) is False
        await logs.take_seat()

    same(on_logs(tmp_path, monkeypatch, scenario), expected)


def test_a_zombie_judges_no_events_by_answers_to_somebody_elses_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: MemoryLogs
) -> None:
    async def scenario(logs: MemoryLogs) -> None:
        out = WayOut(logs)
        zombie = await logs.take_seat(out)
        await logs.judge(zombie, 0, 10)
        judging, last = await overtake(logs, out, before="sightings", doing=logs.judge(zombie, 10, 50))
        await judge_all(logs, last)
        with pytest.raises(Abandoned):
            await judging
        await zombie.checkpoint()

    same(on_logs(tmp_path, monkeypatch, scenario), expected)


async def _nothing() -> None:
    return


def test_a_turn_that_gets_no_answers_is_all_that_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: MemoryLogs
) -> None:
    async def scenario(logs: MemoryLogs) -> None:
        out = WayOut(logs)
        leaving = await logs.take_seat(out)
        for start in (0, 10, 20):
            await logs.judge(leaving, start, start + 10)
        logs.forget(leaving)
        out.sleeps_before = "sightings"
        judging = asyncio.create_task(logs.judge(leaving, 30, 40))
        await out.asleep.wait()
        leaving.abandon()
        out.wake()
        with pytest.raises(Abandoned):
            await judging
        await leaving.close()
        last = await logs.take_seat()
        assert last.order.recorded_left == 1
        assert last.start_positions[TOPICS[0]] == 30
        await judge_all(logs, last)

    same(on_logs(tmp_path, monkeypatch, scenario), expected)


def test_a_seat_that_is_given_up_is_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(logs: MemoryLogs) -> None:
        seat = await logs.take_seat()
        await judge_all(logs, seat)
        await seat.publish()
        await seat.close()
        seat.cancel()
        state = weakref.ref(seat), weakref.ref(seat._core)
        logs.forget(seat)
        del seat
        assert [part() for part in state] == [None, None]

    gc.collect()
    gc.disable()  # what only the collector of cycles finds may stay for minutes
    try:
        on_logs(tmp_path, monkeypatch, scenario)
    finally:
        gc.enable()

"""The desk gives answers to whoever waits, keeps the first of two, and lets go when the partition leaves."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from schemas.errors import Abandoned
from schemas.sightings import Answers
from streams.answer_desk import AnswerDesk

CUT = (0, 0, 10)
"""Topic, start and next of every turn here."""


def answer(turn: int, owner: int, value: int = 1) -> Answers:
    return Answers(0, 0, owner, turn, 0, 10, 1, np.array([value]))


def test_a_wait_ends_with_the_last_owner() -> None:
    async def run() -> list[int]:
        desk = AnswerDesk(next_turn=4, position=100)
        waiting = asyncio.create_task(desk.wait(4, {0, 1}, CUT))
        await asyncio.sleep(0)
        desk.put(answer(4, 1), 100)
        await asyncio.sleep(0)
        assert not waiting.done()
        desk.put(answer(4, 0), 101)
        return sorted(await asyncio.wait_for(waiting, 5))

    assert asyncio.run(run()) == [0, 1]


def test_the_first_of_two_different_answers_stands_and_is_an_alarm() -> None:
    async def run() -> tuple[int, int]:
        desk = AnswerDesk(next_turn=0, position=0)
        desk.put(answer(0, 0, 7), 0)
        desk.put(answer(0, 0, 8), 1)
        return int((await desk.wait(0, {0}, CUT))[0].values[0]), desk.unequal

    assert asyncio.run(run()) == (7, 1)


def test_the_durable_position_keeps_what_later_turns_need() -> None:
    desk = AnswerDesk(next_turn=0, position=0)
    desk.put(answer(1, 0), 5)
    desk.put(answer(0, 0), 9)
    desk.put(answer(0, 0), 10)
    assert desk.durable_position() == 5
    desk.done(0)
    assert desk.durable_position() == 5
    desk.done(1)
    assert desk.durable_position() == 11
    desk.put(answer(0, 0), 12)
    desk.moved(20)
    assert desk.durable_position() == 20


def test_who_waits_is_let_go() -> None:
    async def run() -> None:
        desk = AnswerDesk(next_turn=0, position=0)
        waiting = asyncio.create_task(desk.wait(0, {0}, CUT))
        await asyncio.sleep(0)
        desk.abandon()
        await asyncio.wait_for(waiting, 5)

    with pytest.raises(Abandoned):
        asyncio.run(run())


@pytest.mark.parametrize("cut", [(1, 0, 10), (0, 1, 10), (0, 0, 9)])
def test_answers_to_another_turn_of_that_number_end_the_wait(cut: tuple[int, int, int]) -> None:
    async def run() -> None:
        desk = AnswerDesk(next_turn=0, position=0)
        desk.put(answer(0, 0), 0)
        await asyncio.wait_for(desk.wait(0, {0}, cut), 5)

    with pytest.raises(Abandoned, match="newer owner"):
        asyncio.run(run())

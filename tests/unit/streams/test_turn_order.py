"""Recorded turns are taken again with their own cuts and in their own order, however the log is fetched."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Abandoned, DataLossError
from streams.batches import TP, Batch
from streams.turn_order import Piece, TurnOrder
from streams.turns import Turn

CLICKS, PARTICIPATIONS = 0, 1
LENGTH = 30


def most() -> int:
    return LENGTH


def batch(start: int, next_: int) -> Batch:
    records: list[Any] = [SimpleNamespace(offset=o, value=b"", timestamp=0) for o in range(start, next_)]
    return Batch(TP("t", 0), records, start=start, next=next_, generation=1)


def cuts(draw: st.DrawFn) -> list[int]:
    inner = draw(st.sets(st.integers(1, LENGTH - 1), max_size=6))
    return [0, *sorted(inner), LENGTH]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Turn], list[list[int]]]:
    """A recorded order of both topics up to somewhere, and how each topic is fetched afterwards."""
    waiting = {topic: list(pairwise(turned)) for topic in (0, 1) for turned in [cuts(draw)]}
    recorded: list[Turn] = []
    for _ in range(draw(st.integers(0, 8))):
        topic = draw(st.sampled_from([0, 1]))
        if waiting[topic]:
            start, next_ = waiting[topic].pop(0)
            recorded.append(Turn(len(recorded), topic, start, next_, b"", len(recorded)))
    return recorded, [cuts(draw), cuts(draw)]


@given(histories())
def test_recorded_turns_come_first_and_nothing_is_lost(history: tuple[list[Turn], list[list[int]]]) -> None:
    recorded, fetched = history
    taken: list[Piece] = []

    async def take(piece: Piece) -> None:
        await asyncio.sleep(0)
        taken.append(piece)

    async def fetch(order: TurnOrder, topic: int) -> None:
        for start, next_ in pairwise(fetched[topic]):
            await order.run(topic, batch(start, next_), take, most_records=most)

    async def run() -> None:
        order = TurnOrder(0, {CLICKS: 0, PARTICIPATIONS: 0}, recorded)
        await asyncio.gather(fetch(order, CLICKS), fetch(order, PARTICIPATIONS))

    asyncio.run(asyncio.wait_for(run(), 5))
    again = [piece.recorded for piece in taken[: len(recorded)]]
    assert again == recorded
    assert [(p.topic, p.start, p.next) for p in taken[: len(recorded)]] == [
        (turn.topic, turn.start, turn.next) for turn in recorded
    ]
    for topic in (CLICKS, PARTICIPATIONS):
        offsets = [record.offset for piece in taken if piece.topic == topic for record in piece.records]
        assert offsets == list(range(LENGTH))


def test_a_batch_that_was_taken_already_is_left_alone() -> None:
    async def run() -> int:
        taken = []

        async def take(piece: Piece) -> None:
            taken.append(piece)

        order = TurnOrder(0, {CLICKS: 10}, [])
        await order.run(CLICKS, batch(0, 10), take, most_records=most)
        await order.run(CLICKS, batch(5, 12), take, most_records=most)
        assert [record.offset for record in taken[0].records] == [10, 11]
        return len(taken)

    assert asyncio.run(run()) == 1


def test_a_hole_is_data_loss() -> None:
    async def take(piece: Piece) -> None:
        raise AssertionError("nothing to take")

    order = TurnOrder(0, {CLICKS: 10}, [])
    with pytest.raises(DataLossError, match="10 to 12"):
        asyncio.run(order.run(CLICKS, batch(12, 14), take, most_records=most))


def test_a_turn_that_breaks_off_ends_the_order() -> None:
    async def run() -> bool:
        async def give_up(piece: Piece) -> None:
            raise Abandoned("leaving")

        async def look() -> None:
            raise AssertionError("the state is not whole")

        order = TurnOrder(0, {CLICKS: 0, PARTICIPATIONS: 0}, [])
        with pytest.raises(Abandoned):
            await order.run(CLICKS, batch(0, 5), give_up, most_records=most)
        with pytest.raises(Abandoned):
            await order.run(PARTICIPATIONS, batch(0, 5), give_up, most_records=most)
        return await order.at_rest(look)

    assert asyncio.run(run()) is False


def test_a_batch_is_cut_where_a_turn_is_full() -> None:
    room = iter((2, 1, 9))
    taken: list[Piece] = []

    async def take(piece: Piece) -> None:
        taken.append(piece)

    def with_gaps() -> Batch:
        whole = batch(0, 10)
        return Batch(
            whole.tp, [r for r in whole.records if r.offset in (1, 4, 5, 8)], start=0, next=10, generation=1
        )

    order = TurnOrder(0, {CLICKS: 0}, [])
    asyncio.run(order.run(CLICKS, with_gaps(), take, most_records=lambda: next(room)))
    assert [(p.start, p.next, [r.offset for r in p.records]) for p in taken] == [
        (0, 5, [1, 4]),
        (5, 8, [5]),
        (8, 10, [8]),
    ]


LABELS = 2


def test_recorded_turns_of_labels_are_taken_again_without_a_batch() -> None:
    recorded = [
        Turn(0, LABELS, 0, 3, b"", 0),
        Turn(1, CLICKS, 0, 5, b"", 1),
        Turn(2, LABELS, 3, 4, b"", 2),
        Turn(3, LABELS, 4, 9, b"", 3),
        Turn(4, PARTICIPATIONS, 0, 2, b"", 4),
        Turn(5, LABELS, 9, 10, b"", 5),
    ]
    taken: list[tuple[int, int, int]] = []

    async def take(piece: Piece) -> None:
        taken.append((piece.topic, piece.start, piece.next))

    async def then() -> None:
        taken.append((-1, 0, 0))

    async def run() -> dict[int, int]:
        order = TurnOrder(0, {CLICKS: 0, PARTICIPATIONS: 0}, recorded)
        await order.between(take, then)
        waiting = asyncio.create_task(order.run(PARTICIPATIONS, batch(0, 2), take, most_records=most))
        await order.run(CLICKS, batch(0, 5), take, most_records=most)
        await waiting
        await order.between(take, then)
        await order.run(CLICKS, batch(5, 6), take, most_records=most)
        assert order.recorded_left == 0
        return order.positions

    assert asyncio.run(asyncio.wait_for(run(), 5)) == {CLICKS: 6, PARTICIPATIONS: 2}
    assert taken == [(turn.topic, turn.start, turn.next) for turn in recorded] + [(-1, 0, 0), (CLICKS, 5, 6)]

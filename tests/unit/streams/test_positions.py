from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import StateError
from streams.batches import TP
from streams.positions import Bounds, DurablePositions, GroupPositions, loss_sentence, start_offset

PLACE = TP("clicks", 0)
OTHER = TP("clicks", 1)


def begun(generation: int = 7, start: int = 100) -> DurablePositions:
    positions = DurablePositions()
    positions.begin(generation, {PLACE: start})
    return positions


def test_contiguous_marks_move_the_position() -> None:
    positions = begun()
    assert positions.mark(PLACE, 100, 150, 7)
    assert positions.mark(PLACE, 150, 151, 7)
    assert positions.get(PLACE) == 151


def test_a_repeated_or_overlapping_mark_never_moves_it_back() -> None:
    positions = begun()
    assert positions.mark(PLACE, 100, 150, 7)
    assert positions.mark(PLACE, 100, 120, 7)
    assert positions.get(PLACE) == 150
    assert positions.mark(PLACE, 120, 180, 7)
    assert positions.get(PLACE) == 180


def test_a_hole_is_an_error_and_moves_nothing() -> None:
    positions = begun()
    with pytest.raises(StateError, match=r"clicks-0: \[120, 130\) was marked durable, but \[100, 120\)"):
        positions.mark(PLACE, 120, 130, 7)
    assert positions.get(PLACE) == 100


def test_marks_of_another_generation_or_partition_are_refused() -> None:
    positions = begun()
    assert not positions.mark(PLACE, 100, 150, 6)
    assert not positions.mark(PLACE, 100, 150, 8)
    assert not positions.mark(OTHER, 0, 10, 7)
    assert positions.items() == {PLACE: 100}


def test_while_leaving_nothing_is_started_but_what_is_in_progress_may_be_marked() -> None:
    positions = begun()
    assert positions.is_current(7)
    assert positions.leave()
    assert not positions.is_current(7)
    assert positions.mark(PLACE, 100, 150, 7)
    positions.end([PLACE])
    assert not positions.mark(PLACE, 150, 160, 7)
    assert positions.get(PLACE) is None
    assert positions.generation is None


def test_leaving_is_said_once_and_only_by_an_owner() -> None:
    assert not DurablePositions().leave()
    positions = begun()
    assert positions.leave()
    assert not positions.leave()
    positions.begin(8, {PLACE: 150})
    assert positions.is_current(8)
    assert positions.leave()


def test_an_accepted_loss_jumps_the_hole() -> None:
    positions = begun()
    positions.jump(PLACE, 400)
    assert positions.mark(PLACE, 400, 410, 7)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10), st.sampled_from([7, 8])), max_size=40))
def test_only_what_was_marked_becomes_durable(marks: list[tuple[int, int, int]]) -> None:
    positions = begun(start=0)
    covered: set[int] = set()
    for start, length, generation in marks:
        try:
            accepted = positions.mark(PLACE, start, start + length, generation)
        except StateError:
            continue
        assert accepted == (generation == 7)
        if accepted:
            covered.update(range(start, start + length))
    durable = positions.get(PLACE)
    assert durable is not None
    assert covered.issuperset(range(durable))
    assert durable == max(covered, default=-1) + 1


@pytest.mark.parametrize(
    ("wanted", "committed", "expected"), [(5, 30, 5), (0, 30, 0), (None, 30, 30), (None, None, 10)]
)
def test_a_partition_starts_where_the_application_wants_then_the_group_then_the_log(
    wanted: int | None, committed: int | None, expected: int
) -> None:
    assert start_offset(wanted, Bounds(first=10, end=50, committed=committed)) == expected


def test_a_loss_is_said_with_its_range() -> None:
    bounds = Bounds(first=250, end=400, committed=None)
    assert "[100, 250)" in loss_sentence(PLACE, 100, bounds)
    assert "[400, 900)" in loss_sentence(PLACE, 900, bounds)


def test_without_an_application_the_group_decides_and_no_loss_is_accepted() -> None:
    positions = GroupPositions()
    assert asyncio.run(positions.start_positions([PLACE])) == {}
    assert not positions.on_data_loss(PLACE, 1, 2)

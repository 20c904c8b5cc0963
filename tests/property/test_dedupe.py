"""Small streams of every shape: outcomes are the oracle's, whatever the cut, the restarts and the bound."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.dedupe import DUPLICATE, FRESH, Dedupe
from tests.dedupe_oracle import DedupeOracle

rows = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(1, 12) | st.just(2**64 - 1),
        st.integers(0, 60),
        st.integers(0, 9).map(bool),
    ),
    max_size=60,
)


def screen(dedupe: Dedupe, part: list[tuple[int, int, int, bool]]) -> list[int]:
    outcomes: list[int] = []
    start = 0
    while start < len(part):
        stop = start
        while stop < len(part) and part[stop][0] == part[start][0]:
            stop += 1
        _topic, keys, times, eligible = zip(*part[start:stop], strict=True)
        got = dedupe.screen(
            part[start][0], np.array(keys, np.uint64), np.array(times, np.int64), np.array(eligible, np.uint8)
        )
        outcomes += got.tolist()
        start = stop
    return outcomes


@settings(max_examples=300, deadline=None)
@given(part=rows, lateness_ms=st.integers(0, 30), restart_at=st.integers(0, 60))
def test_outcomes_equal_the_oracle(
    part: list[tuple[int, int, int, bool]], lateness_ms: int, restart_at: int
) -> None:
    oracle, one, other = DedupeOracle(lateness_ms), Dedupe(lateness_ms), Dedupe(lateness_ms)
    got = screen(one, part[:restart_at])
    other.restore(one.snapshot())
    got += screen(other, part[restart_at:])
    assert got == [oracle.screen(topic, key, ts_ms, int(eligible)) for topic, key, ts_ms, eligible in part]
    assert [other.max_ts_ms(topic) for topic in (0, 1)] == [oracle.max_ts_ms.get(topic) for topic in (0, 1)]


@settings(max_examples=200, deadline=None)
@given(part=rows, max_ids=st.integers(1, 8))
def test_at_the_bound_the_cut_changes_nothing_and_no_more_is_held(
    part: list[tuple[int, int, int, bool]], max_ids: int
) -> None:
    whole, single = Dedupe(20, max_ids=max_ids), Dedupe(20, max_ids=max_ids)
    truth = screen(whole, part)
    assert [outcome for row in part for outcome in screen(single, [row])] == truth
    assert (single.held, single.dropped) == (whole.held, whole.dropped)
    assert whole.held <= max_ids
    if not whole.dropped:
        oracle = DedupeOracle(20)
        assert truth == [
            oracle.screen(topic, key, ts_ms, int(eligible)) for topic, key, ts_ms, eligible in part
        ]


@settings(max_examples=300, deadline=None)
@given(before=rows, taken_back=rows.filter(bool), after=rows, lateness_ms=st.integers(0, 30))
def test_a_batch_that_is_taken_back_was_never_there(
    before: list[tuple[int, int, int, bool]],
    taken_back: list[tuple[int, int, int, bool]],
    after: list[tuple[int, int, int, bool]],
    lateness_ms: int,
) -> None:
    one, other = Dedupe(lateness_ms), Dedupe(lateness_ms)
    for dedupe in (one, other):
        screen(dedupe, before)
    batch = [(0, *row[1:]) for row in taken_back]
    screen(one, batch)
    if not one.take_back():
        screen(other, batch)
    assert not one.take_back()
    assert (one.held, one.max_ts_ms(0), one.max_ts_ms(1)) == (
        other.held,
        other.max_ts_ms(0),
        other.max_ts_ms(1),
    )
    assert screen(one, after) == screen(other, after)


def test_what_can_be_taken_back() -> None:
    dedupe = Dedupe(10)
    many = np.arange(1, 600, dtype=np.uint64)
    all_of_them = np.ones(len(many), np.uint8)
    assert not dedupe.take_back()
    dedupe.screen(0, many[:1], np.array([100]), all_of_them[:1])
    assert not dedupe.take_back()  # a topic's first event makes room
    dedupe.screen(0, many[:3], np.array([101, 101, 105]), all_of_them[:3])
    assert dedupe.take_back()
    assert (dedupe.held, dedupe.max_ts_ms(0)) == (1, 100)
    assert dedupe.screen(0, many[:3], np.full(3, 120), all_of_them[:3]).tolist() == [DUPLICATE, FRESH, FRESH]
    dedupe.screen(0, many[:1], np.array([130]), all_of_them[:1])
    assert not dedupe.take_back()  # the dead id came again
    dedupe.screen(0, many, np.full(len(many), 130), all_of_them)
    assert not dedupe.take_back()  # the table grew

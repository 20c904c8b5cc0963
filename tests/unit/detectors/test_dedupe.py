from __future__ import annotations

import random

import numpy as np
import pytest

from detectors.dedupe import DUPLICATE, FRESH, LATE, NEVER, SKIPPED, Dedupe
from schemas.errors import StateError
from tests.dedupe_oracle import DedupeOracle

LATENESS_MS = 3_600_000
Row = tuple[int, int, int, int]  # topic, key, time, eligible


def rows_of(count: int, seed: int, *, step_ms: int, repeat: float = 0.3) -> list[Row]:
    """Rows of two topics out of order; repeats near and far, some in the other topic or of another time."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for i in range(count):
        if rows and draw.random() < repeat:
            topic, key, ts_ms, _eligible = rows[max(0, i - 1 - int(draw.expovariate(0.02)))]
            if draw.random() < 0.3:
                topic = 1 - topic
            if draw.random() < 0.1:
                ts_ms += draw.randrange(-LATENESS_MS, LATENESS_MS)
        else:
            # The second topic begins late, and then runs behind.
            topic = int(i > count // 5 and draw.random() < 0.3)
            key = draw.getrandbits(64)
            ts_ms = 10**12 + (i - topic * count // 9) * step_ms - int(draw.random() ** 4 * 2 * LATENESS_MS)
        rows.append((topic, key, ts_ms, int(draw.random() > 0.05)))
    return rows


def screen(dedupe: Dedupe, rows: list[Row], size: int) -> list[int]:
    """Outcomes of rows, cut where the topic changes and at ``size`` rows."""
    outcomes: list[int] = []
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and stop - start < size and rows[stop][0] == rows[start][0]:
            stop += 1
        columns = list(zip(*rows[start:stop], strict=True))
        got = dedupe.screen(
            rows[start][0],
            np.array(columns[1], np.uint64),
            np.array(columns[2], np.int64),
            np.array(columns[3], np.uint8),
        )
        outcomes += got.tolist()
        start = stop
    return outcomes


@pytest.mark.parametrize("step_ms", [50, 60_000])
@pytest.mark.parametrize("size", [1, 7, 997])
def test_outcomes_equal_the_oracle_however_rows_are_cut(size: int, step_ms: int) -> None:
    rows, dedupe, oracle = rows_of(8_000, 5, step_ms=step_ms), Dedupe(LATENESS_MS), DedupeOracle(LATENESS_MS)
    truth = [oracle.screen(*row) for row in rows]
    assert screen(dedupe, rows, size) == truth
    assert len(set(truth)) == 4
    assert [dedupe.max_ts_ms(topic) for topic in (0, 1)] == [oracle.max_ts_ms[topic] for topic in (0, 1)]


def test_topics_in_long_stretches_equal_the_oracle_too() -> None:
    rows = sorted(rows_of(9_000, 6, step_ms=20_000), key=lambda row: (row[2] // 40_000_000, row[0]))
    oracle = DedupeOracle(LATENESS_MS)
    assert screen(Dedupe(LATENESS_MS), rows, 997) == [oracle.screen(*row) for row in rows]


@pytest.mark.parametrize("max_ids", [None, 700])
def test_a_snapshot_in_the_middle_changes_no_later_outcome(max_ids: int | None) -> None:
    rows, one = rows_of(6_000, 7, step_ms=3_000), Dedupe(LATENESS_MS, max_ids=max_ids)
    got = screen(one, rows[:3_333], 100)
    other = Dedupe(LATENESS_MS, max_ids=max_ids)
    other.restore(one.snapshot())
    assert screen(other, rows[3_333:], 1) == screen(one, rows[3_333:], 997)
    assert (other.held, other.dropped) == (one.held, one.dropped)
    if max_ids is None:
        oracle = DedupeOracle(LATENESS_MS)
        assert got == [oracle.screen(*row) for row in rows[:3_333]]


def test_memory_follows_the_ids_that_are_alive() -> None:
    dedupe = Dedupe(1_000)
    for start in range(0, 400_000, 1_000):
        ts_ms = np.arange(start, start + 1_000, dtype=np.int64)
        outcome = dedupe.screen(0, ts_ms.astype(np.uint64) * 7 + 1, ts_ms, np.ones(1_000, np.uint8))
        assert not outcome.any()
    assert dedupe.held <= 4_096
    assert dedupe.nbytes <= 16 * 8_192
    assert dedupe.dropped == 0


@pytest.mark.parametrize("max_ids", [None, 3_000])
def test_restarts_leave_the_memory_as_large_as_it_was(max_ids: int | None) -> None:
    never_stopped, restarted = Dedupe(1_000, max_ids=max_ids), Dedupe(1_000, max_ids=max_ids)
    for number in range(100):
        keys = np.arange(1, 701, dtype=np.uint64) + np.uint64(700 * number)
        times, eligible = (keys + 10**6).astype(np.int64), np.ones(700, np.uint8)
        for dedupe in (never_stopped, restarted):
            dedupe.screen(0, keys, times, eligible)
        before, restarted = restarted, Dedupe(1_000, max_ids=max_ids)
        restarted.restore(before.snapshot())
        assert (restarted.held, len(restarted._ids)) == (never_stopped.held, len(never_stopped._ids)), number
        assert restarted.take_back() is False
    assert len(restarted._ids) <= 8_192


def test_at_the_bound_the_oldest_ids_go_and_are_counted() -> None:
    draw = random.Random(1)
    times = [10**12 + draw.randrange(LATENESS_MS // 2) for _ in range(10_000)]
    rows: list[Row] = [(0, i + 1, ts_ms, 1) for i, ts_ms in enumerate(sorted(times))]
    results = []
    for size in (1, 997):
        dedupe = Dedupe(LATENESS_MS, max_ids=1_000)
        assert set(screen(dedupe, rows, size)) == {FRESH}
        assert dedupe.forgotten_ms is not None
        results.append(
            (screen(dedupe, sorted(rows, key=lambda row: row[2], reverse=True), size), dedupe.dropped)
        )
        assert dedupe.held <= 1_000
    assert results[0] == results[1]
    repeated, dropped = results[0]
    assert repeated[:700] == [DUPLICATE] * 700, "the newest are remembered"
    assert set(repeated) == {DUPLICATE, LATE}, "no repeat is fresh"
    assert dropped >= 9_000


def test_at_the_bound_the_lateness_is_shorter_in_all_topics_and_no_event_is_fresh_twice() -> None:
    draw = random.Random(2)
    times = [10**12 + 10 * i - draw.randrange(4_000) for i in range(10_000)]
    bounded, fresh = Dedupe(LATENESS_MS, max_ids=500), set[int]()
    for newest in range(len(times)):
        for key in (newest, draw.randrange(newest + 1)):
            forgotten_ms = bounded.forgotten_ms
            (outcome,) = screen(bounded, [(draw.randrange(2), key + 1, times[key], 1)], 1)
            assert (outcome == LATE) == (forgotten_ms is not None and times[key] <= forgotten_ms)
            if outcome == FRESH:
                assert key not in fresh
                fresh.add(key)
    assert len(fresh) > 9_000, "what comes nearly in order is judged as ever"
    assert bounded.dropped > 9_000


def test_a_checkpoint_from_before_there_was_a_bound_is_taken_up() -> None:
    state = Dedupe(1_000).snapshot()
    del state["forgotten_ms"]
    dedupe = Dedupe(1_000)
    dedupe.restore(state)
    assert dedupe.forgotten_ms is None


def test_what_is_late_is_not_remembered_and_moves_nothing() -> None:
    dedupe = Dedupe(1_000)
    rows: list[Row] = [
        (0, 1, 10_000, 1),
        (0, 2, 8_999, 1),
        (0, 2, 9_000, 1),
        (0, 2, 9_000, 1),
        (0, 1, 99_000, 1),
    ]
    assert screen(dedupe, rows, 9) == [FRESH, LATE, FRESH, DUPLICATE, DUPLICATE]
    assert (dedupe.watermark_ms(0), dedupe.watermark_ms(1)) == (9_000, None)
    assert screen(dedupe, [(0, 3, 10**9, 0)], 1) == [SKIPPED]
    assert dedupe.max_ts_ms(0) == 10_000


def test_an_id_counts_in_either_topic() -> None:
    dedupe = Dedupe(1_000)
    assert screen(dedupe, [(0, 5, 10_000, 1), (1, 5, 10_000, 1), (1, 6, 9_500, 1), (0, 6, 9_500, 1)], 1) == [
        FRESH,
        DUPLICATE,
        FRESH,
        DUPLICATE,
    ]


def test_a_topic_that_begins_far_behind_still_knows_its_own_ids() -> None:
    dedupe = Dedupe(1_000)
    rows: list[Row] = [
        (0, 1, 50_000, 1),
        (0, 2, 90_000, 1),
        (1, 3, 50_000, 1),
        (1, 3, 50_000, 1),
        (1, 1, 50_000, 1),
    ]
    # 1 was dead before the second topic began, and stays dead.
    assert screen(dedupe, rows, 9) == [FRESH, FRESH, FRESH, DUPLICATE, FRESH]


def test_the_key_zero_is_a_key() -> None:
    assert screen(Dedupe(1_000), [(0, 0, 1, 1), (0, 0, 1, 1)], 2) == [FRESH, DUPLICATE]


def test_an_empty_batch_changes_nothing() -> None:
    dedupe = Dedupe(1_000)
    nothing = np.empty(0, np.int64)
    assert len(dedupe.screen(0, nothing.view(np.uint64), nothing, np.empty(0, np.uint8))) == 0
    assert dedupe.max_ts_ms(0) is None
    assert NEVER < 0


def test_a_snapshot_of_another_format_is_refused() -> None:
    state = Dedupe(1_000).snapshot()
    state["format"] = np.array([9])
    with pytest.raises(StateError, match="format 9"):
        Dedupe(1_000).restore(state)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.entity_kernels import ANY, EVER
from detectors.entity_table import EntityTable
from detectors.plan import Op
from detectors.questions import ANSWER, ENTITY, EVENT, LOOK, NAME, TS_MS, WATERMARK_MS, Questions
from schemas.sightings import NULL_ANSWER

Sighting = tuple[int, int, int]  # entity, member or name, time


def questions_of(
    sightings: Sequence[Sighting], width: int, *, watermark_ms: int | None = None, look: bool = False
) -> Questions:
    """Rows of one kind; the watermark follows the largest time unless one is given."""
    rows = np.zeros((len(sightings), 8), np.int64)
    columns = np.array(sightings, np.uint64).reshape(-1, 3)
    rows[:, ENTITY] = columns[:, 0].view(np.int64)
    rows[:, TS_MS] = columns[:, 2].view(np.int64)
    rows[:, WATERMARK_MS] = np.maximum.accumulate(rows[:, TS_MS]) if watermark_ms is None else watermark_ms
    rows[:, ANSWER] = np.arange(len(rows)) * width
    rows[:, EVENT] = np.arange(len(rows))
    rows[:, NAME] = columns[:, 1].view(np.int64)
    rows[:, LOOK] = look
    return Questions(rows, [0, len(rows)], columns[:, 1].reshape(1, -1).copy(), len(rows) * width, 0)


def ask(
    table: EntityTable,
    sightings: Sequence[Sighting],
    *windows: int,
    argument: int = 0,
    exclude_self: bool = False,
    watermark_ms: int | None = None,
    look: bool = False,
) -> NDArray[np.int64]:
    """Answers [sighting, window]."""
    asked = np.array([(slot, window, exclude_self) for slot, window in enumerate(windows)], np.int64)
    questions = questions_of(sightings, len(windows), watermark_ms=watermark_ms, look=look)
    answers = np.full(questions.answers, -77, np.int64)
    table.apply(questions, 0, len(sightings), argument=argument, asked=asked, answers=answers)
    return answers.reshape(len(sightings), len(windows))


def table_of(op: Op, max_keys: int = 100_000, window_ms: int | None = None) -> EntityTable:
    return EntityTable(
        op, max_keys=max_keys, longest_window_ms=window_ms, lateness_ms=100, timed=window_ms is not None
    )


def hashes(count: int, seed: int) -> list[int]:
    return [int(value) for value in np.random.default_rng(seed).integers(1, 2**64, count, np.uint64)]


def last(answers: NDArray[np.int64]) -> list[int]:
    return [int(answer) for answer in answers[-1]]


# -- answers
# -------------------------------------------------------------------------------------------------------


def test_distinct_members_by_window_with_and_without_the_own_one() -> None:
    sightings = [(9, 1, 1_000), (9, 2, 2_000), (9, 3, 3_000), (9, 1, 1_500)]
    # Asked as member 1 at 3,400: of 1 counts 1,500, the largest; the borders are inclusive.
    for exclude_self, expected in ((False, [3, 2, 3, 1]), (True, [2, 2, 2, 1])):
        table = table_of(Op.DISTINCT)
        ask(table, sightings, EVER)
        got = ask(table, [(9, 1, 3_400)], EVER, 1_400, 1_900, 400, exclude_self=exclude_self)
        assert last(got) == [2 * n for n in expected]


def test_without_a_member_the_question_is_answered_and_nothing_is_added() -> None:
    table = table_of(Op.DISTINCT)
    assert ask(table, [(9, 1, 10), (9, 0, 20), (8, 0, 30), (9, 2, 40)], EVER, exclude_self=True)[
        :, 0
    ].tolist() == [
        0,
        2,
        0,
        2,
    ]
    assert table.keys == 1


def test_count_and_since_take_only_their_name() -> None:
    sightings = [(9, 4, 1_000), (9, 5, 1_100), (9, 4, 900), (9, 5, 1_300), (8, 5, 1_300), (9, 4, 1_250)]
    counted = ask(table_of(Op.COUNT, window_ms=300), sightings, EVER, 300, argument=4)
    assert counted.tolist() == [[0, 0], [2, 2], [2, 2], [4, 2], [0, 0], [4, 2]]
    assert ask(table_of(Op.COUNT), sightings, EVER, argument=ANY)[:, 0].tolist() == [0, 2, 4, 6, 0, 8]
    since = ask(table_of(Op.SINCE), sightings, EVER, argument=4)
    # The latest, not the last; out of order it lies ahead.
    assert since[:, 0].tolist() == [NULL_ANSWER, 200, -200, 600, NULL_ANSWER, 500]


def test_a_question_alone_makes_no_row() -> None:
    for op in Op:
        table = table_of(op)
        ask(table, [(9, 4, 1_000)], EVER, argument=0 if op is Op.DISTINCT else 5)
        ask(table, [(9, 4, 1_000)], EVER, argument=0 if op is Op.DISTINCT else 4, look=True)
        assert table.keys == (op is Op.DISTINCT)


# -- estimates
# -----------------------------------------------------------------------------------------------------


def test_distinct_answers_are_exact_to_1024_and_marked_estimates_beyond() -> None:
    members = hashes(5_000, 1)
    answers = ask(table_of(Op.DISTINCT), [(9, member, 10) for member in members], EVER, 1_000)
    assert answers[:1_025].tolist() == [[2 * i, 2 * i] for i in range(1_025)]
    assert (answers[1_026:] % 2 == 1).all()
    counts = answers[1_026:, 0] // 2
    assert np.abs(counts / np.arange(1_026, 5_000) - 1).max() < 0.15
    assert (answers[:, 0] == answers[:, 1]).all()


def test_repeated_members_of_a_sampled_slab_are_not_counted_twice() -> None:
    table, members = table_of(Op.DISTINCT), hashes(3_000, 2)
    first = last(ask(table, [(9, member, 10) for member in members], EVER))
    again = ask(table, [(9, member, 20) for member in members], EVER)
    assert np.ptp(again) == 0
    assert abs(again[0, 0] - first[0]) <= 4


def test_counts_are_exact_while_forgetting_keeps_the_window_below_1024() -> None:
    table = table_of(Op.COUNT, window_ms=5_000)
    times = [10 * i - (i * 7919) % 90 for i in range(20_000)]
    answers = ask(table, [(9, 4, ts_ms + 10**6) for ts_ms in times], 5_000, EVER, argument=4)
    for i in (1_500, 7_777, 19_999):
        assert answers[i].tolist() == [2 * sum(t >= times[i] - 5_000 for t in times[:i]), 2 * i]
    assert (answers % 2 == 0).all()
    assert table.coarsened == 0
    # What asks behind the floor is told that the answer is an estimate; what asks before it is not.
    assert last(ask(table, [(9, 4, 10**6 + 100_000)], 5_000, argument=4, look=True))[0] % 2 == 1


def test_counts_beyond_1024_in_the_window_are_sampled() -> None:
    table = table_of(Op.COUNT, window_ms=10**6)
    answers = ask(table, [(9, 4, 10**6 + i) for i in range(10_000)], 10**6, 3_000, EVER, argument=4)
    assert answers[:1_025, 0].tolist() == [2 * i for i in range(1_025)]
    assert (answers[1_026:, :2] % 2 == 1).all()
    assert np.abs(answers[1_026:, 0] // 2 / np.arange(1_026, 10_000) - 1).max() < 0.02
    assert np.abs(answers[4_000:, 1] // 2 / 3_000 - 1).max() < 0.02
    assert answers[:, 2].tolist() == [2 * i for i in range(10_000)], "since ever it is a counter"


def test_distinct_members_of_windows_alone_are_forgotten_below_the_floor() -> None:
    table, members = table_of(Op.DISTINCT, window_ms=5_000), hashes(20_000, 3)
    answers = ask(table, [(9, member, 10**6 + 10 * i) for i, member in enumerate(members)], 5_000)
    assert answers[:, 0].tolist() == [2 * min(i, 500) for i in range(20_000)]


def test_nothing_is_forgotten_before_the_slowest_source_has_passed() -> None:
    table, members = table_of(Op.DISTINCT, window_ms=5_000), hashes(2_000, 4)
    sightings = [(9, member, 10**6 + 10 * i) for i, member in enumerate(members)]
    answers = ask(table, sightings, 5_000, watermark_ms=10**6)
    assert last(answers)[0] % 2 == 1
    assert abs(last(answers)[0] // 2 - 500) < 120


# -- bounds
# --------------------------------------------------------------------------------------------------------


class Clock:
    """A second-chance clock over a plain list: the model of what may be held."""

    def __init__(self, bound: int) -> None:
        self.bound, self.hand, self.evicted = bound, 0, 0
        self.keys: list[int] = []
        self.used: list[bool] = []
        self.counts: dict[int, int] = {}

    def count(self, key: int) -> int:
        """How often the key was counted before, since it was last forgotten."""
        if key in self.counts:
            self.used[self.keys.index(key)] = True
        elif len(self.keys) < self.bound:
            self.keys.append(key)
            self.used.append(False)
        else:
            while self.used[self.hand]:
                self.used[self.hand] = False
                self.hand = (self.hand + 1) % self.bound
            del self.counts[self.keys[self.hand]]
            self.keys[self.hand], self.evicted = key, self.evicted + 1
            self.hand = (self.hand + 1) % self.bound
        before = self.counts.get(key, 0)
        self.counts[key] = before + 1
        return before


def keys_of_a_crowd(count: int) -> list[int]:
    """Some keys that come again and again among very many that come once."""
    random = np.random.default_rng(5)
    busy = np.array(hashes(150, 6), np.uint64)
    once = np.array(hashes(count, 7), np.uint64)
    # The keys of one shard agree in some bits.
    once = (once & np.uint64(0xFF_FFFF_FFFF)) | (once & np.uint64(0xFF << 56))
    mixed = np.where(random.random(count) < 0.5, busy[random.integers(0, 150, count)], once)
    return [int(key) for key in mixed]


@pytest.mark.parametrize("bound", [1, 7, 300, 1_000])
def test_eviction_is_a_second_chance_clock(bound: int) -> None:
    table, clock = table_of(Op.COUNT, max_keys=bound), Clock(bound)
    keys = keys_of_a_crowd(8_000)
    truth = [2 * clock.count(key) for key in keys]
    got: list[int] = []
    for start in range(0, len(keys), 977):
        got += ask(table, [(key, 4, 10) for key in keys[start : start + 977]], EVER, argument=4)[
            :, 0
        ].tolist()
    assert got == truth
    assert (table.keys, table.evicted) == (bound, clock.evicted)


def test_keys_that_come_again_outlive_a_flood() -> None:
    table = table_of(Op.COUNT, max_keys=500)
    keys = keys_of_a_crowd(20_000)
    answers = ask(table, [(key, 4, 10) for key in keys], EVER, argument=4)[:, 0] // 2
    assert table.evicted > 9_000
    assert answers.max() > 50


def test_evicted_slabs_are_used_again() -> None:
    table = table_of(Op.DISTINCT, max_keys=20)
    keys = hashes(3_000, 8)
    for key in keys:
        ask(table, [(key, member, 10) for member in range(1, 60)], EVER)
    assert table.coarsened == 0
    assert table.nbytes < 200_000


@pytest.mark.parametrize("op", [Op.DISTINCT, Op.COUNT])
def test_growing_changes_no_answer(op: Op) -> None:
    """One table grows row by row, one is asked in one call, one is made anew from snapshots on the way."""
    draw = np.random.default_rng(9)
    sightings = [
        (int(entity) + 1, int(member) + 1, 10**6 + i)
        for i, (entity, member) in enumerate(
            zip(draw.zipf(1.3, 9_000) % 3_000, draw.integers(0, 1_500, 9_000), strict=True)
        )
    ]
    whole, single, restored = (table_of(op, max_keys=2_000, window_ms=10**5) for _ in range(3))
    truth = ask(whole, sightings, 10**5, 500, argument=0 if op is Op.DISTINCT else ANY).tolist()
    got: list[list[int]] = []
    for start in range(0, len(sightings), 900):
        part = sightings[start : start + 900]
        got += ask(restored, part, 10**5, 500, argument=0 if op is Op.DISTINCT else ANY).tolist()
        state, restored = restored.snapshot(), table_of(op, max_keys=2_000, window_ms=10**5)
        restored.restore(state)
    assert got == truth
    watermark_ms = 10**6
    for i, sighting in enumerate(sightings[:3_000]):
        watermark_ms = max(watermark_ms, sighting[2])
        one = ask(
            single,
            [sighting],
            10**5,
            500,
            argument=0 if op is Op.DISTINCT else ANY,
            watermark_ms=watermark_ms,
        )
        assert one.tolist() == [truth[i]]
    assert whole.snapshot()["arena"].tobytes() == restored.snapshot()["arena"].tobytes()


def test_memory_follows_what_is_held_and_ends_at_the_bound() -> None:
    table = table_of(Op.DISTINCT, max_keys=20_000)
    assert table.nbytes < 50_000
    ask(table, [(key, 5, 10) for key in hashes(1_000, 10)], EVER)
    assert table.nbytes < 400_000
    for seed in range(11, 19):
        ask(table, [(key, member, 10) for key in hashes(10_000, seed) for member in (1, 2, 3, 4, 5)], EVER)
    assert table.nbytes < 20_000 * 250
    assert (table.keys, table.evicted) == (20_000, 61_000)


def test_a_smaller_bound_after_a_restore_drops_nothing() -> None:
    table, smaller = table_of(Op.COUNT, max_keys=1_000), table_of(Op.COUNT, max_keys=10)
    keys = hashes(500, 12)
    ask(table, [(key, 4, 10) for key in keys], EVER, argument=4)
    smaller.restore(table.snapshot())
    looked = ask(smaller, [(key, 4, 10) for key in keys], EVER, argument=4, look=True)
    assert (looked == 2).all()
    ask(smaller, [(key, 4, 10) for key in hashes(100, 13)], EVER, argument=4)
    assert (smaller.keys, smaller.evicted) == (500, 100)

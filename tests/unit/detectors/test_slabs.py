from __future__ import annotations

import numpy as np
import pytest

from detectors.slabs import (
    BUMP,
    CARVED,
    COARSENED,
    FORGOTTEN,
    LARGEST_SLAB_WORDS,
    META_WORDS,
    NEVER,
    ROW_WORDS,
    SLAB_LIMIT,
    Words,
    add_member,
    clear_row,
    count_since,
    find_member,
    free_slab,
    level,
    place,
)

ROW = ROW_WORDS


def memory(rows: int = 1, budget: int = 1 << 16) -> tuple[Words, Words]:
    """An arena with some empty rows, and its counters."""
    arena, meta = (
        np.zeros(ROW_WORDS * (1 + rows) + budget + LARGEST_SLAB_WORDS, np.int64),
        np.zeros(META_WORDS, np.int64),
    )
    meta[BUMP], meta[SLAB_LIMIT] = ROW_WORDS * (1 + rows), budget
    for row in range(1, rows + 1):
        clear_row(arena, ROW_WORDS * row, row)
    return arena, meta


def held(arena: Words, row: int = ROW) -> list[tuple[int, int]]:
    members, times, count = place(arena, row)
    return list(
        zip(arena[members : members + count].tolist(), arena[times : times + count].tolist(), strict=True)
    )


def test_members_stay_in_order_while_they_move_from_the_row_through_all_slabs() -> None:
    arena, meta = memory()
    pairs = [(i * 977 + 1, i - 500) for i in range(1_024)]
    for count, (member, ts_ms) in enumerate(pairs):
        assert held(arena)[-3:] == pairs[max(0, count - 3) : count]
        add_member(arena, meta, ROW, member, ts_ms, NEVER)
    assert held(arena) == pairs
    assert (level(arena, ROW), arena[ROW + FORGOTTEN]) == (0, NEVER)


def test_the_next_member_halves_a_full_slab_by_its_low_bit() -> None:
    arena, meta = memory()
    for member in range(1, 1_027):
        add_member(arena, meta, ROW, member, 7, NEVER)
    assert [member for member, _ts_ms in held(arena)] == list(range(2, 1_027, 2))
    assert (level(arena, ROW), meta[COARSENED]) == (1, 1)


def test_a_slab_of_like_members_is_halved_until_one_leaves() -> None:
    arena, meta = memory()
    for member in range(8, 8 * 1_026, 8):
        add_member(arena, meta, ROW, member, 7, NEVER)
    assert level(arena, ROW) == 4
    assert [member for member, _ts_ms in held(arena)] == list(range(16, 8 * 1_026, 16))


def test_negative_members_are_members() -> None:
    arena, meta = memory()
    for member in range(-1_024, 1_000):
        add_member(arena, meta, ROW, member or 5, 7, NEVER)
    assert len(held(arena)) << level(arena, ROW) == pytest.approx(2_024, abs=8)
    assert held(arena)[0] == (-1_024, 7)


def test_only_a_slab_of_1024_forgets_while_memory_is_plenty() -> None:
    arena, meta = memory()
    for member in range(1_024):
        add_member(arena, meta, ROW, member + 1, member, 1_000)
    assert len(held(arena)) == 1_024
    add_member(arena, meta, ROW, 5_000, 5_000, 1_000)
    assert held(arena) == [(member + 1, member) for member in range(1_000, 1_024)] + [(5_000, 5_000)]
    assert (level(arena, ROW), arena[ROW + FORGOTTEN]) == (0, 999)


def test_every_slab_forgets_when_half_of_the_budget_is_taken() -> None:
    arena, meta = memory(rows=2, budget=47)
    for member in range(1, 9):
        add_member(arena, meta, ROW, member, 100, NEVER)
    assert (meta[CARVED], len(held(arena))) == (8 + 16, 8)
    other = 2 * ROW_WORDS
    for member in range(1, 5):
        add_member(arena, meta, other, member, 100 + member, NEVER)
    assert len(held(arena, other)) == 4, "the freed slab of four was taken"
    assert meta[CARVED] == 8 + 16
    add_member(arena, meta, other, 9, 200, 104)
    assert held(arena, other) == [(4, 104), (9, 200)]
    assert arena[other + FORGOTTEN] == 103


def test_a_budget_that_is_used_up_samples_early_and_never_passes_the_limit() -> None:
    arena, meta = memory(rows=40, budget=64)
    for member in range(1, 2_000):
        for row in range(1, 41):
            add_member(arena, meta, row * ROW_WORDS, member * 0x9E3779B97F4A7C15 % 2**63, 7, NEVER)
    assert meta[CARVED] <= 64
    assert meta[BUMP] == ROW_WORDS * 41 + meta[CARVED]
    assert all(level(arena, row * ROW_WORDS) > 0 for row in range(1, 41))
    estimates = [len(held(arena, row * ROW_WORDS)) << level(arena, row * ROW_WORDS) for row in range(1, 41)]
    assert all(200 < estimate < 20_000 for estimate in estimates)


def test_a_freed_slab_is_taken_again_by_the_next_of_its_size() -> None:
    arena, meta = memory(rows=2)
    for member in range(1, 33):
        add_member(arena, meta, ROW, member, 7, NEVER)
    carved, slab = meta[CARVED], place(arena, ROW)[0]
    free_slab(arena, meta, ROW)
    clear_row(arena, ROW, 1)
    for member in range(1, 33):
        add_member(arena, meta, 2 * ROW_WORDS, member, 7, NEVER)
    assert meta[CARVED] == carved
    assert place(arena, 2 * ROW_WORDS)[0] == slab


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 8, 31, 64, 999, 1_024])
def test_scans_equal_numpy(count: int) -> None:
    random = np.random.default_rng(count)
    arena = random.permutation(3_000).astype(np.int64)
    assert [find_member(arena, 900, count, arena[900 + i]) for i in range(count)] == list(range(count))
    assert find_member(arena, 900, count, -5) == -1
    for since in (-1, 0, 700, 1_500, 2_999, 3_000):
        assert count_since(arena, 900, count, since) == int(
            np.count_nonzero(arena[900 : 900 + count] >= since)
        )

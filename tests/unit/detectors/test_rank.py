"""Against a plain list, counted anew each time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.rank import (
    MassCounts,
    count_mass,
    dense,
    learned_count,
    no_counts,
    sparse,
    strength_of_mass,
)
from schemas.config_blocks import LARGEST_MASS

WHOLE = 3_193_750
"""The largest mass of 25 trees of height 8 with windows of 250."""


def by_list(learned: NDArray[np.int64], mass: int) -> float:
    """Strength by the definition on raw scores, floats throughout."""
    if learned.size == 0:
        return 0.0
    below = int(np.count_nonzero(1.0 - learned / WHOLE < 1.0 - mass / WHOLE))
    return min(1.0, max(0.0, (below / learned.size - 0.99) / 0.01))


def counted(masses: NDArray[np.int64]) -> MassCounts:
    counts = no_counts(WHOLE)
    for mass in masses.tolist():
        count_mass(counts, mass)
    return counts


def masses_near_the_borders(size: int, seed: int) -> NDArray[np.int64]:
    """Many equal, many beside the borders of pages and books, some anywhere, few rare (small) ones."""
    rng = np.random.default_rng(seed)
    borders = (rng.integers(1, WHOLE >> 16, size) << 16) + rng.integers(-2, 3, size)
    pages = (rng.integers(1, WHOLE >> 8, size) << 8) + rng.integers(-1, 2, size)
    masses = np.choose(rng.integers(0, 4, size), [borders, pages, rng.integers(0, WHOLE + 1, size), 1 << 20])
    rare = rng.integers(0, 70_000, size)
    return np.where(rng.random(size) < 0.01, rare, np.clip(masses, 0, WHOLE)).astype(np.int64)


@pytest.mark.parametrize("size", [1, 2, 99, 101, 5000])
def test_strength_equals_the_definition(size: int) -> None:
    learned = masses_near_the_borders(size, seed=size)
    counts = counted(learned)
    assert learned_count(counts) == size
    rarest = np.sort(learned)[: size // 50 + 1]
    asked = np.concatenate(
        [masses_near_the_borders(300, seed=1), rarest, rarest + 1, np.maximum(rarest - 1, 0), [0, WHOLE]]
    )
    found = [strength_of_mass(counts, size, mass) for mass in asked.tolist()]
    assert found == [by_list(learned, mass) for mass in asked.tolist()]
    assert {0.0, 1.0} <= set(found)
    if size == 5000:
        assert any(0 < strength < 1 for strength in found)


def test_nothing_learned_is_no_strength() -> None:
    assert strength_of_mass(no_counts(WHOLE), 0, 0) == 0.0


def test_a_score_equal_to_the_highest_is_not_above_it() -> None:
    counts = counted(np.full(10, 77, np.int64))
    assert strength_of_mass(counts, 10, 77) == 0.0
    assert strength_of_mass(counts, 10, 76) == 1.0


def test_sparse_and_dense_are_inverse() -> None:
    learned = masses_near_the_borders(3000, seed=5)
    counts = counted(learned)
    masses, times = sparse(counts)
    expected = np.unique(learned, return_counts=True)
    assert masses.tolist() == expected[0].tolist()
    assert times.tolist() == expected[1].tolist()
    for before, after in zip(counts, dense(WHOLE, masses, times), strict=True):
        assert np.array_equal(before, after)


def test_sparse_of_nothing_is_empty() -> None:
    masses, times = sparse(no_counts(WHOLE))
    assert masses.size == times.size == 0
    assert learned_count(dense(WHOLE, masses, times)) == 0


@pytest.mark.parametrize(
    ("masses", "times"),
    [([2, 1], [1, 1]), ([1, 1], [1, 1]), ([1, WHOLE + 1], [1, 1]), ([1, 2], [1, 0]), ([1, 2], [1])],
)
def test_impossible_counts_are_refused(masses: list[int], times: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        dense(WHOLE, np.array(masses, np.uint32), np.array(times, np.int64))


@pytest.mark.parametrize("largest", [-1, LARGEST_MASS + 1])
def test_memory_is_bounded(largest: int) -> None:
    with pytest.raises(ValueError, match="largest mass"):
        no_counts(largest)

"""Against River itself, and against a sorted list of the scores that River gave."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from river import anomaly, preprocessing

from detectors.half_space_trees import HalfSpaceForest

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

NAMES = ("ip_other_users", "dwell_ms", "device_other_users", "amount_minor")
"""Not in the order in which River sorts them."""


def events(rows: int, seed: int = 0) -> tuple[Floats, Bytes]:
    """Counts, times, nulls, a feature that never varies at first, growing ranges; nine in ten teach."""
    rng = np.random.default_rng(seed)
    x = np.empty((len(NAMES), rows))
    x[0] = rng.poisson(2, rows) * (1 + np.arange(rows) // 500)
    x[1] = rng.gamma(2, 2500, rows)
    x[2] = np.where(np.arange(rows) < rows // 3, 1.0, rng.integers(0, 3, rows))
    x[3] = np.round(rng.normal(0, 100, rows), 2)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x, (rng.random(rows) < 0.9).astype(np.uint8)


def by_river(
    names: Sequence[str], x: Floats, teaches: Bytes, *, trees: int, height: int, window: int, seed: int
) -> tuple[list[float], list[float]]:
    """Raw scores and strengths, one event after the other, ranks by a sorted list."""
    forest = anomaly.HalfSpaceTrees(n_trees=trees, height=height, window_size=window, seed=seed)
    model = preprocessing.MinMaxScaler() | forest
    raw: list[float] = []
    strength: list[float] = []
    learned_from: list[float] = []
    taught = 0
    for values, teach in zip(
        np.nan_to_num(x, posinf=np.inf, neginf=-np.inf).T.tolist(), teaches, strict=True
    ):
        event = dict(zip(names, values, strict=True))
        score = model.score_one(event)
        share = bisect_left(learned_from, score) / len(learned_from) if learned_from else 0.0
        raw.append(score)
        strength.append(min(1.0, max(0.0, (share - 0.99) / 0.01)))
        if teach:
            if taught >= window:
                insort(learned_from, score)
            model.learn_one(event)
            taught += 1
    return raw, strength


def forest(*, trees: int = 5, height: int = 4, window: int = 250, seed: int = 7) -> HalfSpaceForest:
    return HalfSpaceForest(features=NAMES, trees=trees, height=height, window=window, seed=seed)


@pytest.mark.parametrize(
    ("trees", "height", "window", "seed", "rows"),
    [
        (5, 4, 250, 7, 3000),
        (25, 8, 250, 42, 1200),
        (3, 1, 1, 0, 300),
        (1, 10, 33, 123456, 700),
        (33, 3, 9, 1, 500),
    ],
)
def test_raw_and_strength_equal_river_to_the_bit(
    trees: int, height: int, window: int, seed: int, rows: int
) -> None:
    x, teaches = events(rows)
    raw, strength = forest(trees=trees, height=height, window=window, seed=seed).score_and_learn(x, teaches)
    river_raw, river_strength = by_river(
        NAMES, x, teaches, trees=trees, height=height, window=window, seed=seed
    )
    assert raw.tolist() == river_raw
    assert strength.tolist() == river_strength
    assert len(set(river_raw)) > 2


def test_strengths_between_nothing_and_all_occur() -> None:
    x, teaches = events(20_000)
    _, strength = forest().score_and_learn(x, teaches)
    share = float(np.mean(strength > 0))
    assert 0.002 < share < 0.02
    assert np.any((strength > 0) & (strength < 1))
    assert np.any(strength == 1)


def test_splits_follow_the_sorted_names_as_in_river() -> None:
    x, teaches = events(900)
    raw, _ = forest().score_and_learn(x, teaches)
    order = np.argsort(NAMES)
    moved = HalfSpaceForest(features=sorted(NAMES), trees=5, height=4, window=250, seed=7)
    same, _ = moved.score_and_learn(np.ascontiguousarray(x[order]), teaches)
    renamed = HalfSpaceForest(features=["a", "b", "c", "d"], trees=5, height=4, window=250, seed=7)
    other, _ = renamed.score_and_learn(x, teaches)
    assert raw.tolist() == same.tolist()
    assert raw.tolist() != other.tolist()


@pytest.mark.parametrize("size", [1, 97, 250])
def test_any_cut_gives_the_same_bits(size: int) -> None:
    x, teaches = events(1500)
    raw, strength = forest(window=40).score_and_learn(x, teaches)
    cut = forest(window=40)
    parts = [
        cut.score_and_learn(np.ascontiguousarray(x[:, at : at + size]), teaches[at : at + size])
        for at in range(0, 1500, size)
    ]
    assert np.concatenate([part[0] for part in parts]).tolist() == raw.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == strength.tolist()


def test_first_window_is_neither_ranked_nor_counted() -> None:
    x, _ = events(60)
    model = forest(window=50)
    raw, strength = model.score_and_learn(x[:, :50].copy(), np.ones(50, np.uint8))
    assert not raw.any()
    assert not strength.any()
    assert model.snapshot()["rank_times"].size == 0
    # The next score is positive, and would be above all 50 zeros; it has nothing to be ranked among.
    raw, strength = model.score_and_learn(x[:, 50:51].copy(), np.ones(1, np.uint8))
    assert raw[0] > 0
    assert strength[0] == 0
    assert model.snapshot()["rank_times"].tolist() == [1]


def test_what_does_not_teach_leaves_no_trace() -> None:
    x, teaches = events(700)
    model = forest(window=100)
    model.score_and_learn(x, teaches)
    before = model.snapshot()
    raw, _ = model.score_and_learn(x * 1000, np.zeros(700, np.uint8))
    after = model.snapshot()
    assert raw.any()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("at", [0, 30, 137, 400])
def test_a_restored_forest_goes_on_to_the_bit(at: int) -> None:
    x, teaches = events(900)
    model = forest(window=100)
    model.score_and_learn(x[:, :at].copy(), teaches[:at])
    saved = model.snapshot()
    rest = x[:, at:].copy()
    raw, strength = model.score_and_learn(rest, teaches[at:])
    restored = forest(window=100)
    restored.score_and_learn(rest, teaches[at:])  # what it knew before must not matter
    restored.restore(saved)
    again_raw, again_strength = restored.score_and_learn(rest, teaches[at:])
    assert again_raw.tolist() == raw.tolist()
    assert again_strength.tolist() == strength.tolist()
    final, restored_final = model.snapshot(), restored.snapshot()
    assert all(np.array_equal(final[name], restored_final[name]) for name in final)


def test_snapshot_of_another_forest_is_refused() -> None:
    saved = forest(seed=7).snapshot()
    for other in (forest(seed=8), forest(window=251), forest(trees=6), forest(height=5)):
        with pytest.raises(ValueError, match="same features, trees, height, window and seed"):
            other.restore(saved)


def test_damaged_snapshot_is_refused_and_changes_nothing() -> None:
    x, teaches = events(600)
    model = forest()
    model.score_and_learn(x, teaches)
    good = model.snapshot()
    for damage in (
        {"leaves": good["leaves"][:-1]},
        {"largest": good["largest"].astype(np.float32)},
        {"rank_masses": good["rank_masses"][::-1]},
        {"rank_masses": np.full(good["rank_masses"].shape, 1 << 30, np.uint32)},
    ):
        with pytest.raises(ValueError, match="expected"):
            model.restore({**forest().snapshot(), **damage, "rank_times": good["rank_times"]})
        now = model.snapshot()
        assert all(np.array_equal(good[name], now[name]) for name in good)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, "feature names"),
        ({"features": ["a", "a"]}, "each once"),
        ({"trees": 0}, "trees >= 1"),
        ({"height": 0}, "height >= 1"),
        ({"window": 0}, "a window of 1 to 65535"),
        ({"window": 65_536}, "a window of 1 to 65535"),
        ({"trees": 256, "height": 15}, "largest mass"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, object], message: str) -> None:
    wanted = {"features": ["a"], "trees": 5, "height": 4, "window": 250, "seed": 1} | change
    with pytest.raises(ValueError, match=message):
        HalfSpaceForest(**wanted)  # type: ignore[arg-type]


def test_x_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        forest().score_and_learn(np.zeros((3, 3)), np.ones(3, np.uint8))

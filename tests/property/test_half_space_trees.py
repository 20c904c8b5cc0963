"""Any features, values, shapes and cuts: the same numbers as River's pipeline."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, preprocessing

from detectors.half_space_trees import HalfSpaceForest

VALUES = st.one_of(
    st.integers(0, 4).map(float),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, -0.0]),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], list[list[float]], list[int], list[int]]:
    """Names, rows, whether each teaches, and where the rows are cut into batches."""
    names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=5, unique=True))
    rows = draw(st.lists(st.lists(VALUES, min_size=len(names), max_size=len(names)), min_size=1, max_size=40))
    teaches = draw(st.lists(st.sampled_from([1, 1, 1, 0]), min_size=len(rows), max_size=len(rows)))
    cuts = draw(st.lists(st.integers(0, len(rows)), max_size=4))
    return names, rows, teaches, sorted(cuts)


@settings(max_examples=150, deadline=None)
@given(streams(), st.integers(1, 6), st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_equals_river(
    stream: tuple[list[str], list[list[float]], list[int], list[int]],
    trees: int,
    height: int,
    window: int,
    seed: int,
) -> None:
    names, rows, teaches, cuts = stream
    model = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(
        n_trees=trees, height=height, window_size=window, seed=seed
    )
    expected: list[float] = []
    for row, teach in zip(rows, teaches, strict=True):
        event = {name: 0.0 if math.isnan(value) else value for name, value in zip(names, row, strict=True)}
        expected.append(model.score_one(event))
        if teach:
            model.learn_one(event)

    forest = HalfSpaceForest(features=names, trees=trees, height=height, window=window, seed=seed)
    x, flags = np.array(rows).T.copy(), np.array(teaches, np.uint8)
    found: list[float] = []
    for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        found += forest.score_and_learn(x[:, begin:end].copy(), flags[begin:end])[0].tolist()
    assert found == expected

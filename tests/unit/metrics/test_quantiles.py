from __future__ import annotations

import math
import random

import numpy as np
import pytest

from metrics.quantiles import BOUNDARIES, bucket_middles, bucket_of, quantiles
from schemas.events import MAX_INTEGER


def test_every_number_has_a_bucket_of_at_most_one_percent() -> None:
    low, high = BOUNDARIES[:-1], BOUNDARIES[1:] - 1
    assert BOUNDARIES[0] == 0
    assert BOUNDARIES[-1] > MAX_INTEGER
    assert np.all(high >= low)
    assert np.all((high - low) * 100 <= low)
    assert len(BOUNDARIES) < 1 << 16


@pytest.mark.parametrize("value", [0, 1, 99, 100, 101, 102, 10**6, 2**53 - 1, 2**53])
def test_a_middle_is_within_half_a_percent(value: int) -> None:
    bucket = bucket_of(BOUNDARIES, value)
    assert BOUNDARIES[bucket] <= value < BOUNDARIES[bucket + 1]
    assert abs(bucket_middles(np.array([bucket]))[0] - value) * 200 <= value


def test_bisection_finds_what_a_search_finds() -> None:
    generator = random.Random(3)
    edges = [edge + d for edge in BOUNDARIES.tolist() for d in (-1, 0) if 0 <= edge + d <= MAX_INTEGER]
    for value in [*edges, *(int(2 ** generator.uniform(0, 53)) for _ in range(2_000))]:
        assert bucket_of(BOUNDARIES, value) == np.searchsorted(BOUNDARIES, value, side="right") - 1


def test_quantiles_are_nearest_ranks_of_each_row() -> None:
    generator = random.Random(5)
    samples = [
        [int(10 ** generator.uniform(0, 6)) for _ in range(size)] for size in (1, 2, 0, 99, 100, 101, 0)
    ]
    pairs = sorted((row, bucket_of(BOUNDARIES, v)) for row, sample in enumerate(samples) for v in sample)
    distinct = sorted(set(pairs))
    rows, buckets = np.array(distinct).T
    counts = np.array([pairs.count(pair) for pair in distinct])
    for percent in (1, 50, 90, 99, 100):
        found = quantiles(rows, buckets, counts, len(samples), percent)
        for value, sample in zip(found, samples, strict=True):
            if not sample:
                assert math.isnan(value)
                continue
            expected = sorted(sample)[math.ceil(len(sample) * percent / 100) - 1]
            assert abs(value - expected) * 200 <= expected

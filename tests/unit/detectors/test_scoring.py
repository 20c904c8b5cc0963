"""Against plain Python, float for float."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.scoring import combine, rule_keep, teaches

LEVELS = np.array([0.3, 0.6, 0.85])


def test_score_and_level_equal_plain_python() -> None:
    rng = np.random.default_rng(0)
    rows, rule_weights, model_weights = 2000, rng.random(20), np.array([0.3, 1.0, 0.77])
    fired = (rng.random((rows, 20)) < 0.1).astype(np.uint8)
    strengths = np.where(rng.random((3, rows)) < 0.2, rng.random((3, rows)), 0.0)
    keep = rule_keep(fired, rule_weights)
    score, level = combine(keep, strengths, model_weights, LEVELS)
    for row in range(rows):
        left = 1.0
        for weight, hit in zip(rule_weights.tolist(), fired[row], strict=True):
            if hit:
                left *= 1.0 - weight
        assert keep[row] == left
        for weight, strength in zip(model_weights.tolist(), strengths[:, row].tolist(), strict=True):
            left *= 1.0 - weight * strength
        assert score[row] == 1.0 - left
        assert level[row] == sum(1.0 - left >= threshold for threshold in LEVELS.tolist())
    assert set(level.tolist()) == {0, 1, 2, 3}


def test_any_cut_gives_the_same_bits() -> None:
    rng = np.random.default_rng(1)
    fired, weights = (rng.random((500, 9)) < 0.4).astype(np.uint8), rng.random(9)
    strengths, model_weights = rng.random((2, 500)), rng.random(2)
    keep = rule_keep(fired, weights)
    score, _ = combine(keep, strengths, model_weights, LEVELS)
    for row in range(500):
        one = rule_keep(fired[row : row + 1], weights)
        alone, _ = combine(one, np.ascontiguousarray(strengths[:, row : row + 1]), model_weights, LEVELS)
        assert one[0] == keep[row]
        assert alone[0] == score[row]


def test_thresholds_are_inclusive() -> None:
    above_half = 0.5 + 2**-52
    keep = np.array([0.5, above_half, 0.25, 0.125, 0.0])
    score, level = combine(keep, np.empty((0, 5)), np.empty(0), np.array([0.5, 0.75, 0.875]))
    assert score.tolist() == [0.5, 1 - above_half, 0.75, 0.875, 1.0]
    assert level.tolist() == [1, 0, 2, 3, 3]


def test_nothing_fired_is_zero_and_pass() -> None:
    keep = rule_keep(np.zeros((3, 2), np.uint8), np.array([0.5, 1.0]))
    score, level = combine(keep, np.zeros((1, 3)), np.array([1.0]), LEVELS)
    assert score.tolist() == [0.0] * 3
    assert level.tolist() == [0] * 3


def test_no_rules_and_no_models_and_no_rows() -> None:
    assert rule_keep(np.empty((2, 0), np.uint8), np.empty(0)).tolist() == [1.0, 1.0]
    score, level = combine(np.empty(0), np.empty((0, 0)), np.empty(0), LEVELS)
    assert score.size == level.size == 0


def test_rules_that_reach_review_and_late_rows_teach_nothing() -> None:
    keep = np.array([1.0, 0.41, 0.4, 0.1, 1.0, 0.9])
    eligible = np.array([1, 1, 1, 1, 0, 1], np.uint8)
    nobody = np.zeros(6, np.bool_)
    assert teaches(keep, 0.6, eligible, nobody).tolist() == [1, 1, 0, 0, 0, 1]


def test_what_a_white_list_has_teaches_whatever_rules_say_but_not_when_it_is_late() -> None:
    white = np.array([True, True, False])
    assert teaches(np.array([0.0, 0.0, 0.0]), 0.6, np.array([1, 0, 1], np.uint8), white).tolist() == [1, 0, 0]


def test_mismatched_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="a weight for each rule"):
        rule_keep(np.zeros((3, 2), np.uint8), np.array([0.5]))
    with pytest.raises(ValueError, match="strengths of shape"):
        combine(np.ones(3), np.zeros((1, 2)), np.array([0.5]), LEVELS)

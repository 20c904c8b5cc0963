"""From what fired to a score and a level.

The score is ``1 - keep``, where ``keep`` is the product of ``1 - weight`` over the lists that have the event and the
rules that fired, in the config's order, then of ``1 - weight * strength`` over the models, in the config's order. One
row never meets another, so the floats are the same however rows are cut into batches. Thresholds are inclusive and
compared with the float as it is: one rule of weight 0.1 scores 1 - (1 - 0.1) = 0.09999999999999998, below 0.1. A
black list weighs 1, so its score is 1 and its level ``block``; what a white list has scores 0 whatever else fired.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.kernels import kernel
from schemas.verdicts import PASS


def rule_keep(fired: NDArray[np.uint8], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the rules leave of 1: the product of ``1 - weight`` over the rules that fired.

    Parameters
    ----------
    fired
        uint8[n, rules]: not 0 where the rule fired.
    weights
        float64[rules], 0..1, in the config's order.

    Returns
    -------
    float64[n], 0..1.

    Examples
    --------
    >>> fired = np.array([[0, 0], [1, 0], [1, 1]], np.uint8)
    >>> rule_keep(fired, np.array([0.5, 0.6])).tolist()
    [1.0, 0.5, 0.2]
    """
    if fired.ndim != 2 or weights.shape != fired.shape[1:]:
        raise ValueError(f"expected a weight for each rule, got {weights.shape} for {fired.shape}")
    keep = np.empty(fired.shape[0])
    _rule_keep(fired, 1.0 - weights, keep)
    return keep


def let_pass(white: NDArray[np.bool_], score: NDArray[np.float64], level: NDArray[np.uint8]) -> None:
    """Set score and level of the rows that a white list has to 0 and ``pass``.

    Examples
    --------
    >>> score, level = np.array([1.0, 0.7]), np.array([3, 2], np.uint8)
    >>> let_pass(np.array([True, False]), score, level)
    >>> score.tolist(), level.tolist()
    ([0.0, 0.7], [0, 2])
    """
    score[white], level[white] = 0.0, PASS


def teaches(
    keep: NDArray[np.float64],
    review_threshold: float,
    eligible: NDArray[np.uint8],
    white: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Which rows unsupervised models may learn: not late, and below ``review`` by lists and rules alone.

    No model has a say in what it learns itself, or it would soon take its own verdict for the truth.

    Parameters
    ----------
    keep
        float64[n] of :func:`rule_keep`.
    review_threshold
        Lowest score of the level ``review``.
    eligible
        uint8[n]: not 0 where the row may teach at all (it is not late).
    white
        bool[n]: whether a white list has the row, which is then below every level.

    Examples
    --------
    >>> white = np.array([False, False, True, False])
    >>> teaches(np.array([1.0, 0.4, 0.4, 1.0]), 0.6, np.array([1, 1, 1, 0], np.uint8), white).tolist()
    [1, 0, 1, 0]
    """
    clean: NDArray[np.bool_] = ((1.0 - keep < review_threshold) | white) & (eligible != 0)
    return clean.astype(np.uint8)


def combine(
    keep: NDArray[np.float64],
    strengths: NDArray[np.float64],
    weights: NDArray[np.float64],
    levels: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Score and level of each row from the rules and all models.

    Parameters
    ----------
    keep
        float64[n] of :func:`rule_keep`.
    strengths
        float64[models, n], 0..1.
    weights
        float64[models], 0..1.
    levels
        float64[3], ascending: lowest scores of observe, review and block.

    Returns
    -------
    score, level
        float64[n], 0..1, and uint8[n], index into :data:`schemas.verdicts.LEVELS`.

    Examples
    --------
    >>> levels = np.array([0.3, 0.6, 0.85])
    >>> score, level = combine(np.array([1.0, 0.5]), np.array([[0.0, 1.0]]), np.array([0.3]), levels)
    >>> score.tolist(), level.tolist()
    ([0.0, 0.65], [0, 2])
    """
    if strengths.shape != (weights.size, keep.size):
        raise ValueError(f"expected strengths of shape {(weights.size, keep.size)}, got {strengths.shape}")
    score, level = np.empty(keep.size), np.empty(keep.size, np.uint8)
    _combine(keep, strengths, weights, levels, score, level)
    return score, level


@kernel
def _rule_keep(
    fired: NDArray[np.uint8], left_by_rule: NDArray[np.float64], keep: NDArray[np.float64]
) -> None:
    for row in range(fired.shape[0]):
        left = 1.0
        for rule in range(fired.shape[1]):
            if fired[row, rule]:
                left *= left_by_rule[rule]
        keep[row] = left


@kernel
def _combine(
    keep: NDArray[np.float64],
    strengths: NDArray[np.float64],
    weights: NDArray[np.float64],
    levels: NDArray[np.float64],
    score: NDArray[np.float64],
    level: NDArray[np.uint8],
) -> None:
    for row in range(keep.size):
        left = keep[row]
        for model in range(weights.size):
            left *= 1.0 - weights[model] * strengths[model, row]
        score[row] = 1.0 - left
        reached = 0
        for threshold in levels:
            reached += score[row] >= threshold
        level[row] = reached

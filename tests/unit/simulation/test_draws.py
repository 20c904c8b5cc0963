"""Draws: the same for the same counter, even, and of no stream like another."""

from __future__ import annotations

import numpy as np

from simulation.draws import Draws, act_counters

MANY = np.arange(200_000)


def test_a_draw_depends_on_its_counter_alone() -> None:
    whole = Draws(3).unit("age", MANY)
    pieces = np.concatenate([Draws(3).unit("age", part) for part in np.array_split(MANY[::-1], 7)])
    assert (pieces[::-1] == whole).all()


def test_streams_and_seeds_have_nothing_in_common() -> None:
    base = Draws(3).unit("age", MANY)
    for other in (Draws(4).unit("age", MANY), Draws(3).unit("size", MANY), Draws(3).unit("age", MANY + 1)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.01


def test_draws_are_even_and_normal() -> None:
    draws = Draws(1)
    shares = np.histogram(draws.unit("u", MANY), bins=20, range=(0, 1))[0] / len(MANY)
    assert abs(shares - 0.05).max() < 0.003
    normal = draws.normal("n", MANY)
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs((normal > 1.96).mean() - 0.025) < 0.002


def test_weights_are_kept() -> None:
    picked = np.bincount(Draws(1).pick("p", MANY, np.array([1.0, 0.0, 3.0])), minlength=3) / len(MANY)
    assert abs(picked - [0.25, 0, 0.75]).max() < 0.005


def test_acts_have_counters_of_their_own() -> None:
    counters = act_counters(np.arange(1_000), 9)
    assert counters.shape == (1_000, 9)
    assert len(np.unique(counters)) == 9_000

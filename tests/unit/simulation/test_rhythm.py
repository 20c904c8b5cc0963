"""The rhythm: times and shares are each other's inverse, nights are quiet, and after the end it goes on evenly."""

from __future__ import annotations

import numpy as np

from simulation.rhythm import Rhythm

START_MS = 1_772_380_800_000  # midnight in Shanghai
DAY_MS = 86_400_000


def test_times_and_shares_are_inverse_and_ascend() -> None:
    rhythm = Rhythm(start_ms=START_MS, duration_ms=3 * DAY_MS)
    shares = np.linspace(0, 1, 10_001)
    times = rhythm.time_at(shares)
    assert times[0] == START_MS
    assert times[-1] == START_MS + 3 * DAY_MS
    assert (np.diff(times) > 0).all()
    assert abs(rhythm.share_at(times) - shares).max() < 1e-9


def test_the_evening_is_busy_where_the_campaign_is() -> None:
    rhythm = Rhythm(start_ms=START_MS, duration_ms=3 * DAY_MS)
    hours = rhythm.share_at(START_MS + 3_600_000 * np.arange(73, dtype=np.float64))
    visits = np.diff(hours).reshape(3, 24).sum(axis=0)
    assert int(visits.argmax()) in (20, 21)
    assert int(visits.argmin()) in (3, 4)
    assert visits.max() > 10 * visits.min()


def test_it_never_stops() -> None:
    rhythm = Rhythm(start_ms=START_MS, duration_ms=DAY_MS)
    assert rhythm.time_at(np.array([1.5]))[0] == START_MS + 1.5 * DAY_MS

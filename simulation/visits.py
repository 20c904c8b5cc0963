"""The visits of honest people: first ones, and those of whoever comes back, all from the visit's number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulation.acts import (
    ACTS,
    CLICK,
    EXPOSURE,
    LANDING,
    PARTICIPATE,
    RULES,
    SIGNUP,
    Visits,
)
from simulation.draws import Draws, act_counters
from simulation.people import People
from simulation.rhythm import Rhythm

RETURNS_EVERY = 4
"""Of so many visits one is by somebody who has been here before."""
_BACK_AFTER_MS, _BACK_WITHIN_MS = 2 * 3_600_000, 48 * 3_600_000
"""Nobody is back sooner, and nobody is remembered longer."""
_EARLY_GUESTS = 1 << 40
"""Numbers of those who come in the stead of returning people while there is nobody yet to return."""
_RETURN = np.array([0.25, 0.75, 0.90, 0.30, 0.0, 0.55, 0.45, 0.12, 0.20])
"""The chance of each act of a later visit."""
_MEDIAN_DWELL_MS = np.array([1, 3_500, 900, 16_000, 21_000, 14_000, 24_000, 9_000, 45_000], np.float64)
_DWELL_SPREAD = np.array([0, 0.8, 0.6, 0.9, 0.7, 0.8, 0.9, 0.8, 0.9])
_LONGEST_DWELL_MS = 240_000.0


def human_dwell(draws: Draws, keys: NDArray[np.uint64], pace: NDArray[np.float64]) -> NDArray[np.int64]:
    """int64[n, len(ACTS)]: ms before each act, log-normal, for people ``pace`` times as quick as others."""
    spread = _DWELL_SPREAD * draws.normal("dwell", act_counters(keys, len(ACTS)))
    return np.asarray(
        np.clip(_MEDIAN_DWELL_MS * np.exp(spread) / pace[:, None], 40, _LONGEST_DWELL_MS).astype(np.int64)
    )


class HonestVisits:
    """Visit 0, 1, 2 ... of a campaign.

    Parameters
    ----------
    draws, rhythm
        The campaign's seed and its hours.
    visits
        How many visits the campaign has; later ones begin at its end.
    """

    def __init__(self, draws: Draws, rhythm: Rhythm, visits: int) -> None:
        self._draws, self._rhythm, self.visits = draws, rhythm, visits
        self.people = People(draws)

    def begin_ms(self, number: int) -> float:
        """No visit from this number on begins earlier."""
        return float(self._rhythm.time_at(np.array([number / self.visits]))[0])

    def take(self, numbers: NDArray[np.int64]) -> Visits:
        """Visits of these numbers, ascending; each begins a little after its turn, so that gaps are uneven."""
        draws, people = self._draws, self.people
        wait = -20.0 * np.log1p(-draws.unit("wait", numbers))
        start_ms = self._rhythm.time_at((numbers + wait) / self.visits)
        persons, again = self._persons(numbers, start_ms)
        who = people.visitors(persons)
        keys = draws.bits("visit", numbers)
        pace = np.exp(0.3 * draws.normal("pace", persons))
        acts = np.where(again[:, None], self._later_acts(numbers, persons), self._first_acts(persons))
        thrifty = np.zeros(len(numbers), np.bool_)
        return Visits(keys, start_ms.astype(np.int64), who, acts, human_dwell(draws, keys, pace), thrifty)

    def _persons(
        self, numbers: NDArray[np.int64], start_ms: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Who comes: the next new one, or somebody of those who came lately but are surely gone by now."""
        new = numbers - numbers // RETURNS_EVERY
        newest = self._new_before(start_ms - _BACK_AFTER_MS) - 200
        oldest = self._new_before(start_ms - _BACK_WITHIN_MS)
        turn = numbers % RETURNS_EVERY == RETURNS_EVERY - 1
        again = turn & (newest > oldest)
        back = oldest + (self._draws.unit("who_returns", numbers) * (newest - oldest)).astype(np.int64)
        return np.where(again, back, np.where(turn, _EARLY_GUESTS + numbers, new)), again

    def _new_before(self, time_ms: NDArray[np.float64]) -> NDArray[np.int64]:
        """int64[n]: how many people's first visit had its turn before a time."""
        visits = (self._rhythm.share_at(time_ms) * self.visits).astype(np.int64)
        return visits - visits // RETURNS_EVERY

    def _first_acts(self, persons: NDArray[np.int64]) -> NDArray[np.bool_]:
        acts = np.stack([self.people.wants(persons, act) for act in range(len(ACTS))], axis=1)
        acts[:, CLICK + 1 :] &= acts[:, [CLICK]]
        acts[:, SIGNUP + 1 :] &= acts[:, [SIGNUP]]
        acts[:, PARTICIPATE + 1 :] &= acts[:, [PARTICIPATE]]
        return acts

    def _later_acts(self, numbers: NDArray[np.int64], persons: NDArray[np.int64]) -> NDArray[np.bool_]:
        acts = self._draws.chance("later_act", act_counters(numbers, len(ACTS)), _RETURN)
        acts[:, LANDING] |= ~acts.any(axis=1)
        strangers = ~self.people.are_members(persons)
        acts[:, SIGNUP:] &= ~strangers[:, None]
        acts[:, EXPOSURE] |= strangers
        acts[:, RULES] &= acts[:, LANDING]
        return acts

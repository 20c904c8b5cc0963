"""The campaign itself: honest visits and parties, cut into slices of time and merged into one stream of events."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.acts import EVENT, Visits, events_of
from simulation.breaks import Break
from simulation.draws import Draws
from simulation.parties import KINDS, SIZES, Parties, Party
from simulation.rendering import Table, as_table
from simulation.rhythm import Rhythm
from simulation.visits import HonestVisits

FEWEST_SLICE_VISITS, MOST_SLICE_VISITS = 8_192, 65_536
"""Honest visits that are made at once, some 30,000 to 250,000 events: more where more is always unfinished."""
_SLICES = 128
PARTY_SHARE = 0.12
"""Of all events, what wool parties do."""
_SAMPLE_VISITS = 32_768
_SPARE_VISITS = 50
_EVENTS_AN_ACCOUNT = 6.1
_SMALL_EVENTS = 60_000
"""In smaller campaigns parties have fewer accounts, so that they remain a small part."""
_FEWEST_ACCOUNTS = 12
_LEAST_LASTS_MS, _MOST_LASTS_MS = 2 * 3_600_000, 6 * 3_600_000
_LONGEST_PART = 0.15
"""No party lasts a larger part of the campaign."""
_SPARE = 1.005
"""So much more is planned, and cut off; if chance still leaves a campaign short, visits go on behind its end."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """Everything that happens in a simulated campaign; the same parameters give the same events, to the byte.

    Parameters
    ----------
    seed
        Of all random numbers.
    events
        How many events there are, exactly; at least 1. Below 5,000 a campaign has hardly more than its parties.
    start_ms, duration_ms
        When visits begin; the last of them may end some minutes later.
    break_
        A step that fails for a while, if any.

    Notes
    -----
    Memory: a slice, and what has begun but is not over: some half an hour of honest events and some hours of
    parties', 118 bytes each. It grows with the events of an hour, not with those of the campaign.
    """

    seed: int
    events: int
    start_ms: int
    duration_ms: int
    break_: Break | None = None

    def batches(self) -> Iterator[Table]:
        """pyarrow.Tables of the fields of an event, ``label`` and the truth; ts ascends within and between."""
        left = self.events
        for events in self._slices():
            if len(events) > 0:
                yield as_table(events[:left])
            left -= len(events)
            if left <= 0:
                return

    def parties(self) -> Iterator[Party]:
        """All that are planted, as they begin. The last may lie behind the last event."""
        plans = [self._parties_of(kind) for kind in SIZES]
        return heapq.merge(*plans, key=lambda party: (party.begin_ms, party.kind))

    def _slices(self) -> Iterator[NDArray[np.void]]:
        """EVENT[n], in order: of each slice of visits what is surely complete."""
        draws = Draws(self.seed)
        honest, parties = self._honest_visits(draws), Parties(draws)
        coming, held = self.parties(), np.empty(0, EVENT)
        next_party = next(coming, None)
        size = min(max(honest.visits // _SLICES, FEWEST_SLICE_VISITS), MOST_SLICE_VISITS)
        for first in itertools.count(0, size):
            until_ms = honest.begin_ms(first + size)
            made = [held, self._events(honest.take(np.arange(first, first + size)), draws)]
            while next_party is not None and next_party.begin_ms < until_ms:
                made.append(self._events(parties.visits(next_party), draws))
                next_party = next(coming, None)
            events = np.concatenate(made)
            over = events["ts"] < until_ms
            held, ready = events[~over], events[over]
            yield ready[np.lexsort((ready["key"], ready["ts"]))]

    def _events(self, visits: Visits, draws: Draws) -> NDArray[np.void]:
        return events_of(visits, draws, self.break_)

    def _honest_visits(self, draws: Draws) -> HonestVisits:
        """As many visits as make the events that parties leave, and some to spare."""
        rhythm = Rhythm(start_ms=self.start_ms, duration_ms=self.duration_ms)
        sample = HonestVisits(draws, rhythm, _SAMPLE_VISITS).take(np.arange(_SAMPLE_VISITS))
        events_a_visit = float(np.count_nonzero(sample.acts)) / _SAMPLE_VISITS
        planted = (
            sum(sum(self._sizes(kind)) / 2 * self._number_of(kind) for kind in SIZES) * _EVENTS_AN_ACCOUNT
        )
        honest = max(self.events * 0.5, self.events - planted)
        return HonestVisits(draws, rhythm, int(honest * _SPARE / events_a_visit) + _SPARE_VISITS)

    def _sizes(self, kind: int) -> tuple[int, int]:
        """Fewest and most accounts of a party."""
        scale = min(1.0, self.events / _SMALL_EVENTS)
        least, most = SIZES[kind]
        return max(_FEWEST_ACCOUNTS, int(least * scale)), max(_FEWEST_ACCOUNTS, int(most * scale))

    def _number_of(self, kind: int) -> int:
        events_a_party = sum(self._sizes(kind)) / 2 * _EVENTS_AN_ACCOUNT
        return max(1, round(self.events * PARTY_SHARE / len(SIZES) / events_a_party))

    def _parties_of(self, kind: int) -> Iterator[Party]:
        """Those of one kind, as they begin."""
        draws, parties = Draws(self.seed), self._number_of(kind)
        least, most = self._sizes(kind)
        for number in range(parties):
            when, size, length = (
                float(draws.unit(f"plan/{KINDS[kind]}/{what}", np.array([number]))[0])
                for what in ("when", "size", "length")
            )
            begin_ms = self.start_ms + self.duration_ms * (0.02 + 0.72 * (number + when) / parties)
            lasts_ms = min(
                _LEAST_LASTS_MS + length * (_MOST_LASTS_MS - _LEAST_LASTS_MS),
                self.duration_ms * _LONGEST_PART,
            )
            yield Party(kind, number, least + int(size * (most - least + 1)), int(begin_ms), int(lasts_ms))

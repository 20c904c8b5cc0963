"""Which incidents the flagged events of one judge partition belong to, and what each of them amounts to.

Pure: a function of the verdicts, in any cut. Late events count nowhere. Memory is bounded: a partition tells apart
some thousand incidents, and what comes beyond them in a period counts in one of dimension ``rest``, by reason; nothing
is left out. It fails where accounts share nothing that a rule looks at: then all that is known is the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.entities import entity_keys
from detectors.entity_texts import entity_text
from detectors.incident_tally import FlaggedRows, Tally, pack_tallies, unpack_tallies
from detectors.incident_ties import Tie, pseudonym_kind, ties_of
from schemas.config import Alerts, Config
from schemas.errors import StateError
from schemas.events import INTEGER_FIELDS
from schemas.incidents import REST, UNTIED, Incident, incident_block
from schemas.keys import KeyRing, mix
from schemas.partials import Block
from schemas.pseudonyms import Pseudonyms
from schemas.verdicts import REVIEW, Verdicts

MOST_INCIDENTS = 8192
"""That a partition holds apart; each costs some 600 bytes and 8 for an account, at most 8 KiB more."""
_FEWEST_A_PERIOD = 64
_SPARE_PERIODS = 4
_VERSION = 1
_ONE = np.uint64(1)
_COST = INTEGER_FIELDS.index("cost_minor")


class Incidents:
    """Counts flagged events by incident and hands over what changed.

    Parameters
    ----------
    config
        Rules and the block ``alerts``.
    ring
        For keys and pseudonyms.
    source
        Number of the judge partition, as blocks carry it.
    most_incidents
        How many are told apart.
    """

    def __init__(
        self, config: Config, ring: KeyRing, *, source: int, most_incidents: int = MOST_INCIDENTS
    ) -> None:
        self._ring, self._source, self._pseudonyms = ring, source, Pseudonyms(ring, capacity=1 << 12)
        self._alerts, self._lateness_ms = config.alerts, config.lateness_ms
        self._ties = ties_of(config)
        self._tie_keys = np.array([self._key(tie, tie.entity) for tie in self._ties], np.uint64)
        self._kept_periods = _SPARE_PERIODS + -(-config.lateness_ms // config.alerts.period_ms)
        self._most_a_period = max(_FEWEST_A_PERIOD, most_incidents // self._kept_periods)
        self._periods: dict[int, dict[int, Tally]] = {}
        self._settled: set[int] = set()
        self._front_ms = self._forgotten_ms = np.iinfo(np.int64).min
        self.missed_events = 0
        """Flagged events of periods that are long over: one topic was read days behind the other."""

    def update(self, verdicts: Verdicts) -> None:
        """Count the verdicts of one turn."""
        ts_ms = verdicts.batch.integers[0, verdicts.rows]
        on_time = verdicts.late == 0
        flagged = np.flatnonzero(on_time & (verdicts.level >= REVIEW))
        if len(flagged):
            self._count(verdicts, flagged, ts_ms[flagged])
        if on_time.any():
            self._front_ms = max(self._front_ms, int(ts_ms[on_time].max()))
            self._close()

    def changed_blocks(self, turn: int) -> list[Block]:
        """Absolute counts of the incidents that changed since the last call, as of ``turn``.

        What is handed over counts as published: a snapshot must not become durable before the blocks of all calls
        before it are.
        """
        blocks = []
        for tallies in self._periods.values():
            for tally in tallies.values():
                if tally.changed:
                    tally.changed = False
                    blocks.append(
                        incident_block(tally.incident, tally.counts(), source=self._source, turn=turn)
                    )
        self._forget()
        return blocks

    # -- state ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, NDArray[Any] | bytes]:
        """The whole state."""
        numbers = [_VERSION, self._front_ms, self._forgotten_ms, self.missed_events]
        tallies = (pair for period in self._periods.values() for pair in period.items())
        return {"numbers": np.array(numbers, np.int64), "tallies": pack_tallies(tallies)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a snapshot, perhaps of another config, or nothing of a version that knew no incidents.

        Raises
        ------
        StateError
            The snapshot is of an unknown version.
        """
        if not state:
            return
        version, self._front_ms, self._forgotten_ms, self.missed_events = state["numbers"].tolist()
        if version != _VERSION:
            raise StateError(f"incidents in format {version}; expected {_VERSION}")
        for key, tally in unpack_tallies(bytes(state["tallies"])):
            self._periods.setdefault(tally.incident.start_ms, {})[key] = tally

    # -- counting ------------------------------------------------------------------------------------------------

    def _count(self, verdicts: Verdicts, flagged: NDArray[np.int64], ts_ms: NDArray[np.int64]) -> None:
        row_of, codes = _reasons(verdicts, flagged)
        tie, entity = self._tie(verdicts, flagged, row_of, codes)
        period_ms = self._alerts.period_ms
        start_ms = ts_ms // period_ms * period_ms
        outdated = start_ms <= self._forgotten_ms
        self.missed_events += int(np.count_nonzero(outdated))
        counted = np.flatnonzero((tie >= 0) & ~outdated)
        if not len(counted):
            return
        rows = verdicts.rows[flagged]
        campaign = entity_keys(verdicts.batch, "campaign", self._ring)[rows]
        keys = mix(mix(self._tie_keys[tie], np.maximum(entity, _ONE)), np.maximum(campaign, _ONE))
        tallies, tally_of = self._tallies(verdicts, counted, tie, keys, start_ms, rows, entity)
        columns = FlaggedRows(
            ts_ms=ts_ms,
            cost_minor=verdicts.batch.integers[_COST, rows],
            level=verdicts.level[flagged],
            user_keys=verdicts.user_keys[flagged],
            users=verdicts.user[flagged],
        )
        _add_rows(tallies, tally_of, counted, columns, self._alerts)
        _add_reasons(tallies, tally_of, counted, row_of, codes, verdicts)

    def _tie(
        self,
        verdicts: Verdicts,
        flagged: NDArray[np.int64],
        row_of: NDArray[np.int64],
        codes: NDArray[np.int32],
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Index of the tie of each flagged row, -1 for a row without any reason, and the entity's key or 0."""
        known = {name: code for code, name in enumerate(verdicts.reason_names)}
        chosen = np.full(len(flagged), -1, np.int64)
        entity = np.zeros(len(flagged), np.uint64)
        keys_of = cache(lambda kind: entity_keys(verdicts.batch, kind, self._ring)[verdicts.rows[flagged]])
        reasons = [row_of[codes == known.get(tie.name, -1)] for tie in self._ties]
        for number, (tie, having) in enumerate(zip(self._ties, reasons, strict=True)):
            mine = having[chosen[having] < 0]
            if tie.entity is not None and len(mine):
                mine = mine[keys_of(tie.entity)[mine] != 0]
                chosen[mine], entity[mine] = number, keys_of(tie.entity)[mine]
        for number, having in enumerate(reasons):
            chosen[having[chosen[having] < 0]] = number
        return chosen, entity

    def _tallies(
        self,
        verdicts: Verdicts,
        counted: NDArray[np.int64],
        tie: NDArray[np.int64],
        keys: NDArray[np.uint64],
        start_ms: NDArray[np.int64],
        rows: NDArray[np.int64],
        entity: NDArray[np.uint64],
    ) -> tuple[list[Tally], NDArray[np.int64]]:
        """The tallies of the counted rows, made in the order in which they first come; for each row which one."""
        periods = ((start_ms - start_ms.min()) // self._alerts.period_ms + 1).astype(np.uint64)
        _, firsts, group = np.unique(mix(keys, periods)[counted], return_index=True, return_inverse=True)
        places: dict[int, int] = {}
        tallies: list[Tally] = []
        tally_of_group = np.empty(len(firsts), np.int64)
        for number in np.argsort(firsts).tolist():
            at = counted[firsts[number]]
            tied = self._ties[tie[at]]
            tally = self._find(
                verdicts, int(rows[at]), tied, int(keys[at]), int(start_ms[at]), has_entity=bool(entity[at])
            )
            place = places.setdefault(id(tally), len(tallies))
            if place == len(tallies):
                tallies.append(tally)
            tally_of_group[number] = place
        return tallies, tally_of_group[group]

    def _find(
        self, verdicts: Verdicts, row: int, tie: Tie, key: int, start_ms: int, *, has_entity: bool
    ) -> Tally:
        """The tally of an incident, made if it is new; that of the rest if there are too many."""
        period = self._periods.setdefault(start_ms, {})
        if (tally := period.get(key)) is not None:
            return tally
        batch = verdicts.batch
        incident = Incident(tie.name, UNTIED, None, None, start_ms, self._alerts.period_ms)
        if len(period) >= self._most_a_period:
            key = self._key(tie, REST)
            incident = msgspec.structs.replace(incident, dim=REST)
        elif has_entity and tie.entity is not None:
            text = entity_text(batch, tie.entity, row)
            pseudonym = self._pseudonyms.pseudonym(pseudonym_kind(tie.entity), text)
            incident = msgspec.structs.replace(
                incident, dim=tie.entity, dim_value=pseudonym, campaign=batch.text("campaign", row)
            )
        else:
            incident = msgspec.structs.replace(incident, campaign=batch.text("campaign", row))
        self._settled.discard(start_ms)
        return period.setdefault(key, Tally(incident))

    def _key(self, tie: Tie, dim: str | None) -> int:
        return self._ring.key_of("incident", f"{tie.name}\0{dim}\0{self._alerts.period_ms}")

    # -- ending --------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Note which incidents nothing can be added to any more by events in time."""
        for start_ms in self._periods.keys() - self._settled:
            tallies = self._periods[start_ms].values()
            for tally in tallies:
                if not tally.over and tally.incident.end_ms + self._lateness_ms <= self._front_ms:
                    tally.over = tally.changed = True
            if all(tally.over for tally in tallies):
                self._settled.add(start_ms)

    def _forget(self) -> None:
        """Drop the oldest periods beyond those that may still change, once they are over and published."""
        for start_ms in sorted(self._periods)[: -self._kept_periods]:
            if start_ms in self._settled:
                self._settled.remove(start_ms)
                del self._periods[start_ms]
                self._forgotten_ms = max(self._forgotten_ms, start_ms)


def _reasons(verdicts: Verdicts, flagged: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Reasons of the flagged rows, one after the other: which flagged row, and which code."""
    starts = verdicts.reason_offsets[flagged].astype(np.int64)
    lengths = verdicts.reason_offsets[flagged + 1] - starts
    row_of = np.repeat(np.arange(len(flagged)), lengths)
    before = np.cumsum(lengths) - lengths
    return row_of, verdicts.reason_codes[np.arange(len(row_of)) + np.repeat(starts - before, lengths)]


def _add_rows(
    tallies: list[Tally],
    tally_of: NDArray[np.int64],
    counted: NDArray[np.int64],
    columns: FlaggedRows,
    alerts: Alerts,
) -> None:
    order = np.argsort(tally_of, kind="stable")
    edges = np.searchsorted(tally_of[order], np.arange(len(tallies) + 1))
    for tally, (start, stop) in zip(tallies, pairwise(edges.tolist()), strict=True):
        rows = counted[order[start:stop]]
        tally.add(columns, rows, min_users=alerts.min_users, min_events=alerts.min_events)


def _add_reasons(
    tallies: list[Tally],
    tally_of: NDArray[np.int64],
    counted: NDArray[np.int64],
    row_of: NDArray[np.int64],
    codes: NDArray[np.int32],
    verdicts: Verdicts,
) -> None:
    tally_of_row = np.full(int(row_of.max()) + 1, -1, np.int64)
    tally_of_row[counted] = tally_of
    tallied = tally_of_row[row_of]
    names = verdicts.reason_names
    pairs, counts = np.unique((tallied * len(names) + codes)[tallied >= 0], return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        tally, name = tallies[pair // len(names)], names[pair % len(names)]
        tally.reasons[name] = tally.reasons.get(name, 0) + count
        tally.config_hash = verdicts.config_hash

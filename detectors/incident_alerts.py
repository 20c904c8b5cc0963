"""From what all partitions counted of an incident to what people are told: once that it is there, once that it is over.

Pure. An incident is told when its counts over all partitions pass the config's thresholds; counts only grow, so which
incidents are told follows from the verdicts alone. It is resolved when every partition that has anything of it says
that its period and the lateness are past; a number that comes later still changes nothing that was told.
"""

from __future__ import annotations

from collections.abc import Iterator

from detectors.incident_tally import MOST_USERS
from detectors.incident_texts import texts_of
from schemas.alerts import OPEN, RESOLVED, WOOL_PARTY, Alert, State, alert_id
from schemas.config import Config
from schemas.incidents import Incident, IncidentCounts, added, counts_of, incident_of
from schemas.partials import Block, BlockKey

TOLD = -1
"""Source of the block that notes what was told: as ``turn`` 1 that an incident opened, 2 that it is over as well."""
_TURN_OF = {OPEN: 1, RESOLVED: 2}
MOST_KEPT = 20_000
"""Incidents of which those that are over are kept, so that a partition that lags still adds to them."""
_LARGEST_EXACT = 1 << 53


class IncidentAlerts:
    """The incidents of the blocks that one process merges.

    Memory: some 500 bytes a block; what is over goes by :meth:`forget`.

    Parameters
    ----------
    config
        For thresholds and sentences.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._blocks: dict[BlockKey, dict[int, Block]] = {}
        self._changed: set[BlockKey] = set()

    def put(self, block: Block) -> bool:
        """Take a block of a source, or a note of what was told; false where a newer one is held."""
        held = self._blocks.setdefault(block.key, {}).get(block.source)
        if held is not None and held.turn > block.turn:
            return False
        self._blocks[block.key][block.source] = block
        self._changed.add(block.key)
        return True

    def due(self) -> list[tuple[Alert, Block]]:
        """What is to be told now, openings before endings, and for each the note that it was told.

        The same comes again until :meth:`told` was given the note.
        """
        found: list[tuple[Alert, Block]] = []
        for key in sorted(self._changed, key=_order):
            found += self._due_of(key)
        self._changed = {note.key for _, note in found}
        return found

    def told(self, note: Block) -> None:
        """Take the note of an alert that is told, right after :meth:`due` gave it."""
        self.put(note)
        self._changed.discard(note.key)

    def _due_of(self, key: BlockKey) -> Iterator[tuple[Alert, Block]]:
        blocks = self._blocks[key]
        note = blocks.get(TOLD)
        told = 0 if note is None else note.turn
        parts = [counts_of(blocks[source]) for source in sorted(blocks) if source != TOLD]
        if not parts:
            return
        incident, counts, alerts = incident_of(key), added(parts), self._config.alerts
        if not told and (counts.users < alerts.min_users or counts.events < alerts.min_events):
            return
        for state in (OPEN, RESOLVED) if counts.over else (OPEN,):
            if told < _TURN_OF[state]:
                alert = _alert(incident, counts, state, self._config)
                yield alert, Block(key, TOLD, _TURN_OF[state], b"")

    def forget(self, keep: int = MOST_KEPT) -> list[tuple[BlockKey, int]]:
        """Drop the oldest that are over, told or never worth it, beyond ``keep``; (key, source) of their blocks.

        A block that comes again afterwards, after a crash for instance, is told again under the same id.
        """
        if len(self._blocks) <= keep:
            return []
        done = [key for key, blocks in self._blocks.items() if key not in self._changed and _is_done(blocks)]
        gone = sorted(done, key=_order)[: len(self._blocks) - keep]
        return [(key, source) for key in gone for source in self._blocks.pop(key)]


def _is_done(blocks: dict[int, Block]) -> bool:
    note = blocks.get(TOLD)
    if note is not None and note.turn < _TURN_OF[RESOLVED]:
        return False
    return all(counts_of(block).over for source, block in blocks.items() if source != TOLD)


def _order(key: BlockKey) -> tuple[int, str, str, bool, str]:
    return key.start_ms or 0, key.name, key.scope, key.campaign is not None, key.campaign or ""


def _alert(incident: Incident, counts: IncidentCounts, state: State, config: Config) -> Alert:
    texts = texts_of(incident, counts, config, most_users=MOST_USERS)
    over = state == RESOLVED
    raised_ms = counts.last_ms if counts.raised_ms is None else counts.raised_ms
    return Alert(
        id=alert_id(
            WOOL_PARTY,
            incident.name,
            campaign=incident.campaign,
            dim=incident.dim,
            dim_value=incident.dim_value,
            incident=(incident.start_ms, incident.period_ms),
        ),
        kind=WOOL_PARTY,
        name=incident.name,
        state=state,
        severity="block" if counts.block else "review",
        campaign=incident.campaign,
        dim=incident.dim,
        dim_value=incident.dim_value,
        since_ms=counts.first_ms,
        ts_ms=incident.end_ms if over else raised_ms,
        title_zh=("已结束：" if over else "") + texts.title_zh,
        title_en=("Over: " if over else "") + texts.title_en,
        text_zh=("共计：" if over else "") + texts.text_zh,
        text_en=("In all: " if over else "") + texts.text_en,
        evidence=_evidence(counts),
        config_hash=counts.config_hash,
    )


def _evidence(counts: IncidentCounts) -> dict[str, object]:
    return {
        "users": counts.users,
        "users_at_least": counts.users >= MOST_USERS,
        "events": counts.events,
        "levels": {"review": counts.review, "block": counts.block},
        "costing_events": counts.costing,
        # Beyond that a reader's doubles would round.
        "cost_minor": min(counts.cost_minor, _LARGEST_EXACT),
        "first_ms": counts.first_ms,
        "last_ms": counts.last_ms,
        "accounts": list(counts.accounts),
        "reasons": dict(counts.reasons),
    }

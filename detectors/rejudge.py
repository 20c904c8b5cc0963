"""Judging recorded rows again: from what tables keep to score, level, reasons and evidence, by the judge's own code.

Recomputed from the row: every comparison of every rule, the texts and numbers of the evidence, the lists of what the
row has in the open (an event's name, its channel ...) or as a pseudonym of a user or a device, score and level.

Taken as recorded, for a verdict keeps no more of it: features and models' strengths; a forest's raw score and what each
input adds to a linear model, from the evidence; hits of lists of other entities (``ip``, ``phone`` ...), which must be
entries that the list has; and numbers and texts that rules read and rows lack (``lat``, ``lon``, ``attrs.*``), from the
evidence of rules that fired. A rule that reads these and did not fire is only decided again where the rest of its
condition says no; :attr:`Rejudged.undecided` counts the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.columns import Columns
from detectors.evidence import ModelScores
from detectors.key_index import NOTHING
from detectors.lists import ListBook
from detectors.recorded_rows import (
    KEPT_TEXTS,
    PSEUDONYM_OF,
    EvidenceReader,
    RecordedRows,
    ValuesOf,
    is_kept,
)
from detectors.scorer import Scorer
from detectors.supervised import linear_models, supervised_models
from schemas.config import Config
from schemas.keys import KeyRing
from schemas.pseudonyms import Pseudonyms


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What n rows come to; fields as of :class:`schemas.verdicts.Verdicts`.

    ``undecided`` is int64[rules]: for how many rows it is taken as recorded that the rule did not fire.
    """

    score: NDArray[np.float64]
    level: NDArray[np.uint8]
    reason_offsets: NDArray[np.int32]
    reason_codes: NDArray[np.int32]
    evidence_offsets: NDArray[np.int32]
    evidence_bytes: NDArray[np.uint8]
    reason_names: tuple[str, ...]
    undecided: NDArray[np.int64]


class Rejudge:
    """Judges recorded rows by one config.

    Parameters
    ----------
    config
        What to judge by: that of the rows, or another one over the same features and models.
    ring
        Of the installation: that of the pseudonyms.
    lists
        What the config's lists contain.
    values_of
        Gives the values of those lists of users or devices, as their files have them.

    Attributes
    ----------
    given_lists
        Names of the lists whose hits are taken as recorded.
    known_entities
        Which pseudonyms are read: those of lists that can be looked into.
    rule_names
        What :attr:`Rejudged.undecided` is about.
    """

    def __init__(self, config: Config, ring: KeyRing, lists: ListBook, values_of: ValuesOf) -> None:
        self._config, self._ring, self._lists = config, ring, lists
        self._scorer = Scorer(config, ring, lists)
        rules = self._scorer.rules
        self.rule_names = tuple(rule.name for rule in rules.rules)
        self._may_fire = rules.granting([used for used in rules.inputs if not is_kept(used)])
        self.given_lists = tuple(
            name
            for name, entity in zip(lists.names, lists.entities, strict=True)
            if entity not in KEPT_TEXTS and entity not in PSEUDONYM_OF
        )
        self._evidence = EvidenceReader(config, rules, lists, self.given_lists)
        self._known = {
            entity: _PseudonymKeys(entity, [value for name in names for value in values_of(name)], ring)
            for entity in PSEUDONYM_OF
            if (names := [name for name in lists.names if config.lists[name].entity == entity])
        }
        self.known_entities = tuple(self._known)
        self._linear, self._supervised = linear_models(config), supervised_models(config)

    def judge(self, recorded: RecordedRows) -> Rejudged:
        """Judge rows again; how they are cut into calls changes nothing."""
        batch, rows = recorded.batch, recorded.rows
        columns = Columns(batch, rows, self._config.features, self._ring)
        columns.features[:] = recorded.features
        inputs = columns.stack(self._scorer.rules.inputs)
        models = [
            self._model_scores(name, columns, strength)
            for name, strength in zip(self._config.models, recorded.strengths, strict=True)
        ]
        notes = {name: np.full(len(rows), NOTHING, np.int32) for name in self.given_lists}
        self._evidence.read(recorded.evidence, inputs, notes, models)
        keys = {entity: known.of(recorded.pseudonyms[entity]) for entity, known in self._known.items()}
        listed = self._lists.look(batch, rows, self._ring, known_keys=keys, known_notes=notes)
        ruled = self._scorer.rule(batch, rows, inputs, listed)
        scored = self._scorer.score(ruled, models)
        may_fire = self._may_fire.fired(inputs, self._scorer.event_numbers(batch, rows))
        fired = ruled.fired[:, len(self._lists.names) :]
        return Rejudged(
            scored.score,
            scored.level,
            scored.evidence.reason_offsets,
            scored.evidence.reason_codes,
            scored.evidence.json_offsets,
            scored.evidence.json_bytes,
            self._scorer.reason_names,
            undecided=np.count_nonzero(may_fire > fired, axis=0),
        )

    def _model_scores(self, name: str, columns: Columns, strength: NDArray[np.float64]) -> ModelScores:
        """What is known of a model without the evidence: a classifier's raw score is its strength."""
        x = columns.named(self._config.models[name].features)
        if name in self._linear:
            x = np.concatenate([x, np.full_like(x, np.nan)])
        raw = strength if name in self._supervised else np.full(len(strength), np.nan)
        return ModelScores(raw, strength, x)


class _PseudonymKeys:
    """Finds the keyed hash that lists know a value by, from the pseudonym that tables show."""

    def __init__(self, entity: str, values: list[str], ring: KeyRing) -> None:
        pseudonyms = Pseudonyms(ring)
        found: Mapping[str, int] = {
            pseudonyms.pseudonym(PSEUDONYM_OF[entity], value): ring.key_of(entity, value) for value in values
        }
        self._pseudonyms = np.array(sorted(found), "S32")
        self._keys = np.array([found[name] for name in sorted(found)], np.uint64)

    def of(self, pseudonyms: NDArray[np.bytes_]) -> NDArray[np.uint64]:
        """uint64[n]: 0 for what is none of the values, as for what is absent."""
        if not len(self._keys):
            return np.zeros(len(pseudonyms), np.uint64)
        place = np.minimum(np.searchsorted(self._pseudonyms, pseudonyms), len(self._keys) - 1)
        return np.where(self._pseudonyms[place] == pseudonyms, self._keys[place], np.uint64(0))

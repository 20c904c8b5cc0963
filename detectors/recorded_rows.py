"""What the tables keep of an event, and what its recorded evidence tells of the rest.

A row of ``verdicts/`` or ``late/`` has every feature and every model's strength, but of the event itself only what
:data:`KEPT_FIELDS` names, and pseudonyms. What else a rule, a list or a model has read is shown in the evidence of a
row where it was a reason, number for number; a row where it was none tells nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.evidence import ModelScores, Term
from detectors.evidence_layout import MODEL_PREFIX
from detectors.lists import ListBook, note_text
from detectors.rules import RuleProgram
from detectors.supervised import linear_models
from schemas.config import Config, HalfSpaceTrees
from schemas.events import EventBatch
from schemas.rule_tree import Input, InputKind

KEPT_TEXTS = ("event_id", "event", "channel", "campaign", "page", "platform", "variant")
KEPT_NUMBERS = ("dwell_ms", "amount_minor", "cost_minor")
KEPT_FIELDS = (*KEPT_TEXTS, *KEPT_NUMBERS)
PSEUDONYM_OF = {"user_id": "user", "device_id": "device"}
"""Entities whose pseudonym tells whether they are one of some given values."""


class RecordedRows(NamedTuple):
    """n rows that one config has judged.

    Parameters
    ----------
    batch, rows
        What the tables keep of the events, and int64[n]: which of them; the batch's other rows are none.
    features
        float64[features, n] in the config's order; NaN is null.
    strengths
        float64[models, n] in the config's order.
    evidence
        n texts, None where there is none. Whatever they say, nothing is raised.
    pseudonyms
        S32[n] by kinds of PSEUDONYM_OF, those that lists are about; empty where absent.
    """

    batch: EventBatch
    rows: NDArray[np.int64]
    features: NDArray[np.float64]
    strengths: NDArray[np.float64]
    evidence: Sequence[str | None]
    pseudonyms: Mapping[str, NDArray[np.bytes_]]


def is_kept(used: Input) -> bool:
    """Whether a row has what a rule reads."""
    return used.kind is InputKind.FEATURE or used.name in KEPT_FIELDS


class EvidenceReader:
    """Reads from recorded evidence what the rows do not have.

    Parameters
    ----------
    config, rules, lists
        What the rows were judged by.
    given_lists
        Names of the lists whose hits are taken from the evidence.
    """

    def __init__(
        self, config: Config, rules: RuleProgram, lists: ListBook, given_lists: Sequence[str]
    ) -> None:
        self._rules = {rule.name: gaps for rule in rules.rules if (gaps := _gaps(rule.terms, rules.inputs))}
        self._notes = {name: lists.notes_of(name) for name in given_lists}
        linear = linear_models(config)
        self._models = {
            f"{MODEL_PREFIX}{name}": _ModelGaps(
                place,
                has_own_raw=isinstance(model, HalfSpaceTrees),
                inputs=[
                    (at, feature)
                    for at, feature in enumerate(model.features)
                    if feature not in config.features and feature not in KEPT_NUMBERS
                ],
                contributions=list(enumerate(model.features, len(model.features))) if name in linear else [],
            )
            for place, (name, model) in enumerate(config.models.items())
        }
        self._is_needed = bool(self._rules or self._notes or self._models)

    def read(
        self,
        evidence: Sequence[str | None],
        inputs: NDArray[np.float64],
        notes: Mapping[str, NDArray[np.int32]],
        models: Sequence[ModelScores],
    ) -> None:
        """Fill in what is told; what is not, or is no evidence of ours, stays as it is. Some 2 us a text.

        Parameters
        ----------
        evidence
            n texts.
        inputs
            float64[inputs, n] of the rules.
        notes
            int32[n] for each list that is given.
        models
            In the config's order.
        """
        if not self._is_needed:
            return
        for row, text in enumerate(evidence):
            if text is None:
                continue
            try:
                for said in orjson.loads(text):
                    self._take(said, row, inputs, notes, models)
            except (ValueError, TypeError, LookupError):
                continue  # not as we write it: then it differs from what is written again

    def _take(
        self,
        said: Any,  # noqa: ANN401 - foreign JSON
        row: int,
        inputs: NDArray[np.float64],
        notes: Mapping[str, NDArray[np.int32]],
        models: Sequence[ModelScores],
    ) -> None:
        reason = said["reason"]
        if "list" in said:
            if reason in self._notes:
                text = note_text(said["match"], said["why"], said["source"])
                notes[reason][row] = self._notes[reason][text]
        elif "terms" in said:
            for place, name, at, literal in self._rules.get(reason, ()):
                value = said["terms"][place]["value"]
                inputs[at, row] = _number(value, name) if literal is None else _equals(value, literal)
        elif reason in self._models:
            self._models[reason].take(said, row, models)


class _ModelGaps(NamedTuple):
    """What rows do not have of a model: its raw score, some inputs, what each input adds."""

    place: int
    has_own_raw: bool
    inputs: Sequence[tuple[int, str]]
    contributions: Sequence[tuple[int, str]]

    def take(self, said: Any, row: int, models: Sequence[ModelScores]) -> None:  # noqa: ANN401 - foreign JSON
        scores = models[self.place]
        if self.has_own_raw:
            scores.raw[row] = _number(said["raw"], "")
        for gaps, key in ((self.inputs, "inputs"), (self.contributions, "contributions")):
            for at, feature in gaps:
                scores.x[at, row] = _number(said[key], feature)


def _gaps(terms: Sequence[Term], inputs: Sequence[Input]) -> list[tuple[int, str, int, str | None]]:
    """Of the inputs that rows do not have: number of the term, name, row of ``inputs``, and the text of a text."""
    return [
        (place, name, at, str(term.threshold) if term.is_text else None)
        for place, term in enumerate(terms)
        for name, at in term.inputs
        if not is_kept(inputs[at])
    ]


def _number(value: Any, name: str) -> float:  # noqa: ANN401 - foreign JSON
    """A number as evidence shows it: alone, or among others by name."""
    found = value[name] if isinstance(value, dict) else value
    if found is None:
        return np.nan
    if type(found) not in (int, float):
        raise TypeError(f"expected a number, got {type(found)}")
    return float(found)


def _equals(value: object, literal: str) -> float:
    """Whether a text is the one that it is compared with, as evidence shows it."""
    if value is None:
        return np.nan
    if value == literal:
        return 1.0
    if value == {"not": literal}:
        return 0.0
    raise ValueError("neither the text nor that it is another")


ValuesOf = Callable[[str], Sequence[str]]
"""The values of a list, by its name."""

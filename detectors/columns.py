"""From events and answers to the numbers that rules and models read: one float64 column for each name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.entities import entity_keys
from detectors.inquiry import Question
from detectors.plan import Op, Plan
from schemas.config import Feature
from schemas.events import FLOAT_FIELDS, INTEGER_FIELDS, EventBatch
from schemas.kernels import kernel
from schemas.keys import KeyRing
from schemas.rule_tree import Input
from schemas.sightings import NULL_ANSWER, Answers

_MS_PER_S = 1000.0


class Columns:
    """Numbers of the judged rows of one batch.

    Parameters
    ----------
    batch, rows
        The events, and int64[j]: which of them are judged.
    definitions
        The config's features. Those that are plain fields are filled in here, the others by the answers.
    ring
        For comparing strings by their keyed hashes.
    """

    def __init__(
        self,
        batch: EventBatch,
        rows: NDArray[np.int64],
        definitions: Mapping[str, Feature],
        ring: KeyRing,
    ) -> None:
        self._batch, self._rows, self._ring = batch, rows, ring
        self._place = {name: place for place, name in enumerate(definitions)}
        self.features = np.full((len(definitions), len(rows)), np.nan)
        for name, feature in definitions.items():
            if feature.field is not None:
                self.features[self._place[name]] = self._field(feature.field)

    def named(self, names: Sequence[str]) -> NDArray[np.float64]:
        """float64[names, j]: features or numeric fields by name."""
        columns = np.empty((len(names), len(self._rows)))
        for place, name in enumerate(names):
            columns[place] = self._named(name)
        return columns

    def stack(self, inputs: Sequence[Input]) -> NDArray[np.float64]:
        """float64[inputs, j]: what a rule program reads, string comparisons as 1, 0 or NaN where absent."""
        columns = np.empty((len(inputs), len(self._rows)))
        for place, used in enumerate(inputs):
            if used.literal is None:
                columns[place] = self._named(used.name)
            else:
                columns[place] = self._equals(used.name, used.literal)
        return columns

    def _named(self, name: str) -> NDArray[np.float64]:
        return self.features[self._place[name]] if name in self._place else self._field(name)

    def _field(self, field: str) -> NDArray[np.float64]:
        batch, rows = self._batch, self._rows
        if field in INTEGER_FIELDS:
            values = batch.integers[INTEGER_FIELDS.index(field)][rows]
            return np.where(values < 0, np.nan, values.astype(np.float64))
        if field in FLOAT_FIELDS:
            numbers = batch.floats[FLOAT_FIELDS.index(field)]
        else:
            numbers = batch.attribute_numbers[batch.attributes.index(field.removeprefix("attrs."))]
        picked: NDArray[np.float64] = numbers[rows]
        return picked

    def _equals(self, field: str, literal: str) -> NDArray[np.float64]:
        keys = entity_keys(self._batch, field, self._ring)[self._rows]
        wanted = np.uint64(self._ring.key_of(field, literal))
        return np.where(keys == 0, np.nan, (keys == wanted).astype(np.float64))


class NameFinder:
    """Finds which of a few event names a row has, by keyed hash.

    Parameters
    ----------
    names
        The names; a row's result is an index into them.
    ring
        Keys.
    """

    def __init__(self, names: Sequence[str], ring: KeyRing) -> None:
        self._ring = ring
        keys = np.array([ring.key_of("event", name) for name in names], np.uint64)
        self._order = np.argsort(keys).astype(np.int32)
        self._keys = keys[self._order]

    def find(self, batch: EventBatch, rows: NDArray[np.int64], *, other: int) -> NDArray[np.int32]:
        """int32[j]: index of the row's name, ``other`` for a name that is not among them."""
        if not len(self._keys):
            return np.full(len(rows), other, np.int32)
        keys = entity_keys(batch, "event", self._ring)[rows]
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._order[place], np.int32(other))


class AnswerReader:
    """Writes the answers of all owners into the feature columns of one plan."""

    def __init__(self, plan: Plan) -> None:
        counts = [len(features) for features in plan.features_of_kind]
        self._first = np.cumsum([0, *counts]).astype(np.int64)
        flat = [plan.features[index] for features in plan.features_of_kind for index in features]
        self._columns = np.array([feature.column for feature in flat], np.int64)
        self._is_time = np.array([feature.op is Op.SINCE for feature in flat], np.uint8)

    def fill(
        self,
        questions: Mapping[int, Question],
        answers: Mapping[int, Answers],
        features: NDArray[np.float64],
    ) -> None:
        """Scatter every answer to (its feature, its row); what nobody was asked about stays as it is."""
        for owner, question in questions.items():
            if len(question.row):
                _scatter(
                    question.row,
                    question.kind,
                    answers[owner].values,
                    self._first,
                    self._columns,
                    self._is_time,
                    features,
                )


@kernel
def _scatter(
    row: NDArray[np.uint32],
    kind: NDArray[np.uint8],
    values: NDArray[np.int64],
    first: NDArray[np.int64],
    columns: NDArray[np.int64],
    is_time: NDArray[np.uint8],
    features: NDArray[np.float64],
) -> None:
    at = 0
    for i in range(row.shape[0]):
        for j in range(first[kind[i]], first[kind[i] + 1]):
            value = values[at]
            at += 1
            if value == NULL_ANSWER:
                features[columns[j], row[i]] = np.nan
            elif is_time[j]:
                features[columns[j], row[i]] = (value >> 1) / _MS_PER_S
            else:
                features[columns[j], row[i]] = value >> 1

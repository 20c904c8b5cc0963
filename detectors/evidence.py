"""Why a row was flagged: reason codes, and JSON that names each value beside the threshold it met.

A reason is a list that has the row or a rule that fired, under its name, or a model whose strength is above 0, as
``model:<name>``; lists come first, then rules, each in the config's order. A row without a reason has no codes and no
JSON (no bytes). Otherwise::

    [{"reason":"vpn_ranges","list":"grey","entity":"ip","match":"cidr","why":"rented servers","source":"ops"},
     {"reason":"shared_device","terms":[
        {"feature":"device_other_users_24h","value":3,"op":">=","threshold":2}]},
     {"reason":"model:anomaly","raw":0.93,"strength":0.5,"inputs":{"dwell_ms":120,"ip_other_users":null}}]

A linear model also says ``"contributions":{"dwell_ms":1.7,...}``: weight times scaled value of each input.

An attack flags every row, so nothing here is done per row in Python: :mod:`detectors.evidence_layout` lays
the text out between the numbers once per config, one call of orjson formats the numbers of a whole batch, and
a compiled loop joins both. About 0.6 us a flagged row with three reasons and 470 bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.evidence_layout import (
    MODEL_PREFIX,
    NO_WORDS,
    Layout,
    Term,
    lay_out,
    list_reason,
    model_reason,
    rule_reason,
    terms_of,
)
from detectors.lists import NO_LISTS, ListBook
from schemas.kernels import kernel

__all__ = ["Evidence", "EvidenceWriter", "ModelScores", "Term", "terms_of"]

LARGEST_TEXT = (1 << 31) - 1
"""Offsets of an Arrow string are int32."""
COMMA, POINT, ZERO, OPEN, CLOSE, NULL = b",.0[]n"
_NO_NOTES = np.empty((0, 0), np.int32)


class ModelScores(NamedTuple):
    """What a model made of a batch."""

    raw: NDArray[np.float64]
    """float64[n]: its own score."""
    strength: NDArray[np.float64]
    """float64[n]: 0..1; NaN where it has none."""
    x: NDArray[np.float64]
    """float64[features, n]: what it saw; NaN is null. Of a linear model what each input adds comes behind."""


class Evidence(NamedTuple):
    """Reasons of n rows as an Arrow list, their JSON as an Arrow string."""

    reason_offsets: NDArray[np.int32]
    """int32[n + 1]: row i has ``reason_codes[reason_offsets[i]:reason_offsets[i + 1]]``."""
    reason_codes: NDArray[np.int32]
    """Indexes into :attr:`EvidenceWriter.reason_names`."""
    json_offsets: NDArray[np.int32]
    """int32[n + 1]: row i has ``json_bytes[json_offsets[i]:json_offsets[i + 1]]``."""
    json_bytes: NDArray[np.uint8]


class EvidenceWriter:
    """Writes the evidence of batches judged under one config.

    Parameters
    ----------
    rules
        Name and terms of each rule, in the config's order; :func:`terms_of` makes terms of a condition.
    models
        Name and features of each model, in the config's order.
    lists
        The lists, and what their entries say.
    linear
        Names of those models whose scores say what each input adds.

    Examples
    --------
    >>> writer = EvidenceWriter([("quick", [Term("dwell_ms", "<", 900, (("dwell_ms", 0),))])], [])
    >>> evidence = writer.build(np.array([[0], [1]], np.uint8), np.array([[4000.0, 250.0]]), [])
    >>> evidence.reason_offsets.tolist(), evidence.json_offsets.tolist()
    ([0, 0, 1], [0, 0, 90])
    >>> evidence.json_bytes.tobytes().decode()
    '[{"reason":"quick","terms":[{"feature":"dwell_ms","value":250,"op":"<","threshold":900}]}]'
    """

    def __init__(
        self,
        rules: Sequence[tuple[str, Sequence[Term]]],
        models: Sequence[tuple[str, Sequence[str]]],
        lists: ListBook = NO_LISTS,
        *,
        linear: Collection[str] = (),
    ) -> None:
        names = (*lists.names, *(name for name, _ in rules))
        self.reason_names = (*names, *(MODEL_PREFIX + name for name, _ in models))
        self._columns_fired, self._notes = len(names), lists.notes
        rows = [row for _, terms in rules for term in terms for _, row in term.inputs]
        self._rule_rows = 1 + max(rows, default=-1)
        self._columns_of = tuple(len(features) * (1 + (name in linear)) for name, features in models)
        described = zip(lists.names, lists.kinds, lists.entities, strict=True)
        reasons = [list_reason(*one) for one in described]
        reasons += [rule_reason(name, terms) for name, terms in rules]
        column = self._rule_rows
        for name, features in models:
            reasons.append(model_reason(name, features, column, linear=name in linear))
            column += 2 + len(features) * (1 + (name in linear))
        self._layout = lay_out(reasons)

    def build(
        self,
        fired: NDArray[np.uint8],
        values: NDArray[np.float64],
        models: Sequence[ModelScores],
        notes: NDArray[np.int32] = _NO_NOTES,
    ) -> Evidence:
        """Reasons and JSON of each row.

        Parameters
        ----------
        fired
            uint8[n, lists and rules]: not 0 where the list has the row or the rule fired.
        values
            float64[inputs, n]: what the rules' terms refer to; NaN is null.
        models
            For each model what it made of the rows.
        notes
            int32[n, lists]: which note of :attr:`detectors.lists.ListBook.notes` fits.

        Raises
        ------
        OverflowError
            If the batch would have 2 GiB of evidence: cut it.
        """
        self._check(fired, values, models)
        notes = notes if notes.size else np.empty((fired.shape[0], 0), np.int32)
        rows, layout = fired.shape[0], self._layout
        strengths = np.stack([model.strength for model in models]) if models else np.empty((0, rows))
        reason_offsets = np.zeros(rows + 1, np.int32)
        _count_reasons(fired, strengths, reason_offsets)
        codes = np.empty(reason_offsets[-1], np.int32)
        _list_reasons(fired, strengths, codes)

        flagged = np.flatnonzero(np.diff(reason_offsets))
        columns = self._columns(values, models, flagged)
        numbers = np.empty(np.diff(layout.first)[codes].sum())
        _gather_numbers(layout, columns, flagged, reason_offsets, codes, numbers)
        digits = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)

        said = np.diff(self._notes.first)[notes[notes >= 0]].sum()
        most = int(layout.most[codes].sum() + said) + len(digits) + flagged.size
        if most > LARGEST_TEXT:
            raise OverflowError(
                f"expected less than 2 GiB of evidence a batch, got {most} bytes of {rows} rows"
            )
        json_offsets = np.zeros(rows + 1, np.int32)
        text = np.empty(most, np.uint8)
        numerals = np.frombuffer(digits, np.uint8)
        _write(layout, reason_offsets, codes, numerals, notes, *self._notes, json_offsets, text)
        return Evidence(reason_offsets, codes, json_offsets, text[: json_offsets[-1]])

    def _columns(
        self, values: NDArray[np.float64], models: Sequence[ModelScores], flagged: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Whatever the reasons show of the flagged rows, one row of numbers each."""
        blocks = [values[: self._rule_rows, flagged]]
        for model in models:
            blocks += [model.raw[None, flagged], model.strength[None, flagged], model.x[:, flagged]]
        return np.concatenate(blocks)

    def _check(
        self, fired: NDArray[np.uint8], values: NDArray[np.float64], models: Sequence[ModelScores]
    ) -> None:
        """Refuse arrays that the compiled loops would read beyond."""
        rows = fired.shape[0]
        if (
            fired.shape[1] != self._columns_fired
            or values.shape[0] < self._rule_rows
            or values.shape[1] != rows
        ):
            raise ValueError(
                f"expected fired of {self._columns_fired} lists and rules and {self._rule_rows} values a row, "
                f"got {fired.shape} and {values.shape}"
            )
        shapes = [(model.raw.shape, model.strength.shape, model.x.shape) for model in models]
        if shapes != [((rows,), (rows,), (columns, rows)) for columns in self._columns_of]:
            raise ValueError(f"expected models of {self._columns_of} columns on {rows} rows, got {shapes}")


@kernel
def _count_reasons(
    fired: NDArray[np.uint8], strengths: NDArray[np.float64], offsets: NDArray[np.int32]
) -> None:
    for row in range(fired.shape[0]):
        found = 0
        for rule in range(fired.shape[1]):
            found += fired[row, rule] != 0
        for model in range(strengths.shape[0]):
            found += strengths[model, row] > 0.0
        offsets[row + 1] = offsets[row] + found


@kernel
def _list_reasons(fired: NDArray[np.uint8], strengths: NDArray[np.float64], codes: NDArray[np.int32]) -> None:
    rules, at = fired.shape[1], 0
    for row in range(fired.shape[0]):
        for rule in range(rules):
            if fired[row, rule]:
                codes[at] = rule
                at += 1
        for model in range(strengths.shape[0]):
            if strengths[model, row] > 0.0:
                codes[at] = rules + model
                at += 1


@kernel
def _gather_numbers(
    layout: Layout,
    columns: NDArray[np.float64],
    flagged: NDArray[np.int64],
    reason_offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    numbers: NDArray[np.float64],
) -> None:
    """All numbers in the order of the text; column j of ``columns`` is row ``flagged[j]``."""
    at = 0
    for j in range(flagged.size):
        row = flagged[j]
        for code in codes[reason_offsets[row] : reason_offsets[row + 1]]:
            for k in range(layout.first[code], layout.first[code + 1]):
                numbers[at] = columns[layout.source[k], j] + 0.0  # no negative zero
                at += 1


@kernel
def _write(
    layout: Layout,
    reason_offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    digits: NDArray[np.uint8],
    notes: NDArray[np.int32],
    note_text: NDArray[np.uint8],
    note_first: NDArray[np.int64],
    json_offsets: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> None:
    """Join pieces, numbers and notes. ``digits`` is ``[1.0,null,0.5]``: a number ends before a comma or bracket."""
    text, start, words = layout.text, layout.piece_start, layout.words
    at, read = 0, 1
    for row in range(reason_offsets.size - 1):
        begin = reason_offsets[row]
        for place in range(begin, reason_offsets[row + 1]):
            out[at] = OPEN if place == begin else COMMA
            at += 1
            reason = codes[place]
            for k in range(layout.first[reason], layout.first[reason + 1]):
                at = _copy(text, start[k + reason], start[k + reason + 1], out, at)
                end = read
                while digits[end] != COMMA and digits[end] != CLOSE:
                    end += 1
                if words[k] != NO_WORDS and digits[read] != NULL:
                    piece = words[k] + (digits[read] == ZERO)
                    at = _copy(text, start[piece], start[piece + 1], out, at)
                else:
                    whole = digits[end - 1] == ZERO and digits[end - 2] == POINT
                    at = _copy(digits, read, end - 2 if whole else end, out, at)
                read = end + 1
            tail = layout.first[reason + 1] + reason
            at = _copy(text, start[tail], start[tail + 1], out, at)
            if reason < notes.shape[1]:
                note = notes[row, reason]
                at = _copy(note_text, note_first[note], note_first[note + 1], out, at)
        if reason_offsets[row + 1] > begin:
            out[at] = CLOSE
            at += 1
        json_offsets[row + 1] = at


@kernel
def _copy(source: NDArray[np.uint8], begin: int, end: int, out: NDArray[np.uint8], at: int) -> int:
    """Copy ``source[begin:end]`` to ``out[at:]``; where the next byte goes."""
    target, piece = out[at : at + end - begin], source[begin:end]  # indexes from 0 copy by the vector
    for i in range(piece.size):
        target[i] = piece[i]
    return at + piece.size

"""The text of evidence, laid out once per config: JSON cut where a number goes in.

A term of a rule is one of::

    {"feature":"dwell_ms","value":250,"op":"<","threshold":900}
    {"feature":"paid","value":{"paid":45,"cost_minor":10},"op":">","threshold":"4 * cost_minor"}
    {"feature":"channel","value":"qr","op":"==","threshold":"qr"}

The second form shows every input where either side is computed. Of a string field it is known whether it
equals the text, so its value is that text, or ``{"not":"qr"}``; null is null in all forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.rule_tree import (
    MIRRORED,
    Comparison,
    Condition,
    Input,
    InputKind,
    Number,
    comparisons,
    inputs_of,
    quantity_text,
)

MODEL_PREFIX = "model:"
LARGEST_INTEGER = 1 << 53
NO_WORDS = -1


class Term(NamedTuple):
    """One comparison of a rule, as evidence shows it."""

    feature: str
    """What is compared, as written."""
    operator: str
    threshold: float | str
    """What it is compared with: a number, a text, or how it is computed."""
    inputs: tuple[tuple[str, int], ...]
    """Name and row of ``values`` of each input that the comparison reads."""
    is_text: bool = False
    """Whether the one input is 1 or 0 for a string field that equals the threshold or does not."""


def terms_of(condition: Condition, inputs: Sequence[Input]) -> tuple[Term, ...]:
    """The comparisons of a condition from left to right, each once; ``inputs`` are the rows of ``values``.

    Examples
    --------
    >>> from schemas.rule_grammar import parse_rule
    >>> condition = parse_rule("60 > dwell_ms", []).condition
    >>> terms_of(condition, [Input(InputKind.FIELD, "dwell_ms")])
    (Term(feature='dwell_ms', operator='<', threshold=60.0, inputs=(('dwell_ms', 0),), is_text=False),)
    """
    row = {name: index for index, name in enumerate(inputs)}
    return tuple(_term(comparison, row) for comparison in dict.fromkeys(comparisons(condition)))


def _term(comparison: Comparison, row: dict[Input, int]) -> Term:
    symbol, left, right = comparison.symbol, comparison.left, comparison.right
    if isinstance(left, Number):
        symbol, left, right = MIRRORED[symbol], right, left
    read = tuple((name.name, row[name]) for name in dict.fromkeys(inputs_of(comparison)))
    if isinstance(left, Input) and left.kind is InputKind.TEXT and left.literal is not None:
        return Term(left.name, symbol, left.literal, read, is_text=True)
    threshold = right.value if isinstance(right, Number) else quantity_text(right)
    return Term(quantity_text(left), symbol, threshold, read)


class Layout(NamedTuple):
    """The text of all reasons, as kernels take it.

    Reason r has the numbers ``first[r]`` up to ``first[r + 1]``; number k is ``columns[source[k]]``. Each
    number has a piece of text before it and each reason one behind its last, so number k of reason r follows
    piece k + r. Where ``words[k]`` is not NO_WORDS, that piece stands for a 1, and the next for a 0.
    ``most[r]`` bytes hold reason r without its digits, and a comma.
    """

    first: NDArray[np.int64]
    source: NDArray[np.int64]
    words: NDArray[np.int64]
    text: NDArray[np.uint8]
    piece_start: NDArray[np.int64]
    most: NDArray[np.int64]


class Reason:
    """Text of one reason around its numbers; ``column`` of each number, ``words`` instead of it or None."""

    def __init__(self, begin: bytes) -> None:
        self.pieces = [begin]
        self.columns: list[int] = []
        self.words: list[tuple[bytes, bytes] | None] = []

    def text(self, more: bytes) -> None:
        """Go on with text."""
        self.pieces[-1] += more

    def number(self, column: int, words: tuple[bytes, bytes] | None = None) -> None:
        """Go on with a number."""
        self.columns.append(column)
        self.words.append(words)
        self.pieces.append(b"")

    def numbers(self, named: Sequence[tuple[str, int]]) -> None:
        """Go on with an object of named numbers."""
        for place, (name, column) in enumerate(named):
            self.text((b"," if place else b"{") + orjson.dumps(name) + b":")
            self.number(column)
        self.text(b"}" if named else b"{}")


def rule_reason(name: str, terms: Sequence[Term]) -> Reason:
    """What a rule that fired says; its columns are the rows of ``values``."""
    reason = Reason(b'{"reason":' + orjson.dumps(name) + b',"terms":[')
    for place, term in enumerate(terms):
        reason.text((b"," if place else b"") + b'{"feature":' + orjson.dumps(term.feature) + b',"value":')
        if term.is_text:
            text = orjson.dumps(term.threshold)
            reason.number(term.inputs[0][1], (text, b'{"not":' + text + b"}"))
        elif [name for name, _ in term.inputs] == [term.feature]:
            reason.number(term.inputs[0][1])
        else:
            reason.numbers(term.inputs)
        condition = b',"op":' + orjson.dumps(term.operator) + b',"threshold":' + _constant(term.threshold)
        reason.text(condition + b"}")
    reason.text(b"]}")
    return reason


def list_reason(name: str, kind: str, entity: str) -> Reason:
    """What a list says of every entry; its note follows the text."""
    kind_and_entity = b',"list":' + orjson.dumps(kind) + b',"entity":' + orjson.dumps(entity)
    return Reason(b'{"reason":' + orjson.dumps(name) + kind_and_entity + b',"match":')


def model_reason(name: str, features: Sequence[str], column: int, *, linear: bool = False) -> Reason:
    """What a model says: its raw score, strength and inputs stand in the columns from ``column`` on.

    Of a ``linear`` one what each input adds stands behind them.
    """
    reason = Reason(b'{"reason":' + orjson.dumps(MODEL_PREFIX + name) + b',"raw":')
    reason.number(column)
    reason.text(b',"strength":')
    reason.number(column + 1)
    reason.text(b',"inputs":')
    reason.numbers([(feature, column + 2 + place) for place, feature in enumerate(features)])
    if linear:
        reason.text(b',"contributions":')
        first = column + 2 + len(features)
        reason.numbers([(feature, first + place) for place, feature in enumerate(features)])
    reason.text(b"}")
    return reason


def lay_out(reasons: Sequence[Reason]) -> Layout:
    """All reasons side by side; the words follow the pieces."""
    pieces = [piece for reason in reasons for piece in reason.pieces]
    words = []
    for pair in (pair for reason in reasons for pair in reason.words):
        words.append(NO_WORDS if pair is None else len(pieces))
        pieces += pair or ()
    return Layout(
        first=np.cumsum([0, *(len(reason.columns) for reason in reasons)]),
        source=np.array([column for reason in reasons for column in reason.columns], np.int64),
        words=np.array(words, np.int64),
        text=np.frombuffer(b"".join(pieces), np.uint8).copy(),
        piece_start=np.cumsum([0, *map(len, pieces)]),
        most=np.array([_most(reason) for reason in reasons], np.int64),
    )


def _most(reason: Reason) -> int:
    spoken = sum(max(map(len, pair)) for pair in reason.words if pair)
    return sum(map(len, reason.pieces)) + spoken + 1


def _constant(threshold: float | str) -> bytes:
    """A threshold as JSON; whole numbers without a point, as values are written too."""
    if isinstance(threshold, float) and threshold.is_integer() and abs(threshold) <= LARGEST_INTEGER:
        return orjson.dumps(int(threshold))
    return orjson.dumps(threshold)

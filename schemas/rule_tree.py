"""A rule's condition after parsing: numbers below, comparisons above them, ``and`` and ``or`` on top.

There is no ``not``: the parser pushes it down into the comparisons. That is what makes a comparison with null
false also under ``not``, since ``not (x < 3)`` has become ``x >= 3``, and NaN satisfies neither (``!=``
included).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class InputKind(StrEnum):
    """Where the number of an input comes from."""

    FEATURE = "feature"
    FIELD = "field"
    ATTRIBUTE = "attribute"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Input:
    """One number per event that a rule reads; NaN where it is null.

    Parameters
    ----------
    kind
        FEATURE: ``name`` is a feature of the config. FIELD: a numeric field. ATTRIBUTE: ``attrs.<name>`` as a
        number. TEXT: whether the string field ``name`` (or ``attrs.<name>``) equals ``literal``: 1, 0, or NaN
        if absent.
    name
        As it is written in the rule.
    literal
        Only of TEXT.
    """

    kind: InputKind
    name: str
    literal: str | None = None

    @property
    def attribute(self) -> str | None:
        """The name below ``attrs.``; None if it is no attribute."""
        return self.name.removeprefix("attrs.") if self.name.startswith("attrs.") else None


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``left symbol right`` with one of ``+ - * /``."""

    symbol: str
    left: Quantity
    right: Quantity


@dataclass(frozen=True, slots=True)
class Comparison:
    """``left symbol right`` with one of ``< <= > >= == !=``; false when either side is null."""

    symbol: str
    left: Quantity
    right: Quantity


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part holds."""

    parts: tuple[Condition, ...]


Quantity = Input | Number | Arithmetic
Condition = Comparison | Every | Some

_TRUE: Final = Comparison("==", Number(0.0), Number(0.0))

OPPOSITE: Final = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}
MIRRORED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}


_PYTHON: Final = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def opposite(condition: Condition) -> Condition:
    """What holds when ``condition`` does not and nothing in it is null."""
    match condition:
        case Comparison(symbol, left, right):
            return Comparison(OPPOSITE[symbol], left, right)
        case Every(parts):
            return Some(tuple(opposite(part) for part in parts))
        case Some(parts):
            return Every(tuple(opposite(part) for part in parts))


def grant(condition: Condition, unknown: Collection[Input]) -> Condition:
    """What is left of a condition if every comparison that reads an unknown input holds.

    There is no ``not``, so no value of the unknown inputs makes the condition hold where this does not.
    """
    match condition:
        case Comparison():
            return _TRUE if any(read in unknown for read in inputs_of(condition)) else condition
        case Every(parts):
            return Every(tuple(grant(part, unknown) for part in parts))
        case Some(parts):
            return Some(tuple(grant(part, unknown) for part in parts))


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """All comparisons, from left to right."""
    if isinstance(condition, Comparison):
        yield condition
    else:
        for part in condition.parts:
            yield from comparisons(part)


def inputs_of(node: Condition | Quantity) -> Iterator[Input]:
    """All inputs, from left to right, as often as they occur."""
    match node:
        case Input():
            yield node
        case Arithmetic(_, left, right) | Comparison(_, left, right):
            yield from inputs_of(left)
            yield from inputs_of(right)
        case Every(parts) | Some(parts):
            for part in parts:
                yield from inputs_of(part)


def calculate(symbol: str, left: float, right: float) -> float:
    """One arithmetic step as the rule machine does it: IEEE doubles, but a division by zero is null."""
    if symbol == "+":
        return left + right
    if symbol == "-":
        return left - right
    if symbol == "*":
        return left * right
    return left / right if right != 0 else math.nan


def compare(symbol: str, left: float, right: float) -> bool:
    """One comparison; false when either side is null."""
    if math.isnan(left) or math.isnan(right):
        return False
    holds_: bool = _PYTHON[symbol](left, right)
    return holds_


def value_of(quantity: Quantity, read: Callable[[Input], float]) -> float:
    """The number that a quantity is for one event, in plain Python; ``read`` gives each input's."""
    match quantity:
        case Number(value):
            return value
        case Input():
            return read(quantity)
        case Arithmetic(symbol, left, right):
            return calculate(symbol, value_of(left, read), value_of(right, read))


def holds(condition: Condition, read: Callable[[Input], float]) -> bool:
    """Whether a condition holds for one event, in plain Python: for rare rows, and to test the machine by."""
    match condition:
        case Comparison(symbol, left, right):
            return compare(symbol, value_of(left, read), value_of(right, read))
        case Every(parts):
            return all(holds(part, read) for part in parts)
        case Some(parts):
            return any(holds(part, read) for part in parts)


def quantity_text(quantity: Quantity, *, inside: bool = False) -> str:
    """Write a quantity for people, in parentheses where it is part of another."""
    match quantity:
        case Number(value):
            return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
        case Input(_, name, _):
            return name
        case Arithmetic(symbol, left, right):
            text = f"{quantity_text(left, inside=True)} {symbol} {quantity_text(right, inside=True)}"
            return f"({text})" if inside else text

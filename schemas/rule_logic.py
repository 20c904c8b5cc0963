"""Finds conditions that say nothing: those that hold for no event, and those that hold for every one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from schemas.rule_tree import (
    MIRRORED,
    Comparison,
    Condition,
    Every,
    Input,
    InputKind,
    Number,
    Some,
    holds,
    inputs_of,
    opposite,
)


@dataclass(frozen=True, slots=True)
class Range:
    """Where the values of one input lie, both ends included but for those that are open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    holes: frozenset[float] = frozenset()

    def empty(self) -> bool:
        """Whether no number is left."""
        if self.low == self.high:
            return self.low_open or self.high_open or self.low in self.holes
        return not self.low < self.high

    def narrowed(self, operator: str, value: float) -> Range:
        """Keep what compares so with ``value``."""
        if operator == "!=":
            return replace(self, holes=self.holes | {value})
        narrow = self
        if operator in (">", ">=", "==") and (value > self.low or (value == self.low and operator == ">")):
            narrow = replace(narrow, low=value, low_open=operator == ">")
        if operator in ("<", "<=", "==") and (value < self.high or (value == self.high and operator == "<")):
            narrow = replace(narrow, high=value, high_open=operator == "<")
        return narrow


Ranges = Mapping[Input, Range]

TRUTH = Range(0.0, 1.0)
ANYTHING = Range()


def always_holds(condition: Condition) -> bool:
    """Whether it holds for every event; nothing holds of null, so: whether it does when all inputs are."""
    return holds(condition, lambda _: math.nan)


def holds_when_known(condition: Condition, ranges: Ranges) -> bool:
    """Whether it holds for every event that has the inputs; True is certain, False may be ignorance."""
    return not can_hold(opposite(condition), ranges)


def can_hold(condition: Condition, ranges: Ranges) -> bool:
    """Whether some event could fulfil it; False is certain, True may be ignorance.

    Comparisons of one input with a constant narrow the input's range as far as ``and`` reaches; every ``or``
    below is tried in what is left. What compares inputs with each other is believed.

    Parameters
    ----------
    condition
        What is asked about.
    ranges
        Where the inputs lie to begin with; anywhere if not given.
    """
    if isinstance(condition, Some):
        return any(can_hold(part, ranges) for part in condition.parts)
    parts = list(_flat(condition))
    left = _narrowed_by([part for part in parts if isinstance(part, Comparison)], ranges)
    return left is not None and all(can_hold(part, left) for part in parts if isinstance(part, Some))


def _flat(condition: Condition) -> Iterable[Condition]:
    if isinstance(condition, Every):
        for part in condition.parts:
            yield from _flat(part)
    else:
        yield condition


def _narrowed_by(parts: list[Comparison], ranges: Ranges) -> Ranges | None:
    """The ranges in which all parts hold; None where there is no such event."""
    left = dict(ranges)
    for part in parts:
        if not any(inputs_of(part)):
            if not holds(part, lambda _: math.nan):
                return None
            continue
        simple = as_threshold(part)
        if simple is None:
            continue
        name, operator, value = simple
        left[name] = left.get(name, TRUTH if name.kind is InputKind.TEXT else ANYTHING).narrowed(
            operator, value
        )
        if math.isnan(value) or left[name].empty():
            return None
    equal = [name.name for name, range_ in left.items() if name.kind is InputKind.TEXT and range_.low == 1.0]
    return left if len(equal) == len(set(equal)) else None


def as_threshold(part: Comparison) -> tuple[Input, str, float] | None:
    """The comparison as (input, operator, constant) if it is that plain, in either order."""
    match part:
        case Comparison(operator, Input() as name, Number(value)):
            return name, operator, value
        case Comparison(operator, Number(value), Input() as name):
            return name, MIRRORED[operator], value
    return None

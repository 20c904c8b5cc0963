"""Rules: conditions over named features that say something when they hold.

A rule is plain to whoever reads the verdict, and as good as the person who wrote it: it sees nothing that
nobody thought of. It fails quietly where its features are null, since nothing holds of null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.rule_compiler import Compiler
from detectors.rule_machine import Code, run
from schemas.config import Config, Rule
from schemas.rule_logic import as_threshold
from schemas.rule_tree import (
    MIRRORED,
    Comparison,
    Condition,
    Input,
    InputKind,
    Number,
    compare,
    comparisons,
    inputs_of,
    quantity_text,
    value_of,
)

__all__ = ["CompiledRule", "Input", "InputKind", "RuleProgram", "Term", "compile_rules"]


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison of a rule, as evidence shows it: what was looked at, and what it was held against.

    Parameters
    ----------
    feature
        What is compared, as written: mostly a feature or field, else an expression of several.
    symbol
        One of ``< <= > >= == !=``.
    threshold
        The number it is compared with; NaN if that is itself computed, or a text.
    literal
        The text it is compared with, if it is a string field.
    inputs
        Indexes of the inputs that it reads, into ``RuleProgram.inputs``.
    """

    feature: str
    symbol: str
    threshold: float
    literal: str | None
    inputs: tuple[int, ...]
    _comparison: Comparison
    _names: tuple[Input, ...]

    @property
    def plain(self) -> bool:
        """Whether it compares one input with a constant, so that ``inputs[0]``'s value is the evidence."""
        return self.literal is not None or (not math.isnan(self.threshold) and len(self.inputs) == 1)

    def measure(self, values: Sequence[float]) -> tuple[float, float]:
        """What was found and what it was held against, for one event.

        Parameters
        ----------
        values
            The event's column of all inputs, as given to :meth:`RuleProgram.fired`.
        """
        read = {name: values[index] for name, index in zip(self._names, self.inputs, strict=True)}
        left = value_of(self._comparison.left, read.__getitem__)
        return left, value_of(self._comparison.right, read.__getitem__)

    def holds(self, values: Sequence[float]) -> bool:
        """Whether the comparison holds for one event; in a rule with ``or`` not all of them need to."""
        return compare(self.symbol, *self.measure(values))


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """What is known of a rule besides its code.

    Parameters
    ----------
    name
        Its reason code.
    when
        The condition on one line.
    applies_to
        Event names it looks at; None: all.
    weight
        0..1.
    reason_zh, reason_en
        One sentence for people; made from the condition if the config gives none.
    terms
        Its comparisons, from left to right, each once.
    """

    name: str
    when: str
    applies_to: frozenset[str] | None
    weight: float
    reason_zh: str
    reason_en: str
    terms: tuple[Term, ...]


class RuleProgram:
    """The rules of one config, compiled.

    Attributes
    ----------
    rules
        In the order of the config.
    inputs
        What :meth:`fired` must be given, one row each, in order of first use.
    """

    def __init__(self, rules: tuple[CompiledRule, ...], inputs: tuple[Input, ...], code: Code) -> None:
        self.rules, self.inputs, self._code = rules, inputs, code
        self._class_of = _classes_of(rules)[1]

    @property
    def applies(self) -> tuple[frozenset[str] | None, ...]:
        """Event names each rule looks at; None: all."""
        return tuple(rule.applies_to for rule in self.rules)

    @property
    def event_names(self) -> tuple[str, ...]:
        """Event names that make a difference to which rules apply."""
        return tuple(self._class_of)

    def fired(
        self, values: NDArray[np.float64], event_names: NDArray[np.int32], name_index: Mapping[str, int]
    ) -> NDArray[np.uint8]:
        """Which rules hold for which events. Some 20 ns for an event and 20 rules, plus 10 us a call.

        Parameters
        ----------
        values
            float64[inputs, n], C-contiguous: row i is ``inputs[i]``; NaN is null.
        event_names
            int32[n]: number of each event's name; one that ``name_index`` does not know may be any, also -1.
        name_index
            Number of each name; needs no others than ``event_names`` of this program.

        Returns
        -------
        uint8[n, rules]
            1 where the rule applies to the event and its condition holds.

        Raises
        ------
        ValueError
            If ``values`` has another shape.
        """
        if values.shape != (len(self.inputs), len(event_names)):
            raise ValueError(
                f"expected values of shape {(len(self.inputs), len(event_names))}, got {values.shape}"
            )
        return run(
            self._code, np.ascontiguousarray(values, np.float64), self._classes(event_names, name_index)
        )

    def _classes(self, event_names: NDArray[np.int32], name_index: Mapping[str, int]) -> NDArray[np.int32]:
        known = {name_index[name]: class_ for name, class_ in self._class_of.items() if name in name_index}
        # One more place at the end takes all numbers that are none of these: class 0.
        table = np.zeros(max(known, default=-1) + 2, np.int32)
        for number, class_ in known.items():
            table[number] = class_
        other = np.int32(len(table) - 1)
        numbers = np.where((event_names < 0) | (event_names > other), other, event_names)
        return table[numbers]


def compile_rules(config: Config) -> RuleProgram:
    """Compile the rules of a config; some 10 us a rule besides parsing."""
    conditions = [config.parsed(rule).condition for rule in config.rules.values()]
    inputs = tuple(dict.fromkeys(name for condition in conditions for name in inputs_of(condition)))
    number = {name: index for index, name in enumerate(inputs)}
    rules = tuple(
        _describe(name, rule, condition, number)
        for (name, rule), condition in zip(config.rules.items(), conditions, strict=True)
    )
    return RuleProgram(rules, inputs, Compiler(inputs).compile(conditions, _classes_of(rules)[0]))


def _classes_of(rules: Sequence[CompiledRule]) -> tuple[list[list[int]], dict[str, int]]:
    """Event classes, each with the rules that apply; and the class of each name that is not of class 0."""
    named = dict.fromkeys(name for rule in rules for name in sorted(rule.applies_to or ()))
    to_all = tuple(index for index, rule in enumerate(rules) if rule.applies_to is None)
    classes = {to_all: 0}
    class_of = {}
    for name in named:
        applying = tuple(
            index for index, rule in enumerate(rules) if rule.applies_to is None or name in rule.applies_to
        )
        class_of[name] = classes.setdefault(applying, len(classes))
    return [list(applying) for applying in classes], class_of


def _describe(name: str, rule: Rule, condition: Condition, number: Mapping[Input, int]) -> CompiledRule:
    return CompiledRule(
        name=name,
        when=rule.when,
        applies_to=None if rule.applies_to is None else frozenset(rule.applies_to),
        weight=rule.weight,
        reason_zh=rule.reason_zh or f"满足条件：{rule.when}",
        reason_en=rule.reason_en or f"holds: {rule.when}",
        terms=tuple(_term(comparison, number) for comparison in dict.fromkeys(comparisons(condition))),
    )


def _term(comparison: Comparison, number: Mapping[Input, int]) -> Term:
    if isinstance(comparison.left, Number):
        comparison = Comparison(MIRRORED[comparison.symbol], comparison.right, comparison.left)
    names = tuple(dict.fromkeys(inputs_of(comparison)))
    plain = as_threshold(comparison)
    literal = plain[0].literal if plain else None
    constant = comparison.right.value if isinstance(comparison.right, Number) else math.nan
    return Term(
        feature=quantity_text(comparison.left),
        symbol=comparison.symbol,
        threshold=math.nan if literal is not None else constant,
        literal=literal,
        inputs=tuple(number[name] for name in names),
        _comparison=comparison,
        _names=names,
    )

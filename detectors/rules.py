"""Rules: conditions over named features that say something when they hold.

A rule is plain to whoever reads the verdict, and as good as the person who wrote it: it sees nothing that
nobody thought of. It fails quietly where its features are null, since nothing holds of null.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.evidence import Term, terms_of
from detectors.rule_compiler import Compiler
from detectors.rule_machine import Code, run
from schemas.config import Config, Rule
from schemas.rule_tree import Condition, Input, grant, inputs_of


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
        Its comparisons from left to right, as evidence shows them.
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

    def __init__(
        self, rules: tuple[CompiledRule, ...], inputs: tuple[Input, ...], conditions: Sequence[Condition]
    ) -> None:
        self.rules, self.inputs, self._conditions = rules, inputs, conditions
        classes, self._class_of = _classes_of(rules)
        self._code: Code = Compiler(inputs).compile(conditions, classes)

    def granting(self, unknown: Collection[Input]) -> RuleProgram:
        """These rules as if every comparison that reads one of these inputs held: what may fire, whatever they are."""
        granted = [grant(condition, unknown) for condition in self._conditions]
        return RuleProgram(self.rules, self.inputs, granted)

    @property
    def applies(self) -> tuple[frozenset[str] | None, ...]:
        """Event names each rule looks at; None: all."""
        return tuple(rule.applies_to for rule in self.rules)

    @property
    def name_index(self) -> dict[str, int]:
        """Numbers of the event names that make a difference to which rules apply, from 0 on."""
        return {name: number for number, name in enumerate(self._class_of)}

    def fired(
        self,
        values: NDArray[np.float64],
        event_names: NDArray[np.int32],
        name_index: Mapping[str, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Which rules hold for which events. Some 50 ns for an event and 20 rules, plus 20 us a call.

        Parameters
        ----------
        values
            float64[inputs, n], C-contiguous: row i is ``inputs[i]``; NaN is null.
        event_names
            int32[n]: number of each event's name, any other number (such as -1) for other names.
        name_index
            What the numbers stand for; only names in :attr:`name_index` matter, which is the default, too.

        Returns
        -------
        uint8[n, rules]
            1 where the rule applies to the event and its condition holds.

        Raises
        ------
        ValueError
            If ``values`` has another shape.
        """
        shape = (len(self.inputs), len(event_names))
        if values.shape != shape:
            raise ValueError(f"expected values of shape {shape}, got {values.shape}")
        classes = self._classes(event_names, self.name_index if name_index is None else name_index)
        return run(self._code, np.ascontiguousarray(values, np.float64), classes)

    def _classes(self, event_names: NDArray[np.int32], name_index: Mapping[str, int]) -> NDArray[np.int32]:
        known = {name_index[name]: class_ for name, class_ in self._class_of.items() if name in name_index}
        # One more place at the end takes all numbers that are none of these: class 0.
        other = max(known, default=-1) + 1
        table = np.zeros(other + 1, np.int32)
        for number, class_ in known.items():
            table[number] = class_
        return table[np.where((event_names < 0) | (event_names > other), other, event_names)]


def compile_rules(config: Config) -> RuleProgram:
    """Compile the rules of a config; some 10 us a rule besides parsing."""
    conditions = [config.parsed(rule).condition for rule in config.rules.values()]
    inputs = tuple(dict.fromkeys(name for condition in conditions for name in inputs_of(condition)))
    rules = tuple(
        _describe(name, rule, condition, inputs)
        for (name, rule), condition in zip(config.rules.items(), conditions, strict=True)
    )
    return RuleProgram(rules, inputs, conditions)


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


def _describe(name: str, rule: Rule, condition: Condition, inputs: Sequence[Input]) -> CompiledRule:
    return CompiledRule(
        name=name,
        when=rule.when,
        applies_to=None if rule.applies_to is None else frozenset(rule.applies_to),
        weight=rule.weight,
        reason_zh=rule.reason_zh or f"满足条件：{rule.when}",
        reason_en=rule.reason_en or f"holds: {rule.when}",
        terms=terms_of(condition, inputs),
    )

"""From the conditions of rules to the code of the rule machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from detectors.rule_machine import Code, Operation
from schemas.rule_tree import (
    Arithmetic,
    Comparison,
    Condition,
    Every,
    Input,
    Number,
    Quantity,
    inputs_of,
)

_ARITHMETIC: Final = {
    "+": Operation.ADD,
    "-": Operation.SUBTRACT,
    "*": Operation.MULTIPLY,
    "/": Operation.DIVIDE,
}
_COMPARISONS: Final = {
    "<": (Operation.LESS, False),
    "<=": (Operation.LESS_EQUAL, False),
    ">": (Operation.LESS, True),
    ">=": (Operation.LESS_EQUAL, True),
    "==": (Operation.EQUAL, False),
    "!=": (Operation.UNEQUAL, False),
}
"""The operation, and whether its sides are exchanged."""


class Compiler:
    """Writes the code of one config's rules.

    A target is always a register that is free while the operands are still held, so it is never one of them.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._input = {name: index for index, name in enumerate(inputs)}
        self._constant: dict[float, int] = {}
        self._instructions: list[tuple[int, int, int, int]] = []
        self._free: list[int] = []
        self._registers = len(inputs)

    def compile(self, conditions: Sequence[Condition], classes: Sequence[Sequence[int]]) -> Code:
        """Compile all rules.

        Parameters
        ----------
        conditions
            One for each rule.
        classes
            For each event class the rules that apply to it.
        """
        start = [0]
        for condition in conditions:
            self._release(self._condition(condition))
            start.append(len(self._instructions))
        reads = [{self._input[name] for name in inputs_of(condition)} for condition in conditions]
        used = [sorted(set().union(*(reads[rule] for rule in rules))) for rules in classes]
        return Code(
            instructions=np.array(self._instructions, np.int32).reshape(-1, 4),
            constants=np.array(list(self._constant), np.float64),
            start=np.array(start, np.int32),
            class_start=_borders(classes),
            class_rules=_joined(classes),
            input_start=_borders(used),
            class_inputs=_joined(used),
            registers=self._registers,
        )

    def _condition(self, condition: Condition) -> int:
        if isinstance(condition, Comparison):
            operation, exchanged = _COMPARISONS[condition.symbol]
            left, right = self._quantity(condition.left), self._quantity(condition.right)
            return self._emit(operation, right, left) if exchanged else self._emit(operation, left, right)
        operation = Operation.AND if isinstance(condition, Every) else Operation.OR
        truth = self._condition(condition.parts[0])
        for part in condition.parts[1:]:
            truth = self._emit(operation, truth, self._condition(part))
        return truth

    def _quantity(self, quantity: Quantity) -> int:
        match quantity:
            case Input():
                return self._input[quantity]
            case Number(value):
                index = self._constant.setdefault(value, len(self._constant))
                return self._emit(Operation.CONSTANT, index, index)
            case Arithmetic(symbol, left, right):
                return self._emit(_ARITHMETIC[symbol], self._quantity(left), self._quantity(right))

    def _emit(self, operation: Operation, left: int, right: int) -> int:
        if self._free:
            target = self._free.pop()
        else:
            target, self._registers = self._registers, self._registers + 1
        self._instructions.append((operation, target, left, right))
        if operation is not Operation.CONSTANT:
            self._release(left)
            self._release(right)
        return target

    def _release(self, register: int) -> None:
        if register >= len(self._input):
            self._free.append(register)


def _borders(groups: Sequence[Sequence[int]]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.cumsum([0, *(len(group) for group in groups)]).astype(np.int32)


def _joined(groups: Sequence[Sequence[int]]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array([member for group in groups for member in group], np.int32)

"""A small vector machine that runs the conditions of all rules: one kernel, compiled once for every config.

A rule is a stretch of three-address code, ``(operation, target, left, right)``, over registers that are lanes
of LANE rows. Registers 0..inputs-1 hold the inputs of those rows, the others are scratch. An instruction is
one loop that vectorises, so its dispatch is paid once for LANE rows. A truth is 1.0 or 0.0.

Rows are taken event class by event class (names to which the same rules apply), so a rule costs nothing on
rows it does not apply to. Every operation looks at one row alone and no sum runs over rows: any cut gives the
same bits.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.kernels import kernel

LANE: Final = 256


class Operation(IntEnum):
    """What an instruction does to each row of a lane; a comparison with NaN gives 0."""

    CONSTANT = 0
    ADD = 1
    SUBTRACT = 2
    MULTIPLY = 3
    DIVIDE = 4
    LESS = 5
    LESS_EQUAL = 6
    EQUAL = 7
    UNEQUAL = 8
    AND = 9
    OR = 10


# As plain numbers: a kernel cannot look inside an enumeration cheaply.
_CONSTANT, _ADD, _SUBTRACT, _MULTIPLY = 0, 1, 2, 3
_LESS, _LESS_EQUAL, _EQUAL, _UNEQUAL, _AND = 5, 6, 7, 8, 9


class Code(NamedTuple):
    """All rules as instructions.

    Parameters
    ----------
    instructions
        int32[m, 4]: operation, target register, left, right. CONSTANT: left is an index into ``constants``.
    constants
        float64[...].
    start
        int32[rules + 1]: rule r is ``instructions[start[r]:start[r + 1]]``; its truth is the last target.
    class_start, class_rules
        int32[classes + 1], int32[...]: the rules that apply to event class c are
        ``class_rules[class_start[c]:class_start[c + 1]]``.
    input_start, class_inputs
        The same for the inputs which these rules read.
    registers
        How many registers they need, inputs included.
    """

    instructions: NDArray[np.int32]
    constants: NDArray[np.float64]
    start: NDArray[np.int32]
    class_start: NDArray[np.int32]
    class_rules: NDArray[np.int32]
    input_start: NDArray[np.int32]
    class_inputs: NDArray[np.int32]
    registers: int


def run(code: Code, values: NDArray[np.float64], classes: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Run all rules over all rows.

    Parameters
    ----------
    code
        The rules.
    values
        float64[inputs, n], C-contiguous; NaN is null.
    classes
        int32[n]: event class of each row.

    Returns
    -------
    uint8[n, rules]
        1 where a rule applies and holds.
    """
    rules, rows = len(code.start) - 1, len(classes)
    fired = np.zeros((rows, rules), np.uint8)
    if rules and rows:
        order, borders = _by_class(classes, len(code.class_start) - 1)
        _run(code, values, order, borders, np.empty((code.registers, LANE)), fired)
    return fired


@kernel
def _by_class(classes: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers class by class, ascending in each, and where each class begins."""
    borders = np.zeros(count + 1, np.int64)
    for i in range(classes.shape[0]):
        borders[classes[i] + 1] += 1
    for c in range(count):
        borders[c + 1] += borders[c]
    at = borders.copy()
    order = np.empty(classes.shape[0], np.int64)
    for i in range(classes.shape[0]):
        order[at[classes[i]]] = i
        at[classes[i]] += 1
    return order, borders


@kernel
def _run(
    code: Code,
    values: NDArray[np.float64],
    order: NDArray[np.int64],
    borders: NDArray[np.int64],
    registers: NDArray[np.float64],
    fired: NDArray[np.uint8],
) -> None:
    for c in range(borders.shape[0] - 1):
        rules = code.class_rules[code.class_start[c] : code.class_start[c + 1]]
        inputs = code.class_inputs[code.input_start[c] : code.input_start[c + 1]]
        if rules.shape[0] == 0:
            continue
        for begin in range(borders[c], borders[c + 1], LANE):
            rows = order[begin : min(begin + LANE, borders[c + 1])]
            for k in range(inputs.shape[0]):
                _gather(values[inputs[k]], rows, registers[inputs[k]])
            for k in range(rules.shape[0]):
                rule = rules[k]
                truth = 0
                for at in range(code.start[rule], code.start[rule + 1]):
                    truth = code.instructions[at, 1]
                    _execute(code.instructions[at], code.constants, registers, rows.shape[0])
                _scatter(registers[truth], rows, rule, fired)


@kernel
def _gather(values: NDArray[np.float64], rows: NDArray[np.int64], lane: NDArray[np.float64]) -> None:
    for i in range(rows.shape[0]):
        lane[i] = values[rows[i]]


@kernel
def _scatter(lane: NDArray[np.float64], rows: NDArray[np.int64], rule: int, fired: NDArray[np.uint8]) -> None:
    # Most rules hold for no row of most lanes; this look at the whole lane is vectorised, the writes cannot
    # be.
    any_holds = False
    for i in range(rows.shape[0]):
        any_holds |= lane[i] != 0.0
    if any_holds:
        for i in range(rows.shape[0]):
            fired[rows[i], rule] = np.uint8(lane[i])


@kernel
def _execute(
    instruction: NDArray[np.int32],
    constants: NDArray[np.float64],
    registers: NDArray[np.float64],
    width: int,
) -> None:
    """One instruction on one lane. The target is never an operand, or the loops would not vectorise."""
    operation, target = instruction[0], registers[instruction[1]]
    if operation == _CONSTANT:
        target[:width] = constants[instruction[2]]
    elif operation >= _LESS:
        _decide(operation, registers[instruction[2]], registers[instruction[3]], target, width)
    else:
        _calculate(operation, registers[instruction[2]], registers[instruction[3]], target, width)


@kernel
def _calculate(
    operation: int,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    target: NDArray[np.float64],
    width: int,
) -> None:
    if operation == _ADD:
        for i in range(width):
            target[i] = left[i] + right[i]
    elif operation == _SUBTRACT:
        for i in range(width):
            target[i] = left[i] - right[i]
    elif operation == _MULTIPLY:
        for i in range(width):
            target[i] = left[i] * right[i]
    else:
        for i in range(width):
            target[i] = left[i] / right[i] if right[i] != 0.0 else np.nan


@kernel
def _decide(
    operation: int,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    target: NDArray[np.float64],
    width: int,
) -> None:
    if operation == _LESS:
        for i in range(width):
            target[i] = 1.0 if left[i] < right[i] else 0.0
    elif operation == _LESS_EQUAL:
        for i in range(width):
            target[i] = 1.0 if left[i] <= right[i] else 0.0
    elif operation == _EQUAL:
        for i in range(width):
            target[i] = 1.0 if left[i] == right[i] else 0.0
    elif operation == _UNEQUAL:
        for i in range(width):
            target[i] = 1.0 if left[i] < right[i] or left[i] > right[i] else 0.0
    elif operation == _AND:
        for i in range(width):
            target[i] = left[i] * right[i]
    else:
        for i in range(width):
            target[i] = max(left[i], right[i])

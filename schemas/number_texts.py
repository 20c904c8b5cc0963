"""Numbers that come as text, as in CSV: JSON's grammar and nothing wider (no ``+1``, ``1_000``, ``nan``)."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from schemas.decimals import NOT_A_NUMBER, read_number, to_double
from schemas.flat_kernels import flat_kernel
from schemas.words import byte_at

NUMBER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

_WIDEST = 48
_READ, _UNSURE, _WRONG = range(3)


def read_numbers(
    data: NDArray[np.uint8], starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read n spans: float64[n], NaN for what is empty or no finite number; bool[n], false for the latter."""
    values = np.full(len(starts), np.nan)
    outcome = np.zeros(len(starts), np.uint8)
    _read(data, starts, lengths, np.zeros(_WIDEST + 16, np.uint8), values, outcome)
    for row in np.flatnonzero(outcome == _UNSURE).tolist():
        outcome[row] = _WRONG
        text = data[starts[row] : starts[row] + lengths[row]].tobytes().decode("latin-1")
        if NUMBER_TEXT.fullmatch(text) and math.isfinite(value := float(text)):
            values[row], outcome[row] = value + 0.0, _READ
    return values, outcome == _READ


@flat_kernel
def _read(
    data: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    cell: NDArray[np.uint8],
    values: NDArray[np.float64],
    outcome: NDArray[np.uint8],
) -> None:
    """Read what can be decided here; a text is copied to ``cell``, lest it run on into its neighbour."""
    for row in range(starts.shape[0]):
        size = lengths[row]
        if size == 0:
            continue
        outcome[row] = _UNSURE
        if size > _WIDEST:
            continue
        for k in range(size):
            cell[k] = byte_at(data, starts[row] + k)
        cell[size] = 0
        form, end, digits, power = read_number(cell, 0)
        number = to_double(digits, power)
        if form != NOT_A_NUMBER and end == size and not np.isnan(number):
            values[row] = (-number if cell[0] == 45 else number) + 0.0
            outcome[row] = _READ

"""CSV in a buffer (RFC 4180) to spans of cells: one row a line, nothing copied.

A quoted cell may hold commas and doubled quotes, which become single ones in place; it may not hold a line break, so
that an error can name its line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel, inlined
from schemas.words import byte_at

SOUND, BAD_QUOTE = 0, -1
"""Faults of a row; any other number is how many cells it has instead of the right number."""

_LINE_FEED, _RETURN, _QUOTE, _COMMA = b'\n\r",'


@flat_kernel
def split_rows(
    buffer: NDArray[np.uint8],
    start: int,
    end: int,
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    lines: NDArray[np.int32],
    faults: NDArray[np.int32],
) -> int:
    """Split ``buffer[start:end]``, which begins in line 2 of a file; returns the number of rows.

    ``starts`` and ``lengths`` are int32[cells, n], ``lines`` and ``faults`` int32[n], with n at least the number of
    line feeds and one more. Empty lines are no rows.
    """
    row, line, at = 0, 1, start
    while at < end:
        stop = at
        while stop < end and byte_at(buffer, stop) != _LINE_FEED:
            stop += 1
        behind, line = stop + 1, line + 1
        if stop > at and byte_at(buffer, stop - 1) == _RETURN:
            stop -= 1
        if stop > at:
            lines[row] = line
            faults[row] = _split_line(buffer, at, stop, row, starts, lengths)
            row += 1
        at = behind
    return row


@flat_kernel
def _split_line(
    buffer: NDArray[np.uint8],
    start: int,
    stop: int,
    row: int,
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
) -> int:
    """Note the cells of one line, as many as are wanted; returns its fault."""
    cell, at = 0, start
    while True:
        begin, length = at, 0
        if at < stop and byte_at(buffer, at) == _QUOTE:
            begin = at + 1
            at, length = _unquote(buffer, begin, stop)
            if at < 0:
                return BAD_QUOTE
        else:
            while at < stop and byte_at(buffer, at) != _COMMA:
                at += 1
            length = at - begin
        if cell < starts.shape[0]:
            starts[cell, row], lengths[cell, row] = begin, length
        cell += 1
        if at >= stop:
            return SOUND if cell == starts.shape[0] else cell
        at += 1


@inlined
def _unquote(buffer: NDArray[np.uint8], begin: int, stop: int) -> tuple[int, int]:
    """Write a quoted cell over itself: (index behind its closing quote, length); (-1, 0) if it is not well formed."""
    at, write = begin, begin
    while at < stop:
        if byte_at(buffer, at) == _QUOTE:
            if at + 1 == stop or byte_at(buffer, at + 1) == _COMMA:
                return at + 1, write - begin
            if byte_at(buffer, at + 1) != _QUOTE:
                return -1, 0
            at += 1
        buffer[write] = buffer[at]
        write, at = write + 1, at + 1
    return -1, 0

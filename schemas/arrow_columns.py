"""An Arrow column as flat arrays: the one place that knows Arrow's types, and pyarrow, which is untyped.

A column is text, numbers, or something that no event holds. Null is absent; so is NaN, as pandas writes null.
"""

# ruff: noqa: ANN401 - pyarrow has no types

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.events import BUFFER_PADDING, MAX_INTEGER

_MS_FACTORS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
_DAY_MS = 86_400_000
_MOST_BYTES = (1 << 31) - 1
_CERTAIN_SECONDS = 1 << 52
"""Seconds beyond this are in no range that is accepted, and times 1000 they still fit 64 bits."""


@dataclass(slots=True)
class Text:
    """A column of strings or bytes: spans int32[n] into uint8[...], length 0 is absent. UTF-8 is not checked.

    ``too_long`` is bool[n] where a cell was longer than allowed (its span is empty then), None where none
    was.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int32]
    lengths: NDArray[np.int32]
    too_long: NDArray[np.bool_] | None = None

    @property
    def present(self) -> NDArray[np.bool_]:
        """Rows that hold something."""
        return self.lengths > 0


@dataclass(slots=True)
class Numbers:
    """A column of numbers: int64[n], uint64[n] or float64[n] (NaN where absent), and bool[n].

    ``digits`` holds the integers of 2**53 and more in size as text, if there are any: a double cannot tell
    neighbours apart.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]
    is_boolean: bool = False
    digits: Text | None = None


@dataclass(slots=True)
class Other:
    """A column of what is neither (lists, structs, times of day): bool[n]."""

    present: NDArray[np.bool_]


def read_column(column: Any, *, most_bytes: int) -> Text | Numbers | Other:
    """Read an Arrow ChunkedArray.

    Dictionaries count as their values, dates and timestamps (without a zone: UTC) as epoch milliseconds,
    decimals as float64. Cells of more than ``most_bytes`` are not read.
    """
    simple = _simple_type(column.type)
    if simple is not None:
        column = column.cast(simple, safe=False)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    match _form(array.type):
        case _Form.TEXT:
            return _read_text(array, most_bytes)
        case _Form.INTEGER:
            return _read_integers(array)
        case _Form.FLOAT:
            floats = array.to_numpy(zero_copy_only=False).astype(np.float64) + 0.0
            return Numbers(floats, ~np.isnan(floats))
        case _Form.BOOLEAN:
            return Numbers(_bits(array, 1).astype(np.int64), _present(array), is_boolean=True)
        case _Form.TIME:
            return Numbers(_epoch_ms(array), _present(array))
        case _Form.OTHER:
            return Other(_present(array))


class _Form(Enum):
    TEXT, INTEGER, FLOAT, BOOLEAN, TIME, OTHER = range(6)


@lru_cache(maxsize=256)
def _simple_type(kind: Any) -> Any:
    """Return the type that a column is cast to before it is read; None where it is read as it is."""
    types = pa.types
    if types.is_dictionary(kind):
        return _simple_type(kind.value_type) or kind.value_type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return pa.large_binary()
    return pa.float64() if types.is_decimal(kind) else None


@lru_cache(maxsize=256)
def _form(kind: Any) -> _Form:
    types = pa.types
    forms = {
        _Form.TEXT: (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary),
        _Form.INTEGER: (types.is_integer,),
        _Form.FLOAT: (types.is_floating,),
        _Form.BOOLEAN: (types.is_boolean,),
        _Form.TIME: (types.is_timestamp, types.is_date),
    }
    return next((form for form, tests in forms.items() if any(test(kind) for test in tests)), _Form.OTHER)


def _bits(array: Any, buffer: int) -> NDArray[np.bool_]:
    """Unpack a bitmap: bool[n]."""
    bitmap = np.frombuffer(array.buffers()[buffer] or b"", np.uint8)
    first, skipped = divmod(array.offset, 8)
    bits = np.unpackbits(bitmap[first : first + (skipped + len(array) + 7) // 8], bitorder="little")
    return bits[skipped : skipped + len(array)].view(np.bool_)


def _present(array: Any) -> NDArray[np.bool_]:
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.bool_)
    return _bits(array, 0) if array.null_count else np.ones(len(array), np.bool_)


def _values(array: Any, dtype: Any) -> NDArray[Any]:
    """View the values as they lie in memory; anything may stand where one is absent."""
    values = np.frombuffer(array.buffers()[1] or b"", dtype)
    return values[array.offset : array.offset + len(array)]


def _read_integers(array: Any) -> Numbers:
    present = _present(array)
    values = _values(array, array.type.to_pandas_dtype())
    if values.dtype.itemsize < 8:
        return Numbers(values.astype(np.int64), present)
    wide = values >= MAX_INTEGER
    if values.dtype == np.int64:
        wide |= values <= -MAX_INTEGER
    wide &= present
    if not wide.any():
        return Numbers(values, present)
    digits = _read_text(array.cast(pa.large_string()), most_bytes=len(str(-(1 << 63))))
    digits.lengths[~wide] = 0
    return Numbers(values, present, digits=digits)


def join_texts(texts: Sequence[Text]) -> NDArray[np.uint8]:
    """Copy the bytes of several columns behind each other, padded, and let the columns point there.

    Raises
    ------
    ValueError
        They have 2 GiB or more together.
    """
    end = sum(len(text.data) for text in texts)
    if end > _MOST_BYTES - BUFFER_PADDING:
        raise ValueError(f"texts of {end} bytes in one batch; expected less than 2 GiB")
    buffer = np.concatenate([*(text.data for text in texts), np.zeros(BUFFER_PADDING, np.uint8)])
    end = 0
    for text in texts:
        text.starts += np.int32(end)
        end += len(text.data)
        text.data = buffer
    return buffer


def _read_text(array: Any, most_bytes: int) -> Text:
    if len(array) == 0:
        return Text(np.zeros(0, np.uint8), np.zeros(0, np.int32), np.zeros(0, np.int32))
    large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    offsets: NDArray[Any] = np.frombuffer(array.buffers()[1], np.int64 if large else np.int32)
    offsets = offsets[array.offset : array.offset + len(array) + 1]
    lengths = offsets[1:] - offsets[:-1]
    if array.null_count:
        lengths[~_present(array)] = 0
    if lengths.max() > most_bytes:
        fits = lengths <= most_bytes
        kept = _read_text(array.filter(pa.array(fits)), most_bytes)
        spans = np.zeros((2, len(array)), np.int32)
        spans[0, fits], spans[1, fits] = kept.starts, kept.lengths
        return Text(kept.data, spans[0], spans[1], too_long=~fits)
    first, last = int(offsets[0]), int(offsets[-1])
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[first:last]
    return Text(data, (offsets[:-1] - first).astype(np.int32), lengths.astype(np.int32))


def _epoch_ms(array: Any) -> NDArray[np.int64]:
    if pa.types.is_date32(array.type):
        return _values(array, np.int32).astype(np.int64) * _DAY_MS
    times: NDArray[np.int64] = _values(array, np.int64)
    if pa.types.is_date64(array.type):
        return times
    factor, divisor = _MS_FACTORS[array.type.unit]
    if factor > 1:
        times = np.clip(times, -_CERTAIN_SECONDS, _CERTAIN_SECONDS)
    return times * factor // divisor

"""Fields of an event as keyed hashes and, for rare rows, as text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from schemas.config_blocks import ATTRIBUTE_PREFIX
from schemas.events import EventBatch, string_column
from schemas.keys import KeyRing, hash_spans, number_keys


def field_keys(batch: EventBatch, rows: NDArray[np.int64], field: str, ring: KeyRing) -> NDArray[np.uint64]:
    """Keyed hash of a string field or attribute in each of ``rows``; 0 where absent."""
    column = string_column(field, batch.attributes)
    salt = ring.salt(field)
    keys = hash_spans(batch.buffer, batch.starts[column][rows], batch.lengths[column][rows], *salt)
    if field.startswith(ATTRIBUTE_PREFIX):
        numbers = number_keys(_numbers(batch, field)[rows], *salt)
        keys = np.where(keys == 0, numbers, keys)
    return keys


def name_reader(batch: EventBatch, rows: NDArray[np.int64], field: str) -> Callable[[int], str]:
    """Function that gives the text of the field in the i-th of ``rows``, where it is present."""

    def read(i: int) -> str:
        text = batch.text(field, int(rows[i]))
        return number_text(float(_numbers(batch, field)[rows[i]])) if text is None else text

    return read


def number_text(number: float) -> str:
    """Write the value of a numeric attribute as a dimension value; booleans are 1 and 0.

    Examples
    --------
    >>> number_text(5.0), number_text(0.5)
    ('5', '0.5')
    """
    return str(int(number)) if number.is_integer() else repr(float(number))


def _numbers(batch: EventBatch, field: str) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = batch.attribute_numbers[
        batch.attributes.index(field.removeprefix(ATTRIBUTE_PREFIX))
    ]
    return numbers

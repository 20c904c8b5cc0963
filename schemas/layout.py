"""Which name in a record is which column of a batch, for one set of attributes and one field map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from schemas.events import (
    BUFFER_PADDING,
    FLOAT_FIELDS,
    INTEGER_FIELDS,
    KNOWN_FIELDS,
    LABEL_FIELD,
    STRING_FIELDS,
)

UNKNOWN = -1
"""Slot of a name that is an attribute which the config does not use."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Names and slots: string fields, attributes, integer fields, float fields and the label, in this order.

    Parameters
    ----------
    attributes
        Attributes that are kept.
    names
        The record's name of every field and attribute, with its slot.
    theirs
        For each of KNOWN_FIELDS the record's name for it.
    name_bytes, name_starts
        uint8[...], int64[names + 1]: the names one after the other, padded for whole-word reads.
    name_slots
        int64[names].
    first_integer, first_float, label
        Slot of the first integer field (before it are those that may hold strings), of the first float field,
        and of the label, which is the last one.
    """

    attributes: tuple[str, ...]
    names: Mapping[str, int]
    theirs: Mapping[str, str]
    name_bytes: NDArray[np.uint8]
    name_starts: NDArray[np.int64]
    name_slots: NDArray[np.int64]
    first_integer: int
    first_float: int
    label: int


def layout_of(attributes: tuple[str, ...], fields: Mapping[str, str] | None) -> Layout:
    """Layout for these attributes and this field map (our name -> their name); built once for each.

    A mapped field is found under their name alone: ``user_id`` of a record is an attribute where ``fields``
    says ``{"user_id": "uid"}``. An attribute that carries the name of a field is that field.
    """
    return _layout(attributes, tuple(sorted((fields or {}).items())))


@lru_cache(maxsize=64)
def _layout(attributes: tuple[str, ...], fields: tuple[tuple[str, str], ...]) -> Layout:
    mapped = dict(fields)
    theirs = {field: mapped.get(field, field) for field in KNOWN_FIELDS}
    slots = (*STRING_FIELDS, *attributes, *INTEGER_FIELDS, *FLOAT_FIELDS, LABEL_FIELD)
    first, last = len(STRING_FIELDS), len(STRING_FIELDS) + len(attributes)
    names = {slots[slot]: slot for slot in range(first, last)}
    names |= {theirs[slots[slot]]: slot for slot in range(len(slots)) if not first <= slot < last}
    encoded = [name.encode() for name in names]
    return Layout(
        attributes=attributes,
        names=names,
        theirs=theirs,
        name_bytes=np.frombuffer(bytearray(b"".join(encoded) + bytes(BUFFER_PADDING)), np.uint8),
        name_starts=np.cumsum([0, *map(len, encoded)]).astype(np.int64),
        name_slots=np.array(list(names.values()), np.int64),
        first_integer=last,
        first_float=last + len(INTEGER_FIELDS),
        label=last + len(INTEGER_FIELDS) + len(FLOAT_FIELDS),
    )

"""One row of a table as the JSON object of the same meaning, for the authority and for dead letters."""

# ruff: noqa: ANN401 - pyarrow has no types

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson

from schemas.arrow_columns import Numbers, Text, read_column
from schemas.layout import UNKNOWN, Layout
from schemas.number_texts import NUMBER_TEXT

_NO_LIMIT = (1 << 31) - 1
_INFINITE = {math.inf: b"1e999", -math.inf: b"-1e999"}
"""JSON by its grammar, and rejected by the authority for what it is."""


def row_as_json(sources: Mapping[str, Any], row: int, layout: Layout, *, csv: bool) -> bytes:
    """Write one row of Arrow columns as JSON.

    Absent cells are left out. Whole numbers of an integer field are written as integers, CSV texts of a
    number field as numbers where they are some. Bytes that are no UTF-8 are kept as they are, so the result
    is then no UTF-8.
    """
    members = []
    for name, source in sources.items():
        slot = layout.names.get(name, UNKNOWN)
        is_number = slot >= layout.first_integer
        is_integer = is_number and not layout.first_float <= slot < layout.label
        value = _cell(source.slice(row, 1), is_number=is_number and csv, is_integer=is_integer)
        if value:
            members.append(orjson.dumps(name) + b":" + value)
    return b"{" + b",".join(members) + b"}"


def _cell(source: Any, *, is_number: bool, is_integer: bool) -> bytes:
    """JSON of a column of one row; empty where it is absent."""
    cells = read_column(source, most_bytes=_NO_LIMIT)
    if not cells.present[0]:
        return b""
    if isinstance(cells, Text):
        text = cells.data[cells.starts[0] :][: cells.lengths[0]].tobytes()
        if is_number and NUMBER_TEXT.fullmatch(text.decode("latin-1")):
            return _integer_text(text) if is_integer else text
        return _string(text)
    if isinstance(cells, Numbers):
        value = cells.values[0].item()
        if cells.is_boolean:
            return b"true" if value else b"false"
        if is_integer and isinstance(value, float) and value.is_integer():
            value = int(value)
        return _INFINITE.get(value) or str(value).encode()
    return _nested(source[0])


def _integer_text(text: bytes) -> bytes:
    value = float(text)
    return str(int(value)).encode() if value.is_integer() and not text.isdigit() else text


def _string(text: bytes) -> bytes:
    try:
        return orjson.dumps(text.decode())
    except UnicodeDecodeError:
        return b'"' + text + b'"'


def _nested(scalar: Any) -> bytes:
    """Write what no event holds, always as a list or an object: its type is what it is rejected for."""
    try:
        value = scalar.as_py()
        return orjson.dumps(value if isinstance(value, (dict, list)) else [value], default=_plain)
    except (TypeError, ValueError):
        return b"[]"


def _plain(value: object) -> str:
    if isinstance(value, (date, datetime, Decimal)):
        return str(value)
    return repr(type(value))

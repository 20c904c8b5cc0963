"""What an event is, said once and slowly: every record that the fast reader leaves undecided is judged here.

The order of the checks is fixed, so a record with several faults is always rejected for the same one: the
whole record first, then its fields in the order of schemas.events.KNOWN_FIELDS, then its attributes as they
stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import orjson

from schemas.addresses import canonical_text
from schemas.event_checks import MOST_CHARACTERS
from schemas.events import (
    EARLIEST_TS_MS,
    FLOAT_FIELDS,
    FUTURE_TOLERANCE_MS,
    INTEGER_FIELDS,
    KNOWN_FIELDS,
    MAX_ATTRIBUTES,
    MAX_EVENT_BYTES,
    MAX_INTEGER,
    REQUIRED_FIELDS,
    STRING_FIELDS,
    RejectCode,
)
from schemas.layout import UNKNOWN, Layout

MAX_DEPTH = 64
"""Deeper nesting is TOO_DEEP, whatever else is wrong with it; an event has a depth of 1."""

_SHOWN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_LIMIT_DEGREES = {"lat": 90, "lon": 180}

Value = str | int | float
"""What a slot of the layout takes: text, an integer, or a number (booleans as 1.0 and 0.0)."""


class Fault(NamedTuple):
    """Why a record is no event."""

    code: RejectCode
    path: str
    expected: str


class _Rejected(Exception):
    """Carries a fault out of nested checks; nobody else sees it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault


def judge_record(
    raw: bytes,
    layout: Layout,
    *,
    record_ts_ms: int | None,
    strict_names: frozenset[str] | None,
    most_bytes: int = MAX_EVENT_BYTES,
) -> dict[int, Value] | Fault:
    """Read one record by the letter.

    Returns
    -------
    dict of int to Value, or Fault
        The values that are there, by slot (schemas.layout); an attribute that is an integer of 2**53 or more
        in size comes as an int, every other number of an attribute as a float.

    Examples
    --------
    >>> from schemas.layout import layout_of
    >>> fault = judge_record(b'{"event_id": 7}', layout_of((), None), record_ts_ms=None, strict_names=None)
    >>> fault.code.name, fault.path, fault.expected
    ('WRONG_TYPE', '$.event_id', 'a string of 1 to 64 characters')
    """
    try:
        document = _document(raw, most_bytes)
        values: dict[int, Value] = {}
        for field in KNOWN_FIELDS:
            name = layout.theirs[field]
            value = document.get(name)
            if value is not None and value != "":
                values[layout.names[name]] = _CHECKS[field](field, value, name)
            elif field in REQUIRED_FIELDS:
                _reject(RejectCode.MISSING, name, _EXPECTED[field])
        _check_time(document[layout.theirs["ts"]], record_ts_ms, layout.theirs["ts"])
        _check_place(document, layout)
        if strict_names is not None and document[layout.theirs["event"]] not in strict_names:
            _reject(RejectCode.UNKNOWN_EVENT, layout.theirs["event"], "an event name that the config lists")
        values |= _attributes(document, layout)
    except _Rejected as rejected:
        return rejected.fault
    return values


def _reject(code: RejectCode, name: str | None, expected: str) -> NoReturn:
    """Reject for a member or the whole record. A name that is no plain word may hold anything: not shown."""
    path = "$" if name is None else f"$.{name}" if _SHOWN_NAME.fullmatch(name) else "$.*"
    raise _Rejected(Fault(code, path, expected))


# -- the whole record ----------------------------------------------------------------------------------


def _document(raw: bytes, most_bytes: int) -> Mapping[str, Any]:
    if len(raw) > most_bytes:
        _reject(RejectCode.TOO_LARGE, None, f"at most {most_bytes} bytes")
    try:
        raw.decode()
    except UnicodeDecodeError:
        _reject(RejectCode.NOT_UTF8, None, "UTF-8")
    if _is_deep(raw):
        _reject(RejectCode.TOO_DEEP, None, f"at most {MAX_DEPTH} levels of nesting")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "infinity" in error.msg:
            _reject(RejectCode.OUT_OF_RANGE, None, "numbers that a 64-bit float can hold")
        _reject(RejectCode.NOT_JSON, None, "a JSON object")
    if not isinstance(document, dict):
        _reject(RejectCode.NOT_AN_OBJECT, None, "a JSON object")
    return document


def _is_deep(raw: bytes) -> bool:
    """Whether brackets outside of strings nest deeper than MAX_DEPTH, also in what is no JSON."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for byte in _JSON_STRING.sub(b"", raw):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif byte in b"]}":
            depth -= 1
    return False


# -- fields --------------------------------------------------------------------------------------------


def _text(field: str, value: object, name: str) -> str:
    if not isinstance(value, str):
        _reject(RejectCode.WRONG_TYPE, name, _EXPECTED[field])
    if len(value) > MOST_CHARACTERS.get(field, len(value)):
        _reject(RejectCode.TOO_LONG, name, _EXPECTED[field])
    return value


def _ip(field: str, value: object, name: str) -> str:
    text = _text(field, value, name)
    try:
        return canonical_text(text)
    except ValueError:
        _reject(RejectCode.BAD_IP, name, _EXPECTED[field])


def _integer(field: str, value: object, name: str) -> int:
    # orjson reads integers of 2**64 and more as floats; all other floats have a fraction or an exponent.
    if isinstance(value, float) and value.is_integer() and abs(value) >= 2.0**63:
        _reject(RejectCode.OUT_OF_RANGE, name, _EXPECTED[field])
    if isinstance(value, bool) or not isinstance(value, int):
        _reject(RejectCode.WRONG_TYPE, name, _EXPECTED[field])
    if not 0 <= value < MAX_INTEGER:
        _reject(RejectCode.OUT_OF_RANGE, name, _EXPECTED[field])
    return value


def _degrees(field: str, value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _reject(RejectCode.WRONG_TYPE, name, _EXPECTED[field])
    if not abs(value) <= _LIMIT_DEGREES[field]:
        _reject(RejectCode.OUT_OF_RANGE, name, _EXPECTED[field])
    return float(value) + 0.0


def _label(field: str, value: object, name: str) -> int:
    if _integer(field, value, name) > 1:
        _reject(RejectCode.OUT_OF_RANGE, name, _EXPECTED[field])
    return int(value == 1)


def _check_time(ts: int, record_ts_ms: int | None, name: str) -> None:
    if ts < EARLIEST_TS_MS:
        _reject(RejectCode.TOO_OLD, name, "epoch milliseconds from 2000-01-01 on")
    if record_ts_ms is not None and record_ts_ms >= 0 and ts > record_ts_ms + FUTURE_TOLERANCE_MS:
        _reject(RejectCode.IN_THE_FUTURE, name, "at most 5 minutes after the record's own timestamp")


def _check_place(document: Mapping[str, Any], layout: Layout) -> None:
    lat, lon = (layout.theirs[field] for field in FLOAT_FIELDS)
    missing = [name for name in (lat, lon) if document.get(name) in (None, "")]
    if len(missing) == 1:
        _reject(RejectCode.HALF_COORDINATE, missing[0], "both coordinates or neither")


_EXPECTED = {
    **dict.fromkeys(STRING_FIELDS, "a string"),
    **{field: f"a string of 1 to {most} characters" for field, most in MOST_CHARACTERS.items()},
    "ip": "an IPv4 or IPv6 address",
    **dict.fromkeys(INTEGER_FIELDS, "an integer from 0 to 2^53 - 1"),
    **{field: f"a number from -{limit} to {limit}" for field, limit in _LIMIT_DEGREES.items()},
    "label": "0, 1 or null",
}
_CHECKS: dict[str, Callable[[str, object, str], Value]] = {
    **dict.fromkeys(STRING_FIELDS, _text),
    "ip": _ip,
    **dict.fromkeys(INTEGER_FIELDS, _integer),
    **dict.fromkeys(FLOAT_FIELDS, _degrees),
    "label": _label,
}


# -- attributes ----------------------------------------------------------------------------------------


def _attributes(document: Mapping[str, Any], layout: Layout) -> dict[int, Value]:
    kept: dict[int, Value] = {}
    count, first, behind = 0, len(STRING_FIELDS), layout.first_integer
    for name, value in document.items():
        slot = layout.names.get(name, UNKNOWN)
        if value is None or value == "" or (slot != UNKNOWN and not first <= slot < behind):
            continue
        if not isinstance(value, (str, int, float)):
            _reject(RejectCode.WRONG_TYPE, name, "a string, a number or a boolean")
        count += 1
        if slot != UNKNOWN:
            kept[slot] = _attribute(value)
    if count > MAX_ATTRIBUTES:
        _reject(RejectCode.TOO_MANY_ATTRIBUTES, None, f"at most {MAX_ATTRIBUTES} attributes")
    return kept


def _attribute(value: str | float) -> Value:
    if isinstance(value, str):
        return value
    if not isinstance(value, bool) and isinstance(value, int) and abs(value) >= MAX_INTEGER:
        return value
    return float(value) + 0.0

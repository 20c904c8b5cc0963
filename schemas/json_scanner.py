"""The fast reader of events: one pass over the joined records, strings left where they are.

It reads a subset of JSON exactly as the authority (schemas.json_authority) does, and leaves every row that it
does not like UNDECIDED; it rejects nothing. Subset: a flat object; strings, also with escapes; numbers of up
to 19 digits; true, false and null; UTF-8 checked. A name that comes twice counts with its last value, in
both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.decimals import INTEGER, NOT_A_NUMBER, read_number, to_double
from schemas.events import (
    ABSENT_INTEGER,
    FLOAT_FIELDS,
    INTEGER_FIELDS,
    MAX_ATTRIBUTES,
    MAX_INTEGER,
    STRING_FIELDS,
)
from schemas.flat_kernels import flat_kernel, inlined
from schemas.json_strings import HAS_ESCAPES, HAS_HIGH_BYTES, is_utf8, string_end, unescape
from schemas.layout import UNKNOWN, Layout
from schemas.words import byte_at, word_at

DECIDED, UNDECIDED = 0, 255
SEPARATOR = b"\0"
"""Between two records: no JSON token goes on across it."""

_STRINGS, _INTEGERS, _FLOATS = len(STRING_FIELDS), len(INTEGER_FIELDS), len(FLOAT_FIELDS)
_NULL, _NUMBER, _TEXT, _BOOLEAN = range(4)
_KEEP = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
_NULL_WORD, _TRUE_WORD, _ALSE_WORD = (
    np.uint64(int.from_bytes(word, "little")) for word in (b"null", b"true", b"alse")
)
_REMEMBERED = 64


def scan_records(
    buffer: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    layout: Layout,
    *,
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    labels: NDArray[np.int8],
    status: NDArray[np.uint8],
) -> None:
    """Read every record into the columns, which hold "absent" so far.

    Parameters
    ----------
    buffer
        Records, each followed by SEPARATOR, and padding behind; escapes are resolved in place.
    bounds
        int64[n + 1]: where each record begins; the last one is where the next would.
    layout
        Which name belongs to which column.
    starts, lengths, integers, labels
        As in schemas.events.EventBatch.
    floats
        float64[2 + attributes, n]: the float fields and then the attributes that are numbers.
    status
        uint8[n], written: DECIDED, or UNDECIDED where the columns of the row mean nothing.
    """
    # What stood at the n-th place of the latest record: producers write their fields in one order.
    seen_words = np.zeros((2, _REMEMBERED), np.uint64)
    seen_slots = np.full((2, _REMEMBERED), UNKNOWN, np.int64)
    _scan(
        buffer,
        bounds,
        layout.name_bytes,
        layout.name_starts,
        layout.name_slots,
        seen_words,
        seen_slots,
        starts,
        lengths,
        integers,
        floats,
        labels,
        status,
    )


@flat_kernel
def _scan(
    buffer: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    name_bytes: NDArray[np.uint8],
    name_starts: NDArray[np.int64],
    name_slots: NDArray[np.int64],
    seen_words: NDArray[np.uint64],
    seen_slots: NDArray[np.int64],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    labels: NDArray[np.int8],
    status: NDArray[np.uint8],
) -> None:
    for row in range(status.shape[0]):
        status[row] = UNDECIDED
        at, stop, place, extras = bounds[row], bounds[row + 1] - 1, 0, 0
        more = byte_at(buffer, at) == 123
        while more:
            start, end, at = _read_name(buffer, at + 1, stop)
            if at < 0:
                break
            slot = _slot_of(
                buffer, start, end, name_bytes, name_starts, name_slots, seen_words, seen_slots, place
            )
            place = min(place + 1, _REMEMBERED - 1)
            at, form, start, size, integer, number = _read_value(buffer, at, stop)
            if at < 0 or not _store(
                row, slot, form, start, size, integer, number, starts, lengths, integers, floats, labels
            ):
                break
            extras += form != _NULL and (slot < 0 or _STRINGS <= slot < lengths.shape[0])
            at = _skip(buffer, at)
            more = byte_at(buffer, at) == 44
            if not more and byte_at(buffer, at) == 125 and _skip(buffer, at + 1) == stop:
                status[row] = DECIDED if extras <= MAX_ATTRIBUTES else UNDECIDED


@inlined
def _store(
    row: int,
    slot: int,
    form: int,
    start: int,
    size: int,
    integer: int,
    number: float,
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    labels: NDArray[np.int8],
) -> bool:
    """Put a value where it belongs; false where a field does not take it."""
    texts = lengths.shape[0]
    first_float, label = texts + _INTEGERS, texts + _INTEGERS + _FLOATS
    if slot < 0:
        return True
    if slot < texts:
        starts[slot, row], lengths[slot, row] = start, size
        if slot < _STRINGS:
            return form == _NULL or form == _TEXT  # noqa: PLR1714 -- compiles better than a tuple
        floats[_FLOATS + slot - _STRINGS, row] = number
        return True
    if form > _NUMBER:
        return False
    if first_float <= slot < label:
        floats[slot - first_float, row] = number
        return True
    if slot < first_float:
        integers[slot - texts, row] = integer
    else:
        labels[row] = integer
    return form == _NULL or (integer >= 0 and (slot < first_float or integer <= 1))


@inlined
def _skip(buffer: NDArray[np.uint8], at: int) -> int:
    """Index of the first byte from ``at`` on that is not white space."""
    byte = byte_at(buffer, at)
    while byte == 32 or byte == 10 or byte == 13 or byte == 9:  # noqa: PLR1714 -- compiles better than a tuple
        at += 1
        byte = byte_at(buffer, at)
    return at


@inlined
def _read_name(buffer: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int, int]:
    """Read ``"name" :``: where the name begins and ends, and where its value begins (-1 if unread)."""
    start = _skip(buffer, at) + 1
    if byte_at(buffer, start - 1) != 34:
        return 0, 0, -1
    end, flags = string_end(buffer, start, stop)
    if end < 0 or flags & HAS_ESCAPES or (flags & HAS_HIGH_BYTES and not is_utf8(buffer, start, end)):
        return 0, 0, -1
    colon = _skip(buffer, end + 1)
    if byte_at(buffer, colon) != 58:
        return 0, 0, -1
    return start, end, _skip(buffer, colon + 1)


@inlined
def _end_words(buffer: NDArray[np.uint8], start: int, end: int) -> tuple[np.uint64, np.uint64]:
    """First and last eight bytes of a span: with its length all of it, up to 16 bytes."""
    if end - start < 8:
        word = word_at(buffer, start) & _KEEP[end - start]
        return word, word
    return word_at(buffer, start), word_at(buffer, end - 8)


@inlined
def _slot_of(
    buffer: NDArray[np.uint8],
    start: int,
    end: int,
    name_bytes: NDArray[np.uint8],
    name_starts: NDArray[np.int64],
    name_slots: NDArray[np.int64],
    seen_words: NDArray[np.uint64],
    seen_slots: NDArray[np.int64],
    place: int,
) -> int:
    """Slot of a name, first by what stood at this place in the record before."""
    first, last = _end_words(buffer, start, end)
    size = end - start
    if first == seen_words[0, place] and last == seen_words[1, place] and size == seen_slots[0, place]:
        return int(seen_slots[1, place])
    slot, exact = _find_name(buffer, start, size, first, last, name_bytes, name_starts, name_slots)
    if exact:
        seen_words[0, place], seen_words[1, place] = first, last
        seen_slots[0, place], seen_slots[1, place] = size, slot
    return slot


@flat_kernel
def _find_name(
    buffer: NDArray[np.uint8],
    start: int,
    size: int,
    first: np.uint64,
    last: np.uint64,
    name_bytes: NDArray[np.uint8],
    name_starts: NDArray[np.int64],
    name_slots: NDArray[np.int64],
) -> tuple[int, bool]:
    """Slot of a name, and whether every name of this length with these end words has that slot."""
    exact = True
    for index in range(name_slots.shape[0]):
        begin, end = name_starts[index], name_starts[index + 1]
        if end - begin != size:
            continue
        name_first, name_last = _end_words(name_bytes, begin, end)
        if first != name_first or last != name_last:
            continue
        exact, k = size <= 16, 8
        while k < size - 8 and buffer[start + k] == name_bytes[begin + k]:
            k += 1
        if k >= size - 8:
            return name_slots[index], exact
    return UNKNOWN, exact


@inlined
def _read_value(buffer: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int, int, int, int, float]:
    """Read a value.

    Returns
    -------
    tuple
        (index behind it, form, start and length of its text, integer, number). The index is -1 for what is
        not read here. The integer is -1 for what an integer field does not take, the number NaN for what is
        none; an integer of 2**53 and more has a text as well, its digits, because its number is no longer
        exact.
    """
    byte = byte_at(buffer, at)
    if byte == 34:
        end, size = _read_text(buffer, at + 1, stop)
        return end, _TEXT if size > 0 else _NULL, at + 1, size, ABSENT_INTEGER, np.nan
    if byte == 45 or 48 <= byte <= 57:
        return _read_number(buffer, at)
    word = word_at(buffer, at) & _KEEP[4]
    if word == _NULL_WORD:
        return at + 4, _NULL, 0, 0, ABSENT_INTEGER, np.nan
    if word == _TRUE_WORD:
        return at + 4, _BOOLEAN, 0, 0, ABSENT_INTEGER, 1.0
    if byte == 102 and word_at(buffer, at + 1) & _KEEP[4] == _ALSE_WORD:
        return at + 5, _BOOLEAN, 0, 0, ABSENT_INTEGER, 0.0
    return -1, _NULL, 0, 0, ABSENT_INTEGER, np.nan


@inlined
def _read_text(buffer: NDArray[np.uint8], start: int, stop: int) -> tuple[int, int]:
    """Read a string: (index behind its closing quote, length without escapes), (-1, 0) if unsound."""
    end, flags = string_end(buffer, start, stop)
    if end < 0 or (flags & HAS_HIGH_BYTES and not is_utf8(buffer, start, end)):
        return -1, 0
    size = unescape(buffer, start, end) if flags & HAS_ESCAPES else end - start
    return (end + 1, size) if size >= 0 else (-1, 0)


@inlined
def _read_number(buffer: NDArray[np.uint8], at: int) -> tuple[int, int, int, int, int, float]:
    form, end, digits, power = read_number(buffer, at)
    number = to_double(digits, power)
    if form == NOT_A_NUMBER or np.isnan(number):
        return -1, _NULL, 0, 0, ABSENT_INTEGER, np.nan
    negative = byte_at(buffer, at) == 45
    # Adding zero makes -0.0, which would hash unlike 0.0, to 0.0.
    number = (-number if negative else number) + 0.0
    if form == INTEGER and digits >= MAX_INTEGER:
        return end, _NUMBER, at, end - at, ABSENT_INTEGER, number
    integer = digits if form == INTEGER and not negative else ABSENT_INTEGER
    return end, _NUMBER, 0, 0, integer, number

"""What the values of a list mean for its entity: read as events are read, so that equal things have equal keys.

Addresses may be networks and phones prefixes; ``phone_segment``, ``ip_prefix_24``, ``ip_prefix_48`` and ``gps_cell``
are numbers, as in :mod:`detectors.entities`; every other entity is its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from h3.api import basic_int
from numpy.typing import NDArray

from detectors.gps_cells import RESOLUTION
from detectors.phone_numbers import CHINA
from detectors.phone_segments import SEGMENT_DIGITS
from schemas.addresses import IPV4, IPV6, NO_ADDRESS, read_address
from schemas.flat_kernels import flat_kernel, inlined
from schemas.list_rows import VALUE, ListRows, ValueCheck
from schemas.words import byte_at

NO_PREFIX, NOT_DIGITS = -1, 0
"""A value that can be no phone, and one with letters: a masked or hashed phone is known by its text."""

_IPV4_BITS, _IPV6_BITS = 32, 128
_MOST_DIGITS = 15
"""Of a phone number with its country code (ITU E.164)."""

_CHINESE_MOBILE = 861
_CELL_DIGITS = 15

Words = tuple[NDArray[np.uint64], NDArray[np.bool_]]


class Networks(NamedTuple):
    """Addresses and networks: the first address as 128 bits, how many of its bits count, IPV4, IPV6 or NO_ADDRESS."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    bits: NDArray[np.int64]
    family: NDArray[np.uint8]


def read_networks(rows: ListRows) -> Networks:
    """Read addresses and CIDR; NO_ADDRESS where it is neither, or has bits set behind its prefix."""
    count = len(rows)
    networks = Networks(
        np.zeros(count, np.uint64),
        np.zeros(count, np.uint64),
        np.zeros(count, np.int64),
        np.zeros(count, np.uint8),
    )
    _read_networks(rows.buffer, rows.starts[VALUE], rows.lengths[VALUE], *networks)
    return networks


def read_phone_prefixes(rows: ListRows) -> NDArray[np.int64]:
    """Read beginnings of phone numbers as digits with their country code: int64[n], NOT_DIGITS or NO_PREFIX.

    Without ``+`` or ``00`` a number is Chinese, as in events: 138, 86138, 0086138 and +86 138 are one prefix, 010 is
    8610.
    """
    prefixes = np.zeros(len(rows), np.int64)
    _read_phone_prefixes(rows.buffer, rows.starts[VALUE], rows.lengths[VALUE], prefixes)
    return prefixes


def _read_segments(rows: ListRows) -> Words:
    words = np.zeros(len(rows), np.int64)
    _read_digits(rows.buffer, rows.starts[VALUE], rows.lengths[VALUE], SEGMENT_DIGITS, words)
    return words.astype(np.uint64), words >= 0


def _read_prefixes_24(rows: ListRows) -> Words:
    networks = read_networks(rows)
    sound = (networks.family == IPV4) & np.isin(networks.bits, (24, 32))
    return networks.low >> np.uint64(8), sound


def _read_prefixes_48(rows: ListRows) -> Words:
    networks = read_networks(rows)
    sound = (networks.family == IPV6) & np.isin(networks.bits, (48, 128))
    return networks.high >> np.uint64(16), sound


def _read_cells(rows: ListRows) -> Words:
    cells = [_cell(rows.text(VALUE, row)) for row in range(len(rows))]
    words = np.array(cells, np.uint64)
    return words, words != 0


def _cell(text: str) -> int:
    try:
        cell = int(text, 16) if len(text) == _CELL_DIGITS else 0
    except ValueError:
        return 0
    sound = basic_int.is_valid_cell(cell) and basic_int.get_resolution(cell) == RESOLUTION
    return cell if sound else 0


NUMBERED: Mapping[str, Callable[[ListRows], Words]] = {
    "phone_segment": _read_segments,
    "ip_prefix_24": _read_prefixes_24,
    "ip_prefix_48": _read_prefixes_48,
    "gps_cell": _read_cells,
}
"""Entities that are numbers: uint64[n], and bool[n] which values are such."""

_EXPECTED = {
    "ip": "an address, or a network such as 203.0.113.0/24 with no bit set behind its prefix",
    "phone": f"the beginning of a phone number, at most {_MOST_DIGITS} digits, such as 1380013 or +44 20",
    "phone_segment": f"the first {SEGMENT_DIGITS} digits of a national number",
    "ip_prefix_24": "an IPv4 network such as 203.0.113.0/24, or an address in it",
    "ip_prefix_48": "an IPv6 network such as 2001:db8:1::/48, or an address in it",
    "gps_cell": f"an H3 cell of resolution {RESOLUTION}, such as 88309959d1fffff",
}


def value_check(entity: str) -> tuple[ValueCheck, str]:
    """Which values of a list can not be such an entity, and what is expected there."""
    if entity == "ip":
        return lambda rows: read_networks(rows).family == NO_ADDRESS, _EXPECTED[entity]
    if entity == "phone":
        return lambda rows: read_phone_prefixes(rows) == NO_PREFIX, _EXPECTED[entity]
    if read := NUMBERED.get(entity):
        return lambda rows: ~read(rows)[1], _EXPECTED[entity]
    return lambda rows: np.zeros(len(rows), np.bool_), "a text"


@flat_kernel
def _read_networks(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    bits: NDArray[np.int64],
    family: NDArray[np.uint8],
) -> None:
    for row in range(starts.shape[0]):
        start, end = starts[row], starts[row] + lengths[row]
        slash, is_v6 = end, False
        for at in range(start, end):
            byte = byte_at(buffer, at)
            is_v6 |= byte == 58
            if byte == 47 and slash == end:
                slash = at
        kind, high[row], low[row] = read_address(buffer, start, slash - start)
        width = _IPV6_BITS if is_v6 else _IPV4_BITS
        length = width if slash == end else _decimal(buffer, slash + 1, end)
        # An IPv4 address in IPv6 is IPv4 to events: its last 32 bits.
        length -= 96 if is_v6 and kind == IPV4 else 0
        most = _IPV4_BITS if kind == IPV4 else _IPV6_BITS
        sound = kind != NO_ADDRESS and 0 <= length <= most and _ends(high[row], low[row], most - length)
        bits[row] = length
        family[row] = kind if sound else NO_ADDRESS


@inlined
def _decimal(buffer: NDArray[np.uint8], start: int, end: int) -> int:
    """A number of one to three digits without a leading zero; far out of range for anything else."""
    value, sound = 0, 0 < end - start <= 3 and not (end - start > 1 and byte_at(buffer, start) == 48)
    for at in range(start, min(end, start + 3)):
        digit = byte_at(buffer, at) - 48
        sound &= 0 <= digit <= 9
        value = value * 10 + digit
    return value if sound else -1000


@inlined
def _ends(high: np.uint64, low: np.uint64, free: int) -> bool:
    """Whether the last ``free`` of 128 bits are zero."""
    one = np.uint64(1)
    if free >= 128:
        return bool(high == np.uint64(0) and low == np.uint64(0))
    if free >= 64:
        return bool(low == np.uint64(0) and high & ((one << np.uint64(free - 64)) - one) == np.uint64(0))
    return bool(low & ((one << np.uint64(free)) - one) == np.uint64(0))


@flat_kernel
def _read_digits(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    digits: int,
    words: NDArray[np.int64],
) -> None:
    for row in range(starts.shape[0]):
        value, sound = 0, lengths[row] == digits
        for at in range(starts[row], starts[row] + min(lengths[row], digits)):
            digit = byte_at(buffer, at) - 48
            sound &= 0 <= digit <= 9
            value = value * 10 + digit
        words[row] = value if sound else -1


@flat_kernel
def _read_phone_prefixes(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    prefixes: NDArray[np.int64],
) -> None:
    for row in range(starts.shape[0]):
        prefixes[row] = _read_phone_prefix(buffer, starts[row], starts[row] + lengths[row])


@inlined
def _read_phone_prefix(buffer: NDArray[np.uint8], start: int, end: int) -> int:
    plus = start < end and byte_at(buffer, start) == 43
    value, digits, zeros, letters, plain = 0, 0, 0, False, True
    for at in range(start + plus, end):
        byte = byte_at(buffer, at)
        if 48 <= byte <= 57:
            if byte == 48 and digits == 0:
                zeros += 1
            elif digits <= _MOST_DIGITS:
                value, digits = value * 10 + byte - 48, digits + 1
        elif 97 <= byte | 32 <= 122 or byte == 42:
            letters = True
        elif not (byte == 32 or byte == 40 or byte == 41 or 45 <= byte <= 47):  # noqa: PLR1714 -- compiles better
            plain = False
    if letters:
        return NOT_DIGITS
    coded = plus or zeros == 2 or (zeros == 0 and _begins(value, digits))
    if not coded:
        value, digits = value + CHINA * 10**digits, digits + 2
    sound = plain and zeros <= 2 and not (plus and zeros > 0) and value > 0 and digits <= _MOST_DIGITS
    return value if sound and (coded or digits > 2) else NO_PREFIX


@inlined
def _begins(value: int, digits: int) -> bool:
    """Whether it is a Chinese mobile number, or its beginning, with 86 before it."""
    return digits >= 3 and value // 10 ** (digits - 3) == _CHINESE_MOBILE

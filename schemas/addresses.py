"""IP addresses as text in a buffer: read, and written canonically, without leaving compiled code.

Canonical is what equals for everybody who shares the address: IPv4 dotted without leading zeros (those are
refused, since some read them as octal), IPv4-mapped IPv6 as IPv4, other IPv6 in lower case with its longest
run of zero groups compressed (RFC 5952), no zone.
"""

from __future__ import annotations

import ipaddress

import numpy as np
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel, inlined
from schemas.words import byte_at

NO_ADDRESS, IPV4, IPV6 = 0, 4, 6

_NONE, _SIXTEEN = np.uint64(0), np.uint64(16)
_MAPPED_PREFIX = np.uint64(0xFFFF)
_LOW_32 = np.uint64(0xFFFFFFFF)


def canonical_text(text: str) -> str:
    """Make one address canonical: the reference for the compiled functions below.

    Raises
    ------
    ValueError
        It is no address; the message repeats the text.

    Examples
    --------
    >>> canonical_text("::FFFF:10.0.0.1"), canonical_text("2001:DB8:0:0::1")
    ('10.0.0.1', '2001:db8::1')
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone")
        address = address.ipv4_mapped or address
    return str(address)


def ip_prefixes(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    *,
    version: int,
    bits: int,
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Read the first bits of the addresses of one IP version: uint64[n], and bool[n] which texts are such.

    ``bits`` is at most 32 of IPv4 and at most 64 of IPv6.
    """
    prefixes, present = np.zeros(len(starts), np.uint64), np.zeros(len(starts), np.bool_)
    _read_prefixes(buffer, starts, lengths, version, bits, prefixes, present)
    return prefixes, present


@flat_kernel
def _read_prefixes(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    version: int,
    bits: int,
    prefixes: NDArray[np.uint64],
    present: NDArray[np.bool_],
) -> None:
    for row in range(starts.shape[0]):
        if lengths[row] == 0:
            continue
        family, high, low = read_address(buffer, starts[row], lengths[row])
        if family == version:
            word, width = (low, 32) if family == IPV4 else (high, 64)
            prefixes[row], present[row] = word >> np.uint64(width - bits), True


@flat_kernel
def read_address(buffer: NDArray[np.uint8], start: int, length: int) -> tuple[int, np.uint64, np.uint64]:
    """Read an address: (IPV4, 0, 32 bits), (IPV6, high 64 bits, low 64 bits) or (NO_ADDRESS, 0, 0)."""
    value = _read_ipv4(buffer, start, start + length)
    if value >= 0:
        return IPV4, _NONE, np.uint64(value)
    family, high, low = _read_ipv6(buffer, start, start + length)
    if family == IPV6 and high == _NONE and low >> np.uint64(32) == _MAPPED_PREFIX:
        return IPV4, _NONE, low & _LOW_32
    return family, high, low


@flat_kernel
def canonicalize(buffer: NDArray[np.uint8], start: int, length: int) -> int:
    """Write an address canonically over its own text and return the new length.

    -1, with the text as it was, for what is no address, and for the rare address whose canonical text is
    longer (``1::3:4:5:6:7:8``).
    """
    if _read_ipv4(buffer, start, start + length) >= 0:
        return length
    family, high, low = read_address(buffer, start, length)
    if family == NO_ADDRESS:
        return -1
    if family == IPV4:
        return _write_ipv4(buffer, start, int(np.int64(low)))
    if _ipv6_length(high, low) > length:
        return -1
    return _write_ipv6(buffer, start, high, low)


@inlined
def _read_ipv4(buffer: NDArray[np.uint8], start: int, end: int) -> int:
    """32 bits, or -1."""
    value, part, parts, digits = 0, 0, 0, 0
    for at in range(start, end):
        byte = byte_at(buffer, at)
        if 48 <= byte <= 57 and digits < 3 and not (digits > 0 and part == 0):
            part, digits = part * 10 + byte - 48, digits + 1
        elif byte == 46 and digits > 0 and part < 256 and parts < 3:
            value, parts, part, digits = value << 8 | part, parts + 1, 0, 0
        else:
            return -1
    if parts != 3 or digits == 0 or part > 255:
        return -1
    return value << 8 | part


@flat_kernel
def _read_ipv6(buffer: NDArray[np.uint8], start: int, end: int) -> tuple[int, np.uint64, np.uint64]:
    """Groups before ``::`` fill 128 bits from the left, groups behind it push from the right."""
    head_high, head_low, tail_high, tail_low = _NONE, _NONE, _NONE, _NONE
    heads, tails, compressed, at = 0, 0, False, start
    if end - start >= 2 and byte_at(buffer, at) == 58 and byte_at(buffer, at + 1) == 58:
        compressed, at = True, at + 2
    while at < end:
        at, group, bits = _read_group(buffer, at, end)
        if bits == 0 or heads + tails + (bits >> 4) > 8:
            return NO_ADDRESS, _NONE, _NONE
        for part in range(bits - 16, -1, -16):
            word = np.uint64(group >> part & 0xFFFF)
            if compressed:
                tail_high = tail_high << _SIXTEEN | tail_low >> np.uint64(48)
                tail_low, tails = tail_low << _SIXTEEN | word, tails + 1
            elif heads < 4:
                head_high, heads = head_high | word << np.uint64(48 - 16 * heads), heads + 1
            else:
                head_low, heads = head_low | word << np.uint64(112 - 16 * heads), heads + 1
        at, sound, gap = _read_separator(buffer, at, end)
        if not sound or (gap and compressed):
            return NO_ADDRESS, _NONE, _NONE
        compressed = compressed or gap
    if heads + tails > 7 if compressed else heads != 8:
        return NO_ADDRESS, _NONE, _NONE
    return IPV6, head_high | tail_high, head_low | tail_low


@flat_kernel
def _read_group(buffer: NDArray[np.uint8], start: int, end: int) -> tuple[int, int, int]:
    """Read hex digits or an IPv4 address at the end: (index behind, value, bits); bits 0: neither."""
    value, at = 0, start
    while at < end and at < start + 5:
        byte = byte_at(buffer, at)
        if 48 <= byte <= 57:
            value = value << 4 | byte - 48
        elif 97 <= byte | 32 <= 102:
            value = value << 4 | (byte | 32) - 87
        else:
            break
        at += 1
    if at < end and byte_at(buffer, at) == 46:
        value = _read_ipv4(buffer, start, end)
        return end, value, 32 if value >= 0 else 0
    return at, value, 16 if start < at < start + 5 else 0


@flat_kernel
def _read_separator(buffer: NDArray[np.uint8], at: int, end: int) -> tuple[int, bool, bool]:
    """Read what follows a group: (index behind, sound, is ``::``); a single ``:`` at the end is unsound."""
    if at == end:
        return at, True, False
    if byte_at(buffer, at) != 58 or at + 1 == end:
        return at, False, False
    gap = byte_at(buffer, at + 1) == 58
    return at + 2 if gap else at + 1, True, gap


@flat_kernel
def _group(high: np.uint64, low: np.uint64, index: int) -> int:
    word = high if index < 4 else low
    return int(np.int64(word >> np.uint64(48 - 16 * (index & 3)))) & 0xFFFF


@flat_kernel
def _longest_gap(high: np.uint64, low: np.uint64) -> tuple[int, int]:
    """Find the longest run of two or more zero groups, the first of equals: (first, behind), else (8, 8)."""
    best, best_end, first = 8, 8, 0
    for index in range(9):
        if index == 8 or _group(high, low, index) != 0:
            if index - first >= 2 and index - first > best_end - best:
                best, best_end = first, index
            first = index + 1
    return best, best_end


@flat_kernel
def _hex_digits(value: int) -> int:
    return 1 + (value > 0xF) + (value > 0xFF) + (value > 0xFFF)


@flat_kernel
def _ipv6_length(high: np.uint64, low: np.uint64) -> int:
    gap, gap_end = _longest_gap(high, low)
    length = 7 if gap == 8 else 2 + max(gap - 1, 0) + max(7 - gap_end, 0)
    for index in range(8):
        if index < gap or index >= gap_end:
            length += _hex_digits(_group(high, low, index))
    return length


@flat_kernel
def _write_ipv6(buffer: NDArray[np.uint8], start: int, high: np.uint64, low: np.uint64) -> int:
    gap, gap_end = _longest_gap(high, low)
    at, index = start, 0
    while index < 8:
        if index == gap:
            buffer[at], buffer[at + 1] = 58, 58
            at, index = at + 2, gap_end
            continue
        if index > 0 and index != gap_end:
            buffer[at] = 58
            at += 1
        group = _group(high, low, index)
        for digit in range(_hex_digits(group) - 1, -1, -1):
            nibble = group >> 4 * digit & 0xF
            buffer[at] = 48 + nibble if nibble < 10 else 87 + nibble
            at += 1
        index += 1
    return at - start


@flat_kernel
def _write_ipv4(buffer: NDArray[np.uint8], start: int, value: int) -> int:
    at = start
    for shift in (24, 16, 8, 0):
        octet = value >> shift & 0xFF
        if octet > 99:
            buffer[at] = 48 + octet // 100
            at += 1
        if octet > 9:
            buffer[at] = 48 + octet // 10 % 10
            at += 1
        buffer[at] = 48 + octet % 10
        at += 1
        if shift > 0:
            buffer[at] = 46
            at += 1
    return at - start

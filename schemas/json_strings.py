"""JSON strings in place: where one ends, whether it is UTF-8, how long it is, and its escapes resolved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel, inlined
from schemas.words import byte_at, trailing_zeros, word_at

HAS_ESCAPES, HAS_HIGH_BYTES = 1, 2

_ONES, _HIGH_BITS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES, _SPACES = (np.uint64(byte * 0x0101010101010101) for byte in (0x22, 0x5C, 0x20))
_NONE, _ONE = np.uint64(0), np.uint64(1)

_ESCAPED = np.zeros(256, np.uint8)
_ESCAPED[list(rb"\"/bfnrt")] = list(b'\\"/\b\f\n\r\t')
_HEX = np.full(256, -1, np.int64)
_HEX[list(b"0123456789abcdef")] = range(16)
_HEX[list(b"ABCDEF")] = range(10, 16)


@inlined
def string_end(buffer: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int]:
    """Find the closing quote of the string whose first byte is ``at``; the string must end before ``stop``.

    Returns
    -------
    tuple of int
        Index of the quote, and HAS_ESCAPES | HAS_HIGH_BYTES; the index is -1 where a control byte comes
        first.
    """
    flags, high = 0, _NONE
    while at < stop:
        word = word_at(buffer, at)
        quote, escape = word ^ _QUOTES, word ^ _BACKSLASHES
        # A high bit for each quote, backslash or byte below a space; the lowest one is never false.
        found = (
            ((quote - _ONES) & ~quote) | ((escape - _ONES) & ~escape) | ((word - _SPACES) & ~word)
        ) & _HIGH_BITS
        if found == _NONE:
            high |= word
            at += 8
            continue
        high |= word & ((found & (~found + _ONE)) - _ONE)
        at += trailing_zeros(found) >> 3
        byte = byte_at(buffer, at)
        if byte == 34:
            return at, flags | HAS_HIGH_BYTES if high & _HIGH_BITS != _NONE else flags
        if byte != 92:
            return -1, 0
        flags = HAS_ESCAPES
        at += 2
    return -1, 0


@flat_kernel
def is_utf8(buffer: NDArray[np.uint8], at: int, end: int) -> bool:
    """Whether the bytes [at, end) are UTF-8 as in RFC 3629: nothing overlong, no surrogates, to U+10FFFF."""
    while at < end:
        lead = byte_at(buffer, at)
        if lead < 0x80:
            at += 1
            continue
        more = (lead >= 0xC2) + (lead >= 0xE0) + (lead >= 0xF0)
        if more == 0 or lead > 0xF4 or at + more >= end:
            return False
        low = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
        high = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
        for k in range(1, more + 1):
            byte = byte_at(buffer, at + k)
            if byte < low or byte > high:
                return False
            low, high = 0x80, 0xBF
        at += more + 1
    return True


@flat_kernel
def characters(buffer: NDArray[np.uint8], start: int, length: int) -> int:
    """Code points in ``length`` bytes of UTF-8."""
    count = 0
    for at in range(start, start + length):
        count += (byte_at(buffer, at) & 0xC0) != 0x80
    return count


@flat_kernel
def unescape(buffer: NDArray[np.uint8], start: int, end: int) -> int:
    """Resolve the escapes of a string in place (it never grows): its new length, or -1 where one is wrong."""
    at, to = start, start
    while at < end:
        byte = byte_at(buffer, at)
        if byte != 92:
            buffer[to] = byte
            at, to = at + 1, to + 1
            continue
        letter = byte_at(buffer, at + 1)
        if letter == 117:
            at, point = _code_point(buffer, at, end)
            if point < 0:
                return -1
            to = _encode(buffer, to, point)
        elif _ESCAPED[letter]:
            buffer[to] = _ESCAPED[letter]
            at, to = at + 2, to + 1
        else:
            return -1
    return to - start


@flat_kernel
def _code_point(buffer: NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    r"""Read ``\uXXXX``, or two of them that are a surrogate pair: (index behind, code point or -1)."""
    point = _four_digits(buffer, at + 2, end)
    if point < 0xD800 or point > 0xDFFF:
        return at + 6, point
    if point > 0xDBFF or at + 12 > end or byte_at(buffer, at + 6) != 92 or byte_at(buffer, at + 7) != 117:
        return at, -1
    low = _four_digits(buffer, at + 8, end)
    if low < 0xDC00 or low > 0xDFFF:
        return at, -1
    return at + 12, 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)


@flat_kernel
def _four_digits(buffer: NDArray[np.uint8], at: int, end: int) -> int:
    if at + 4 > end:
        return -1
    value = 0
    for k in range(4):
        digit = _HEX[byte_at(buffer, at + k)]
        if digit < 0:
            return -1
        value = value << 4 | digit
    return value


@flat_kernel
def _encode(buffer: NDArray[np.uint8], to: int, point: int) -> int:
    """Write one code point as UTF-8 and return the index behind it."""
    if point < 0x80:
        buffer[to] = point
        return to + 1
    if point < 0x800:
        buffer[to] = 0xC0 | point >> 6
    else:
        if point < 0x10000:
            buffer[to] = 0xE0 | point >> 12
        else:
            buffer[to] = 0xF0 | point >> 18
            to += 1
            buffer[to] = 0x80 | (point >> 12 & 0x3F)
        to += 1
        buffer[to] = 0x80 | (point >> 6 & 0x3F)
    buffer[to + 1] = 0x80 | (point & 0x3F)
    return to + 2

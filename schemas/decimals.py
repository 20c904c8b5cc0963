"""Decimal numbers in text to float64, rounded as Python rounds them, without leaving compiled code.

The digits are read as one integer and a power of ten; the nearest double comes from one 64 x 64 bit
multiplication with the power's leading bits. The few cases that this cannot decide are left to the caller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel, inlined
from schemas.words import byte_at, high_product

NOT_A_NUMBER, INTEGER, DECIMAL = 0, 1, 2

_MOST_DIGITS = 19
_MOST_EXPONENT = 64
_ONE, _TOP_BIT = np.uint64(1), np.uint64(1 << 63)
_DISCARDED = np.uint64(0x1FF)
_FRACTION = np.uint64((1 << 52) - 1)
_EXACT_POWERS = np.array([10.0**power for power in range(23)])
_EXACT_INTEGER = np.uint64(1 << 53)


def _leading_bits(power: int) -> tuple[int, int]:
    """(t, e) with 10**power = t * 2**e, t having 64 bits and being cut off, not rounded."""
    if power >= 0:
        value = 10**power
        shift = value.bit_length() - 64
        return (value >> shift if shift > 0 else value << -shift), shift
    divisor = 10**-power
    shift = divisor.bit_length() + 64
    quotient = (1 << shift) // divisor
    excess = quotient.bit_length() - 64
    return quotient >> excess, excess - shift


_POWERS = [_leading_bits(power) for power in range(-_MOST_EXPONENT, _MOST_EXPONENT + 1)]
_POWER_BITS = np.array([bits for bits, _ in _POWERS], np.uint64)
_POWER_EXPONENTS = np.array([exponent for _, exponent in _POWERS], np.int64)


@inlined
def read_number(buffer: NDArray[np.uint8], start: int) -> tuple[int, int, int, int]:
    """Read one JSON number.

    Returns
    -------
    tuple of int
        (form, end, digits, power): the value is digits * 10**power without its sign (byte ``start`` is ``-``
        for negative ones). ``form`` is NOT_A_NUMBER also for numbers of more than 19 digits, above 2**63, or
        with exponents of more than two digits, which the caller must read otherwise.
    """
    first = start + 1 if byte_at(buffer, start) == 45 else start
    at, digits = _read_digits(buffer, first, 0, first + _MOST_DIGITS + 1)
    count = at - first
    if count == 0 or count > _MOST_DIGITS or (count > 1 and byte_at(buffer, first) == 48):
        return NOT_A_NUMBER, start, 0, 0
    form, power, byte = INTEGER, 0, byte_at(buffer, at)
    if byte == 46:
        form, first = DECIMAL, at + 1
        at, digits = _read_digits(buffer, first, digits, first + _MOST_DIGITS + 1 - count)
        power = first - at
        byte = byte_at(buffer, at)
        if power == 0 or count - power > _MOST_DIGITS:
            return NOT_A_NUMBER, start, 0, 0
    if byte == 69 or byte == 101:  # noqa: PLR1714 -- Numba compiles two comparisons better than a tuple
        form = DECIMAL
        at, exponent = _read_exponent(buffer, at + 1)
        if at < 0:
            return NOT_A_NUMBER, start, 0, 0
        power += exponent
    if digits < 0:  # the 19th digit went over 2**63
        return NOT_A_NUMBER, start, 0, 0
    return form, at, digits, power


@inlined
def to_double(digits: int, power: int) -> float:
    """Compute digits * 10**power, correctly rounded, for 0 <= digits < 2**63; NaN where undecided here."""
    word = np.uint64(digits)
    if word == np.uint64(0):
        return 0.0
    if word <= _EXACT_INTEGER and -22 <= power <= 22:
        if power < 0:
            return float(float(digits) / _EXACT_POWERS[-power])
        return float(float(digits) * _EXACT_POWERS[power])
    if not -_MOST_EXPONENT <= power <= _MOST_EXPONENT:
        return np.nan
    return _round_product(word, _POWER_BITS[power + _MOST_EXPONENT], _POWER_EXPONENTS[power + _MOST_EXPONENT])


@flat_kernel
def _round_product(word: np.uint64, power_bits: np.uint64, power_exponent: int) -> float:
    """Round word * power_bits * 2**power_exponent to the nearest double.

    ``power_bits`` lies below the true power by less than one unit, hence the true product lies above the
    computed one by less than ``word``. Where that could change one of the bits that are kept, or where the
    product may lie exactly half way between two doubles, the answer is NaN. (Lemire, "Number parsing at a
    gigabyte per second", Software: Practice and Experience 51, 2021, section 5.)
    """
    while word < _TOP_BIT:
        word = word << _ONE
        power_exponent -= 1
    high, low = high_product(word, power_bits), word * power_bits
    kept_out = high & _DISCARDED
    if kept_out == _DISCARDED and low + word < low:
        return np.nan
    wide = high >= _TOP_BIT
    drop = np.uint64(10) if wide else np.uint64(9)
    mantissa = high >> drop
    if low == np.uint64(0) and kept_out == np.uint64(0) and (mantissa & np.uint64(3)) == _ONE:
        return np.nan
    mantissa = (mantissa + (mantissa & _ONE)) >> _ONE
    # At most 2**53, so the conversion is exact, and so is the scaling, which stays clear of subnormals.
    return float(mantissa) * 2.0 ** (power_exponent + 65 + (10 if wide else 9))


@inlined
def _read_digits(buffer: NDArray[np.uint8], at: int, digits: int, stop: int) -> tuple[int, int]:
    while at < stop:
        digit = byte_at(buffer, at) - 48
        if digit < 0 or digit > 9:
            break
        digits = digits * 10 + digit
        at += 1
    return at, digits


@flat_kernel
def _read_exponent(buffer: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """(end, exponent) of at most two digits; end -1 for anything else."""
    sign = byte_at(buffer, at)
    first = at + 1 if sign == 43 or sign == 45 else at  # noqa: PLR1714 -- as above
    end, exponent = _read_digits(buffer, first, 0, first + 3)
    if end == first or end > first + 2:
        return -1, 0
    return end, -exponent if sign == 45 else exponent

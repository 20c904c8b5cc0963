"""Phone numbers as people write them: country code and national number.

A number without a country code is read as Chinese. What is masked, or no number, has none.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import phonenumbers
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel
from schemas.words import byte_at

NO_MOBILE, UNDECIDED = -1, -2
NO_NUMBER = 0
CHINA = 86

_REMEMBERED = 1 << 16
_MOST_BYTES = 64
_MOST_DIGITS = 15
_MOBILE = re.compile(r"(?:(?:\+|00)?86)?(1[0-9]{10})")
_MOBILE_SPAN = 100_000_000_000
_WRITTEN = re.compile(r"\+?[0-9 ()./\u00a0\u2010-\u2015-]{7,40}")


def read_mobiles(
    buffer: NDArray[np.uint8], starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Eleven digits of each Chinese mobile number: int64[n], NO_MOBILE for no text, UNDECIDED for any other text."""
    mobiles = np.empty(len(starts), np.int64)
    _read_mobiles(buffer, starts, lengths, mobiles)
    return mobiles


def written_at(buffer: NDArray[np.uint8], start: int, length: int) -> str:
    """A text that may be a number; none for one that is too long, which keeps the memory of caches bounded too."""
    return buffer[start : start + length].tobytes().decode() if length < _MOST_BYTES else ""


@lru_cache(maxsize=_REMEMBERED)
def parse_number(text: str) -> tuple[int, str] | None:
    """Country code and national number, by Google's rules (``phonenumbers``); None where it is no number.

    Examples
    --------
    >>> parse_number("+86 138-0013-8000"), parse_number("+44 20 7946 0958"), parse_number("138****8000")
    ((86, '13800138000'), (44, '2079460958'), None)
    """
    if not _WRITTEN.fullmatch(text):
        return None
    if mobile := _MOBILE.fullmatch(re.sub("[^0-9+]", "", text)):
        return CHINA, mobile[1]
    try:
        number = phonenumbers.parse(text, "CN")
    except phonenumbers.NumberParseException:
        return None
    return number.country_code or CHINA, phonenumbers.national_significant_number(number)


def numbers_of(
    buffer: NDArray[np.uint8], starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Digits with the country code of n phone numbers (spans of text): int64[n], NO_NUMBER where there is none."""
    mobiles = read_mobiles(buffer, starts, lengths)
    numbers = np.where(mobiles > 0, mobiles + CHINA * _MOBILE_SPAN, NO_NUMBER)
    for row in np.flatnonzero(mobiles == UNDECIDED).tolist():
        parsed = parse_number(written_at(buffer, int(starts[row]), int(lengths[row])))
        digits = f"{parsed[0]}{parsed[1]}" if parsed is not None else "0"
        numbers[row] = int(digits) if len(digits) <= _MOST_DIGITS else NO_NUMBER
    return numbers


@flat_kernel
def _read_mobiles(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    mobiles: NDArray[np.int64],
) -> None:
    """Read Chinese mobile numbers, spaced anyhow, with +86, 0086, 86 or no code; others stay undecided."""
    for row in range(starts.shape[0]):
        mobiles[row] = NO_MOBILE
        if lengths[row] == 0:
            continue
        mobiles[row] = UNDECIDED
        at, end = starts[row], starts[row] + lengths[row]
        plus = byte_at(buffer, at) == 43
        if plus:
            at += 1
        value, count, plain = 0, 0, True
        while at < end:
            byte = byte_at(buffer, at)
            if 48 <= byte <= 57:
                value, count = value * 10 + byte - 48, count + 1
            elif byte != 32 and byte != 40 and byte != 41 and byte != 45:  # noqa: PLR1714 -- compiles better
                plain = False
            at += 1
        code = value // 100_000_000_000
        leading = value % 100_000_000_000 // 10_000_000_000
        coded = code == 86 and (count == 13 or (count == 15 and not plus))
        if plain and leading == 1 and (coded or (count == 11 and code == 0 and not plus)):
            mobiles[row] = value % 100_000_000_000

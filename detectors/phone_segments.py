"""Phone numbers to segments: the first seven digits of the national number (carrier and area in China).

Farms buy numbers by the block, so one block with many users is telling. A number without a country code is
read as Chinese. What is masked, or shorter, has no segment.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import phonenumbers
from numpy.typing import NDArray

from schemas.flat_kernels import flat_kernel
from schemas.words import byte_at

SEGMENT_DIGITS = 7
NO_SEGMENT = -1

_REMEMBERED = 1 << 16
_MOST_BYTES = 64
_MOBILE = re.compile(r"(?:(?:\+|00)?86)?(1[0-9]{10})")
_WRITTEN = re.compile(r"\+?[0-9 ()./\u00a0\u2010-\u2015-]{7,40}")
_UNDECIDED = -2


def segments_of(
    buffer: NDArray[np.uint8], starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Segments of n phone numbers (spans of text): int64[n], 7 digits, or NO_SEGMENT where there is none.

    Chinese mobile numbers are read in compiled code, others by Google's rules (``phonenumbers``), remembered.
    """
    segments = np.empty(len(starts), np.int64)
    _read_mobiles(buffer, starts, lengths, segments)
    for row in np.flatnonzero(segments == _UNDECIDED).tolist():
        # The bound keeps the memory of the cache bounded too.
        span = buffer[starts[row] : starts[row] + min(lengths[row], _MOST_BYTES)]
        segments[row] = segment_of(span.tobytes().decode()) if len(span) < _MOST_BYTES else NO_SEGMENT
    return segments


@lru_cache(maxsize=_REMEMBERED)
def segment_of(text: str) -> int:
    """Segment of one phone number, NO_SEGMENT where it has none.

    Examples
    --------
    >>> segment_of("+86 138-0013-8000"), segment_of("+44 20 7946 0958"), segment_of("138****8000")
    (1380013, 2079460, -1)
    """
    if not _WRITTEN.fullmatch(text):
        return NO_SEGMENT
    if mobile := _MOBILE.fullmatch(re.sub("[^0-9+]", "", text)):
        return int(mobile[1][:SEGMENT_DIGITS])
    try:
        national = phonenumbers.national_significant_number(phonenumbers.parse(text, "CN"))
    except phonenumbers.NumberParseException:
        return NO_SEGMENT
    return int(national[:SEGMENT_DIGITS]) if len(national) >= SEGMENT_DIGITS else NO_SEGMENT


@flat_kernel
def _read_mobiles(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    segments: NDArray[np.int64],
) -> None:
    """Read Chinese mobile numbers, spaced anyhow, with +86, 0086, 86 or no code; others stay undecided."""
    for row in range(starts.shape[0]):
        segments[row] = NO_SEGMENT
        if lengths[row] == 0:
            continue
        segments[row] = _UNDECIDED
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
            segments[row] = value % 100_000_000_000 // 10_000

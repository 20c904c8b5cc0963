"""Phone numbers to segments: the first seven digits of the national number (carrier and area in China).

Farms buy numbers by the block, so one block with many users is telling. What is masked, or shorter, has no segment.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.phone_numbers import UNDECIDED, parse_number, read_mobiles, written_at

SEGMENT_DIGITS = 7
NO_SEGMENT = -1


def segments_of(
    buffer: NDArray[np.uint8], starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Segments of n phone numbers (spans of text): int64[n], 7 digits, or NO_SEGMENT where there is none.

    Chinese mobile numbers are read in compiled code, others by Google's rules (``phonenumbers``), remembered.
    """
    mobiles = read_mobiles(buffer, starts, lengths)
    segments = np.where(mobiles > 0, mobiles // 10_000, NO_SEGMENT)
    for row in np.flatnonzero(mobiles == UNDECIDED).tolist():
        segments[row] = segment_of(written_at(buffer, int(starts[row]), int(lengths[row])))
    return segments


def segment_of(text: str) -> int:
    """Segment of one phone number, NO_SEGMENT where it has none.

    Examples
    --------
    >>> segment_of("+86 138-0013-8000"), segment_of("+44 20 7946 0958"), segment_of("138****8000")
    (1380013, 2079460, -1)
    """
    parsed = parse_number(text)
    return int(parsed[1][:SEGMENT_DIGITS]) if parsed and len(parsed[1]) >= SEGMENT_DIGITS else NO_SEGMENT

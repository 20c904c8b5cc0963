"""What an event must fulfil beyond the types of its fields, over whole columns.

Like the scanner it rejects nothing: rows that do not pass become UNDECIDED, and the authority says why.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.addresses import canonicalize
from schemas.events import BUFFER_PADDING, EARLIEST_TS_MS, FUTURE_TOLERANCE_MS, INTEGER_FIELDS, STRING_FIELDS
from schemas.flat_kernels import flat_kernel, inlined
from schemas.json_scanner import UNDECIDED
from schemas.json_strings import characters, is_utf8
from schemas.words import byte_at

MOST_CHARACTERS = {"event_id": 64, "event": 64, "user_id": 128}
"""Longest value of the fields that have a limit; they are the required strings too."""

UNKNOWN_TIME = -1
"""``record_ts_ms`` of a record without a timestamp; its event is never in the future."""

_REQUIRED = np.array([STRING_FIELDS.index(field) for field in MOST_CHARACTERS], np.int64)
_LIMITS = np.array(list(MOST_CHARACTERS.values()), np.int64)
_IP, _TS = STRING_FIELDS.index("ip"), INTEGER_FIELDS.index("ts")


@flat_kernel
def check_rows(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    record_ts_ms: NDArray[np.int64],
    status: NDArray[np.uint8],
) -> None:
    """Mark the rows that the authority must see, and make the IP addresses of the others canonical in place.

    ``record_ts_ms`` is int64[n], or int64[0] where records have no timestamps; the rest as in
    :func:`schemas.json_scanner.scan_records`.
    """
    for k in range(_REQUIRED.shape[0]):
        field, limit = _REQUIRED[k], _LIMITS[k]
        for row in range(status.shape[0]):
            length = lengths[field, row]
            if length == 0 or (length > limit and characters(buffer, starts[field, row], length) > limit):
                status[row] = UNDECIDED
    for row in range(status.shape[0]):
        latest = np.int64(1) << 62
        if record_ts_ms.shape[0] > 0 and record_ts_ms[row] > UNKNOWN_TIME:
            latest = record_ts_ms[row] + FUTURE_TOLERANCE_MS
        if not EARLIEST_TS_MS <= integers[_TS, row] <= latest or not _sound_place(
            floats[0, row], floats[1, row]
        ):
            status[row] = UNDECIDED
    for row in range(status.shape[0]):
        if status[row] != UNDECIDED and lengths[_IP, row] > 0:
            length = canonicalize(buffer, starts[_IP, row], lengths[_IP, row])
            if length < 0:
                status[row] = UNDECIDED
            else:
                lengths[_IP, row] = length


@inlined
def _sound_place(lat: float, lon: float) -> bool:
    """Both coordinates in range, or neither there."""
    if np.isnan(lat) or np.isnan(lon):
        return bool(np.isnan(lat) and np.isnan(lon))
    return abs(lat) <= 90.0 and abs(lon) <= 180.0


@flat_kernel
def check_utf8(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    status: NDArray[np.uint8],
) -> None:
    """Mark the rows whose text (spans int32[n]) is not UTF-8."""
    for row in range(status.shape[0]):
        if not is_utf8(buffer, starts[row], starts[row] + lengths[row]):
            status[row] = UNDECIDED


def find_names(
    names: Sequence[str],
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
) -> NDArray[np.int32]:
    """For each text (spans int32[n]) its place among a few names, -1 for another one: int32[n]."""
    encoded = [name.encode() for name in names]
    name_bytes = np.frombuffer(bytearray(b"".join(encoded) + bytes(BUFFER_PADDING)), np.uint8)
    name_starts = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    places = np.full(len(starts), -1, np.int32)
    _find(buffer, starts, lengths, name_bytes, name_starts, places)
    return places


@flat_kernel
def _find(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    name_bytes: NDArray[np.uint8],
    name_starts: NDArray[np.int64],
    places: NDArray[np.int32],
) -> None:
    for row in range(places.shape[0]):
        for place in range(name_starts.shape[0] - 1):
            begin = name_starts[place]
            size = name_starts[place + 1] - begin
            k = 0 if size == lengths[row] else size + 1
            while k < size and byte_at(buffer, starts[row] + k) == byte_at(name_bytes, begin + k):
                k += 1
            if k == size:
                places[row] = place

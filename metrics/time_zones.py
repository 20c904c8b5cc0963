"""Dates in the time zones of campaigns, as arithmetic on arrays.

Python's zoneinfo is asked once per zone for the moments when the clocks change; after that no object is made
per event.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000
UTC_NAME = "UTC"
_FIRST, _LAST = datetime(1999, 12, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Changes of the clock are known in between; before and after, the nearest offset holds."""


@dataclass(frozen=True, slots=True)
class ZoneOffsets:
    """Offsets of one zone: from ``since_ms[i]`` on (int64, UTC) clocks are ``offset_ms[i]`` ahead."""

    since_ms: NDArray[np.int64]
    offset_ms: NDArray[np.int64]

    def days(self, ts_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Local date of each moment, as days since 1970-01-01."""
        at = np.searchsorted(self.since_ms, ts_ms, side="right") - 1
        return (ts_ms + self.offset_ms[np.maximum(at, 0)]) // DAY_MS

    def day_ends(self, days: NDArray[np.int64]) -> NDArray[np.int64]:
        """Moment (UTC, ms) from which on it is no longer this local date, nor will be again.

        Examples
        --------
        The day on which summer begins has 23 hours.

        >>> ends = zone_offsets("Europe/Berlin").day_ends(np.array([20176, 20177]))
        >>> int(ends[1] - ends[0]) // 3_600_000
        23
        """
        midnight = (days + 1) * DAY_MS
        # A date ends in the last stretch of constant offset that began before midnight on its own clock.
        at = np.maximum(np.searchsorted(self.since_ms + self.offset_ms, midnight, side="left") - 1, 0)
        following = np.append(self.since_ms[1:], np.iinfo(np.int64).max)
        ends_ms: NDArray[np.int64] = np.minimum(midnight - self.offset_ms[at], following[at])
        return ends_ms


@functools.cache
def zone_offsets(name: str) -> ZoneOffsets:
    """Offsets of an IANA zone, to the second; 50 ms for each new zone.

    Raises
    ------
    zoneinfo.ZoneInfoNotFoundError
        If there is no such zone.
    """
    if name == UTC_NAME:
        return ZoneOffsets(np.zeros(1, np.int64), np.zeros(1, np.int64))
    zone = ZoneInfo(name)
    since, offsets = [_FIRST], [_offset(zone, _FIRST)]
    day = _FIRST
    while day < _LAST:
        following = day + timedelta(days=1)
        if _offset(zone, following) != offsets[-1]:
            since.append(_change(zone, day, following))
            offsets.append(_offset(zone, following))
        day = following
    milliseconds = [int(moment.timestamp()) * 1000 for moment in since]
    return ZoneOffsets(
        np.array(milliseconds, np.int64),
        np.array([offset // timedelta(milliseconds=1) for offset in offsets], np.int64),
    )


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """First second at which the offset is that of ``after``."""
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if _offset(zone, middle) == _offset(zone, after):
            after = middle
        else:
            before = middle
    return after

"""When people come: the hours of the day in the campaign's time zone, and the rush after the start."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

TIMEZONE = "Asia/Shanghai"
_GRID_MS = 300_000
_MOST_POINTS, _LEAST_POINTS = 100_000, 256
_HOURS = np.array(
    [6, 3, 2, 1, 1, 2, 5, 10, 14, 15, 16, 18, 24, 19, 15, 15, 16, 18, 22, 28, 34, 33, 24, 13], np.float64
)
"""How busy each hour of the day is, relative to the others."""
_RUSH, _RUSH_LASTS_MS = 0.8, 6 * 3_600_000
"""How much busier the first moments are, and how soon that wears off."""


class Rhythm:
    """The share of a campaign's visits that began before a time, and back.

    Parameters
    ----------
    start_ms, duration_ms
        The campaign.
    timezone
        In which its days are days.
    """

    def __init__(self, *, start_ms: int, duration_ms: int, timezone: str = TIMEZONE) -> None:
        step_ms = max(duration_ms / _MOST_POINTS, min(_GRID_MS, duration_ms / _LEAST_POINTS))
        self._times = np.append(np.arange(0, duration_ms, step_ms), duration_ms) + start_ms
        middles = (self._times[1:] + self._times[:-1]) / 2
        hours = middles / 3_600_000 + _utc_offset_hours(start_ms, timezone)
        busy = np.interp(hours % 24, np.arange(25), np.append(_HOURS, _HOURS[0]))
        busy = busy * (1 + _RUSH * np.exp(-(middles - start_ms) / _RUSH_LASTS_MS))
        shares = np.concatenate(([0.0], np.cumsum(busy * np.diff(self._times))))
        self._shares = shares / shares[-1]

    def time_at(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Epoch ms before which this share of the visits began; shares above 1 lie evenly behind the end."""
        beyond = np.maximum(share - 1, 0) * (self._times[-1] - self._times[0])
        return np.asarray(np.interp(share, self._shares, self._times) + beyond)

    def share_at(self, time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the visits that began before this time."""
        return np.asarray(np.interp(time_ms, self._times, self._shares))


def _utc_offset_hours(start_ms: int, timezone: str) -> float:
    """As at the start; a change of clocks within a campaign moves its rhythm by an hour, no more."""
    offset = datetime.fromtimestamp(start_ms / 1000, UTC).astimezone(ZoneInfo(timezone)).utcoffset()
    return 0.0 if offset is None else offset.total_seconds() / 3600

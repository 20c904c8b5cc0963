"""Coordinates to H3 cells of resolution 8: hexagons of 0.7 km2, about two blocks of a city."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from h3.api import basic_int
from numpy.typing import NDArray

RESOLUTION = 8
_REMEMBERED = 1 << 16


def cells_of(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.uint64]:
    """H3 index for n coordinates in degrees: uint64[n], 0 for NaN.

    Examples
    --------
    >>> [f"{cell:x}" for cell in cells_of(np.array([31.2304, np.nan]), np.array([121.4737, np.nan]))]
    ['88309959d1fffff', '0']
    """
    cells = np.zeros(len(lat), np.uint64)
    rows = np.flatnonzero(~np.isnan(lat))
    places = zip(lat[rows].tolist(), lon[rows].tolist(), strict=True)
    cells[rows] = np.fromiter((_cell(*place) for place in places), np.uint64, len(rows))
    return cells


@lru_cache(maxsize=_REMEMBERED)
def _cell(lat: float, lon: float) -> int:
    return int(basic_int.latlng_to_cell(lat, lon, RESOLUTION))

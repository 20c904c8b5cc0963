"""Addresses, phones and places on earth, as numbers that carry no mark of who is who."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulation.draws import Draws

IPV6: Final = np.uint64(1 << 63)
"""This bit says that an address is IPv6; otherwise the lower 32 bits are IPv4."""

_CITIES = np.array(
    [
        (39.90, 116.40), (31.23, 121.47), (23.13, 113.26), (22.54, 114.06), (30.57, 104.07), (29.56, 106.55),
        (30.59, 114.31), (34.34, 108.94), (32.06, 118.80), (30.27, 120.16), (36.07, 120.38), (28.23, 112.94),
        (34.75, 113.63), (41.81, 123.43), (38.91, 121.60), (26.08, 119.30), (25.04, 102.72), (45.80, 126.54),
    ]
)  # fmt: skip
_CITY_WEIGHTS = np.array([10, 11, 9, 9, 8, 7, 6, 5, 5, 5, 4, 4, 4, 3, 2, 3, 2, 3], np.float64)
_CITY_SPREAD_DEG = 0.15
_HOME_NETWORKS = np.array([0x24, 0x3A, 0x3D, 0x6E, 0x70, 0x71, 0x72, 0x75, 0x7B, 0xB4, 0xDA, 0xDE], np.uint64)
"""First octets in which Chinese providers have much."""
_PHONE_PREFIXES = np.array(
    [
        133, 135, 136, 137, 138, 139, 150, 151, 152, 156, 157, 158, 159,
        176, 177, 178, 180, 182, 183, 185, 186, 187, 188, 189, 198, 199,
    ]
)  # fmt: skip


def network(draws: Draws, stream: str, counters: NDArray[np.integer]) -> NDArray[np.uint64]:
    """uint64[n]: an IPv4 /24 of a home provider; add 1 .. 254."""
    bits = draws.bits(stream, counters)
    first = _HOME_NETWORKS[(bits >> np.uint64(32)) % np.uint64(len(_HOME_NETWORKS))]
    return np.asarray((first << np.uint64(24)) | ((bits & np.uint64(0xFFFF)) << np.uint64(8)))


def address(draws: Draws, stream: str, counters: NDArray[np.integer]) -> NDArray[np.uint64]:
    """uint64[n]: an IPv4 address of a home provider."""
    return network(draws, stream, counters) + host(draws, stream, counters)


def host(draws: Draws, stream: str, counters: NDArray[np.integer]) -> NDArray[np.uint64]:
    """uint64[n]: 1 .. 254, the last octet."""
    return draws.below(f"{stream}/host", counters, 254).astype(np.uint64) + np.uint64(1)


def address_v6(draws: Draws, stream: str, counters: NDArray[np.integer]) -> NDArray[np.uint64]:
    """uint64[n]: an IPv6 address of a mobile phone; network and host follow from these bits."""
    return draws.bits(stream, counters) | IPV6


def phone_segment(draws: Draws, stream: str, counters: NDArray[np.integer]) -> NDArray[np.int64]:
    """int64[n]: the first 7 digits of a mobile number."""
    prefix = _PHONE_PREFIXES[draws.below(stream, counters, len(_PHONE_PREFIXES))]
    return prefix * 10_000 + draws.below(f"{stream}/area", counters, 10_000)


def phone(draws: Draws, stream: str, counters: NDArray[np.integer]) -> NDArray[np.int64]:
    """int64[n]: a mobile number, 11 digits."""
    line = draws.below(f"{stream}/line", counters, 10_000)
    return phone_segment(draws, stream, counters) * 10_000 + line


def home(
    draws: Draws, stream: str, counters: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64[n] twice: latitude and longitude of somebody in a large city."""
    city = _CITIES[draws.pick(f"{stream}/city", counters, _CITY_WEIGHTS)]
    lat = city[:, 0] + _CITY_SPREAD_DEG * draws.normal(f"{stream}/lat", counters)
    lon = city[:, 1] + _CITY_SPREAD_DEG * draws.normal(f"{stream}/lon", counters)
    return lat, lon

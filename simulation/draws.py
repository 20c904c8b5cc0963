"""Random numbers by counter: the draw of person 4711 is a hash, so nothing need be remembered of anybody.

A number depends on the seed, the name of the stream and the counter alone. Whoever asks for it again, in another
slice or another process, gets it again; that is what keeps a campaign of any size in bounded memory.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_TO_UNIT = 2.0**-53


class Draws:
    """All streams of one seed.

    Examples
    --------
    >>> draws = Draws(7)
    >>> bool((draws.unit("age", np.arange(3)) == Draws(7).unit("age", np.arange(3))).all())
    True
    >>> draws.unit("age", np.arange(3)).round(3).tolist()
    [0.486, 0.816, 0.216]
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._keys: dict[str, np.uint64] = {}

    def bits(self, stream: str, counters: NDArray[np.integer]) -> NDArray[np.uint64]:
        """uint64[n]: 64 even bits for each counter."""
        return _mixed(counters.astype(np.uint64) + self._key(stream))

    def unit(self, stream: str, counters: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[n]: even in [0, 1)."""
        return (self.bits(stream, counters) >> np.uint64(11)).astype(np.float64) * _TO_UNIT

    def chance(
        self, stream: str, counters: NDArray[np.integer], probability: float | NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """bool[n]: true with this probability."""
        return np.asarray(self.unit(stream, counters) < probability)

    def below(self, stream: str, counters: NDArray[np.integer], limit: int) -> NDArray[np.int64]:
        """int64[n]: even in 0 .. limit - 1."""
        return (self.unit(stream, counters) * limit).astype(np.int64)

    def pick(
        self, stream: str, counters: NDArray[np.integer], weights: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """uint8[n]: an index into ``weights``, each as often as its weight says."""
        edges = np.cumsum(weights) / weights.sum()
        return np.minimum(
            np.searchsorted(edges, self.unit(stream, counters), side="right"), len(weights) - 1
        ).astype(np.uint8)

    def normal(self, stream: str, counters: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64[n]: of the standard normal distribution (Box and Muller, 1958)."""
        radius = np.sqrt(-2.0 * np.log1p(-self.unit(stream, counters)))
        return np.asarray(radius * np.cos(2.0 * np.pi * self.unit(f"{stream}'", counters)))

    def _key(self, stream: str) -> np.uint64:
        if stream not in self._keys:
            digest = hashlib.blake2b(f"{self._seed}/{stream}".encode(), digest_size=8).digest()
            self._keys[stream] = np.uint64(int.from_bytes(digest, "little"))
        return self._keys[stream]


def act_counters(counters: NDArray[np.integer], acts: int) -> NDArray[np.uint64]:
    """uint64[n, acts]: a counter for each act (at most 16) of whatever has these counters."""
    return np.asarray(counters.astype(np.uint64)[:, None] * np.uint64(16) + np.arange(acts).astype(np.uint64))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Steele, Lea and Flood's SplitMix64: the finalizer of its counter."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

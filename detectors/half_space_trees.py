"""Half-space trees, compiled: River's ``MinMaxScaler() | HalfSpaceTrees(...)``, equal number for number.

A tree halves the space of scaled features at random and counts how many events of the last full window fell
into each node; an event that falls where few did is strange. Fails when anomalies come packed: a burst that
is learned looks normal one window later, so only events that rules leave alone should teach.

The score points up: 0 is normal, 1 as strange as can be. For River's numbers to the bit:

- the splits come from River's sequence of random draws, features sorted by name as River sorts them;
- scoring scales by the ranges before the event, learning by those after it: walk anew when one grew;
- River's sums of ``mass * 2 ** depth`` are integers below 2^53, so summing integers gives the same float;
- until the first window is full there are no masses to compare with: the raw score is 0, and it is neither
  ranked nor counted among the scores learned from (250 zeros would make the first real scores look rare).

Trees stand side by side, ``slot = node * trees + tree``, the children of node k at 2k + 1 and 2k + 2, so one
step of all walks is one flat loop. The window that fills counts leaves only; the nodes above are summed when
it is full.

Memory: 16 bytes an inner node (100 kB at 25 x 8), and the score counters, at most 8 bytes times ``trees *
window * (2 ** (height + 1) - 1)`` (25 MB at 25 x 8 x 250; see :mod:`detectors.rank`). About 0.55 us an event
at 25 x 8.

References
----------
Tan, Ting, Liu: Fast anomaly detection for streaming data, IJCAI 2011. River 0.26, ``anomaly/hst.py``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.rank import MassCounts, count_mass, dense, learned_count, no_counts, sparse, strength_of_mass
from schemas.config_blocks import FOREST_WINDOW
from schemas.kernels import kernel

PADDING = 0.15
"""River's: no split in the outer 15 % of a node's range."""
LARGEST_WINDOW = (1 << 16) - 1
"""Masses are kept in 16 bits."""


class Forest(NamedTuple):
    """Splits and masses of all trees, as kernels take them."""

    trees: int
    height: int
    window: int
    split_feature: NDArray[np.uint16]
    split_at: NDArray[np.float64]
    smallest: NDArray[np.float64]
    largest: NDArray[np.float64]
    reference: NDArray[np.uint16]
    leaves: NDArray[np.uint16]
    clock: NDArray[np.int64]


TAUGHT, READY = 0, 1
"""``clock``: events learned in the window that fills; 1 once a first window was full."""


class HalfSpaceForest:
    """Half-space trees with their running feature ranges and the ranks of their scores.

    Parameters
    ----------
    features
        Names of the inputs, in the order of the rows of ``x``. River draws splits over the sorted names, so
        the names matter, not only how many there are.
    trees, height
        Number of trees and of splits from root to leaf, both at least 1.
    window
        Events per window, 1..65 535; River's default is 250.
    seed
        Seed of the splits.

    Raises
    ------
    ValueError
        If a parameter is out of range, or together they need score counters of more than 1 GiB.

    Examples
    --------
    >>> forest = HalfSpaceForest(features=["dwell_ms"], trees=5, height=3, window=3, seed=42)
    >>> x = np.array([[50.0, 45.0, 43.0, 44.0, 46.0, 90.0]])
    >>> raw, strength = forest.score_and_learn(x, np.ones(6, np.uint8))
    >>> raw.round(3).tolist(), strength.tolist()
    ([0.0, 0.0, 0.0, 0.427, 0.853, 0.933], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    """

    def __init__(
        self, *, features: Sequence[str], trees: int, height: int, window: int = FOREST_WINDOW, seed: int
    ) -> None:
        names = tuple(features)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"expected feature names, each once, got {list(names)}")
        if trees < 1 or height < 1 or not 1 <= window <= LARGEST_WINDOW:
            raise ValueError(
                f"expected trees >= 1, height >= 1 and a window of 1 to {LARGEST_WINDOW}, "
                f"got {trees}, {height} and {window}"
            )
        self._largest_mass = trees * window * (2 ** (height + 1) - 1)
        self._counts = no_counts(self._largest_mass)
        split_feature, split_at = _draw_splits(names, trees, height, seed)
        self._forest = Forest(
            trees=trees,
            height=height,
            window=window,
            split_feature=split_feature,
            split_at=split_at,
            smallest=np.full(len(names), math.inf),
            largest=np.full(len(names), -math.inf),
            reference=np.zeros((2 ** (height + 1) - 1) * trees, np.uint16),
            leaves=np.zeros(2**height * trees, np.uint16),
            clock=np.zeros(2, np.int64),
        )

    def score_and_learn(
        self, x: NDArray[np.float64], teaches: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Score each row by what was learned before it, rank the score, then learn the row if it teaches.

        Row after row, so any cut into batches gives the same bits.

        Parameters
        ----------
        x
            float64[features, n]; NaN is null and counts as 0.
        teaches
            uint8[n]: not 0 where the row is learned.

        Returns
        -------
        raw, strength
            float64[n] each: River's score, and its strength by rank, both 0..1.
        """
        features, rows = self._forest.smallest.size, teaches.size
        if x.shape != (features, rows):
            raise ValueError(f"expected x of shape {(features, rows)}, got {x.shape}")
        raw, strength = np.zeros(rows), np.zeros(rows)
        _score_and_learn(self._forest, self._counts, x, teaches, raw, strength)
        return raw, strength

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """A copy of all state. Some 40 kB at 25 x 8 and 12 bytes for each distinct score."""
        forest = self._forest
        masses, times = sparse(self._counts)
        return {
            "splits": self._fingerprint(),
            "smallest": forest.smallest.copy(),
            "largest": forest.largest.copy(),
            "reference": forest.reference.copy(),
            "leaves": forest.leaves.copy(),
            "clock": forest.clock.copy(),
            "rank_masses": masses,
            "rank_times": times,
        }

    def restore(self, snapshot: Mapping[str, NDArray[np.generic]]) -> None:
        """Take the state of a :meth:`snapshot` of a forest that was built alike.

        Raises
        ------
        ValueError
            If the snapshot is of a forest with other splits, or damaged; this forest is then as it was.
        """
        if not np.array_equal(snapshot["splits"], self._fingerprint()):
            raise ValueError(
                "expected a snapshot of a forest with the same features, trees, height, window and seed"
            )
        forest = self._forest
        for name in ("smallest", "largest", "reference", "leaves", "clock"):
            mine, saved = getattr(forest, name), snapshot[name]
            if saved.shape != mine.shape or saved.dtype != mine.dtype:
                raise ValueError(
                    f"expected {name} as {mine.dtype}{mine.shape}, got {saved.dtype}{saved.shape}"
                )
        self._counts = dense(
            self._largest_mass,
            np.asarray(snapshot["rank_masses"], np.uint32),
            np.asarray(snapshot["rank_times"], np.int64),
        )
        for name in ("smallest", "largest", "reference", "leaves", "clock"):
            np.copyto(getattr(forest, name), snapshot[name])

    def _fingerprint(self) -> NDArray[np.uint8]:
        """16 bytes that differ when the trees do: masses mean nothing on other splits."""
        forest = self._forest
        digest = blake2b(f"{forest.trees} {forest.height} {forest.window}".encode(), digest_size=16)
        digest.update(forest.split_feature.tobytes())
        digest.update(forest.split_at.tobytes())
        return np.frombuffer(digest.digest(), np.uint8)


def _draw_splits(
    names: Sequence[str], trees: int, height: int, seed: int
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Split feature (row of x) and threshold of each inner node, by River's sequence of random draws."""
    by_name = sorted(range(len(names)), key=names.__getitem__)
    nodes = 2**height - 1
    feature = np.zeros((nodes, trees), np.uint16)
    threshold = np.zeros((nodes, trees), np.float64)
    rng = random.Random(seed)  # noqa: S311 - River's generator; nothing is kept secret by it

    def draw(tree: int, node: int, ranges: dict[int, tuple[float, float]]) -> None:
        if node >= nodes:
            return
        widths = [high - low for low, high in ranges.values()]
        chosen = rng.choices(list(ranges), weights=widths)[0]
        low, high = ranges[chosen]
        at = rng.uniform(low + PADDING * (high - low), high - PADDING * (high - low))
        feature[node, tree], threshold[node, tree] = chosen, at
        draw(tree, 2 * node + 1, {**ranges, chosen: (low, at)})
        draw(tree, 2 * node + 2, {**ranges, chosen: (at, high)})

    for tree in range(trees):
        draw(tree, 0, dict.fromkeys(by_name, (0.0, 1.0)))
    return feature.ravel(), threshold.ravel()


@kernel
def _scale(forest: Forest, values: NDArray[np.float64], scaled: NDArray[np.float64]) -> None:
    """To 0..1 of the ranges learned so far; 0 where a feature never varied, outside 0..1 beyond its range."""
    for k in range(values.size):
        low = forest.smallest[k]
        spread = forest.largest[k] - low
        scaled[k] = (values[k] - low) / spread if spread != 0.0 else 0.0


@kernel
def _widen(forest: Forest, values: NDArray[np.float64]) -> bool:
    """Let the ranges take in the values; whether one grew."""
    grew = False
    for k in range(values.size):
        if values[k] < forest.smallest[k]:
            forest.smallest[k] = values[k]
            grew = True
        if values[k] > forest.largest[k]:
            forest.largest[k] = values[k]
            grew = True
    return grew


@kernel
def _walk(
    forest: Forest, scaled: NDArray[np.float64], slots: NDArray[np.int32], going: NDArray[np.int32]
) -> int:
    """Walk all trees to their leaves, left in ``slots``; the sum of ``mass * 2 ** depth`` on the way.

    A walk counts up to and including the first node with less than a tenth of a window; ``going`` is scratch.
    """
    reference, split_feature, split_at = forest.reference, forest.split_feature, forest.split_at
    trees = np.int32(forest.trees)
    enough = np.int32(math.ceil(0.1 * forest.window))  # as River: integer < 0.1 * window
    total = np.int64(0)
    for t in range(forest.trees):
        slots[t] = t
        going[t] = 1
    for depth in range(forest.height):
        level_sum = np.int32(0)
        for t in range(forest.trees):
            slot = slots[t]
            here = np.uint32(slot)  # unsigned indexes need no test for negative ones
            mass = np.int32(reference[here])
            level_sum += np.int32(mass * going[t])
            going[t] &= np.int32(mass >= enough)
            left = scaled[np.uint32(split_feature[here])] < split_at[here]
            slots[t] = np.int32(slot + slot) - np.int32(t) + trees * np.int32(2 - left)
        total += np.int64(level_sum) << depth
    level_sum = np.int32(0)
    for t in range(forest.trees):
        level_sum += np.int32(reference[np.uint32(slots[t])]) * going[t]
    return int(total + (np.int64(level_sum) << forest.height))


@kernel
def _learn(forest: Forest, slots: NDArray[np.int32]) -> bool:
    """Count the leaves the event fell into; whether that fills the window."""
    first_leaf = ((1 << forest.height) - 1) * forest.trees  # a power would cost more than the loop
    for t in range(forest.trees):
        forest.leaves[slots[t] - first_leaf] += np.uint16(1)
    forest.clock[TAUGHT] += 1
    return bool(forest.clock[TAUGHT] == forest.window)


@kernel
def _turn_window(forest: Forest) -> None:
    """Take the leaves as reference, sum them into the nodes above, begin a new window."""
    reference, trees = forest.reference, forest.trees
    nodes = (1 << forest.height) - 1
    reference[nodes * trees :] = forest.leaves
    for node in range(nodes - 1, -1, -1):
        for t in range(trees):
            left = (2 * node + 1) * trees + t
            reference[node * trees + t] = reference[left] + reference[left + trees]
    forest.leaves[:] = 0
    forest.clock[TAUGHT] = 0
    forest.clock[READY] = 1


@kernel
def _score_and_learn(
    forest: Forest,
    counts: MassCounts,
    x: NDArray[np.float64],
    teaches: NDArray[np.uint8],
    raw: NDArray[np.float64],
    strength: NDArray[np.float64],
) -> None:
    """The rows one after the other; fills ``raw`` and ``strength``, which come as zeros."""
    whole = float(forest.trees * forest.window * ((2 << forest.height) - 1))
    learned = learned_count(counts)
    values, scaled = np.empty(x.shape[0]), np.empty(x.shape[0])
    slots, going = np.empty(forest.trees, np.int32), np.empty(forest.trees, np.int32)
    for row in range(x.shape[1]):
        for k in range(x.shape[0]):
            value = x[k, row]
            values[k] = 0.0 if math.isnan(value) else value
        ready = forest.clock[READY] == 1
        if ready:
            _scale(forest, values, scaled)
            mass = _walk(forest, scaled, slots, going)
            raw[row] = 1.0 - mass / whole
            strength[row] = strength_of_mass(counts, learned, mass)
            if teaches[row]:
                count_mass(counts, mass)
                learned += 1
        if teaches[row]:
            if _widen(forest, values) or not ready:
                _scale(forest, values, scaled)
                _walk(forest, scaled, slots, going)
            if _learn(forest, slots):
                _turn_window(forest)

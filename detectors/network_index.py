"""Networks of addresses, nested in one another, as a line of ranges: each knows its narrowest network.

From there a chain leads to the wider ones, for those that have expired. Addresses are 128 bits; an index is of one IP
version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.key_index import NOTHING
from schemas.addresses import IPV4, read_address
from schemas.flat_kernels import flat_kernel, inlined

_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_NONE, _ONE = np.uint64(0), np.uint64(1)
_MOST_BUCKET_BITS = 22


class NetworkIndex:
    """Networks of one IP version. Of equal ones the one that lasts longest is kept, of those the first.

    Parameters
    ----------
    version
        IPV4 or IPV6.
    high, low
        uint64[n]: first addresses, 128 bits each; IPv4 is in the last 32.
    bits
        int64[n]: how many of the version's bits belong to the network.
    expires_ms, notes
        As in :class:`detectors.key_index.KeyIndex`.

    Notes
    -----
    52 bytes a network; 60 to 100 ns an address among a million.
    """

    def __init__(
        self,
        version: int,
        *,
        high: NDArray[np.uint64],
        low: NDArray[np.uint64],
        bits: NDArray[np.int64],
        expires_ms: NDArray[np.int64],
        notes: NDArray[np.int32],
    ) -> None:
        order = np.lexsort((-expires_ms, bits, low, high))  # wide networks before those in them
        same = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0) & (np.diff(bits[order]) == 0)
        kept = order[np.append(True, ~same)[: len(order)]]
        self._version, self._expires_ms, self._notes = version, expires_ms[kept], notes[kept].astype(np.int32)
        self._parent = np.full(len(kept), NOTHING, np.int32)
        starts, owner = np.empty((2, 2 * len(kept)), np.uint64), np.empty(2 * len(kept), np.int32)
        width = 32 if version == IPV4 else 128
        count = _sweep(high[kept], low[kept], width - bits[kept], self._parent, starts, owner)
        self._starts, self._owner = starts[:, :count].copy(), owner[:count].copy()
        # An IPv4 address lies in its low half, of an IPv6 address the high half tells more.
        self._half, half_bits = (1, 32) if version == IPV4 else (0, 64)
        bucket_bits = min(count.bit_length(), _MOST_BUCKET_BITS)
        self._shift = np.uint64(half_bits - bucket_bits)
        edges = np.arange(1 << bucket_bits, dtype=np.uint64) << self._shift
        self._first = np.append(np.searchsorted(self._starts[self._half], edges), count).astype(np.int32)

    def __len__(self) -> int:
        """Networks."""
        return len(self._notes)

    def find(
        self,
        buffer: NDArray[np.uint8],
        starts: NDArray[np.int32],
        lengths: NDArray[np.int32],
        ts_ms: NDArray[np.int64],
        found: NDArray[np.int32],
    ) -> None:
        """Write into ``found`` the note of the narrowest network that holds at its time, for each address (a span)."""
        if not len(self):
            return
        # Passes over small arrays: the waits for memory of one row and the next overlap.
        high, low = np.zeros(len(ts_ms), np.uint64), np.zeros(len(ts_ms), np.uint64)
        narrowest = np.full(len(ts_ms), NOTHING, np.int32)
        is_mine = np.zeros(len(ts_ms), np.bool_)
        _read(buffer, starts, lengths, self._version, high, low, is_mine)
        _find_narrowest(
            high,
            low,
            is_mine,
            self._starts[0],
            self._starts[1],
            self._owner,
            self._first,
            self._half,
            self._shift,
            narrowest,
        )
        _find_holding(narrowest, ts_ms, self._parent, self._expires_ms, self._notes, found)


@inlined
def _last(high: np.uint64, low: np.uint64, free: int) -> tuple[np.uint64, np.uint64]:
    """The last address of a network with so many free bits."""
    if free >= 64:
        return high | (_ONES if free >= 128 else (_ONE << np.uint64(free - 64)) - _ONE), _ONES
    return high, low | ((_ONE << np.uint64(free)) - _ONE)


@inlined
def _below(high: np.uint64, low: np.uint64, other_high: np.uint64, other_low: np.uint64) -> bool:
    return bool(high < other_high or (high == other_high and low < other_low))


@flat_kernel
def _sweep(
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    free: NDArray[np.int64],
    parent: NDArray[np.int32],
    starts: NDArray[np.uint64],
    owner: NDArray[np.int32],
) -> int:
    """Go through the networks in order, the open ones being the chain of parents; returns the number of ranges."""
    count, open_ = 0, NOTHING
    for network in range(high.shape[0]):
        while open_ != NOTHING:
            last_high, last_low = _last(high[open_], low[open_], free[open_])
            if not _below(last_high, last_low, high[network], low[network]):
                break
            count = _close(last_high, last_low, parent[open_], starts, owner, count)
            open_ = parent[open_]
        parent[network] = open_
        if count > 0 and starts[0, count - 1] == high[network] and starts[1, count - 1] == low[network]:
            count -= 1  # a range of no address
        starts[0, count], starts[1, count], owner[count] = high[network], low[network], network
        count, open_ = count + 1, network
    while open_ != NOTHING:
        last_high, last_low = _last(high[open_], low[open_], free[open_])
        count = _close(last_high, last_low, parent[open_], starts, owner, count)
        open_ = parent[open_]
    return count


@inlined
def _close(
    last_high: np.uint64,
    last_low: np.uint64,
    below: int,
    starts: NDArray[np.uint64],
    owner: NDArray[np.int32],
    count: int,
) -> int:
    """Begin a range of the wider network behind the end of one; none behind the last of all addresses."""
    next_low = last_low + _ONE
    next_high = last_high + (_ONE if next_low == _NONE else _NONE)
    if next_low == _NONE and next_high == _NONE:
        return count
    if count > 0 and starts[0, count - 1] == next_high and starts[1, count - 1] == next_low:
        count -= 1
    starts[0, count], starts[1, count], owner[count] = next_high, next_low, below
    return count + 1


@flat_kernel
def _read(
    buffer: NDArray[np.uint8],
    spans: NDArray[np.int32],
    lengths: NDArray[np.int32],
    version: int,
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    is_mine: NDArray[np.bool_],
) -> None:
    for row in range(spans.shape[0]):
        family, high[row], low[row] = read_address(buffer, spans[row], lengths[row])
        is_mine[row] = family == version


@flat_kernel
def _find_narrowest(
    my_high: NDArray[np.uint64],
    my_low: NDArray[np.uint64],
    is_mine: NDArray[np.bool_],
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    owner: NDArray[np.int32],
    first: NDArray[np.int32],
    half: int,
    shift: np.uint64,
    narrowest: NDArray[np.int32],
) -> None:
    for row in range(is_mine.shape[0]):
        if not is_mine[row]:
            continue
        bucket = np.int64((my_low[row] if half == 1 else my_high[row]) >> shift)
        begin, end = first[bucket], first[bucket + 1]
        while begin < end:  # the first range that starts above the address
            middle = (begin + end) >> 1
            if half == 1:
                above = my_low[row] < low[middle]
            else:
                above = _below(my_high[row], my_low[row], high[middle], low[middle])
            if above:
                end = middle
            else:
                begin = middle + 1
        if begin > 0:
            narrowest[row] = owner[begin - 1]


@flat_kernel
def _find_holding(
    narrowest: NDArray[np.int32],
    ts_ms: NDArray[np.int64],
    parent: NDArray[np.int32],
    expires_ms: NDArray[np.int64],
    notes: NDArray[np.int32],
    found: NDArray[np.int32],
) -> None:
    """From the narrowest networks to the next wider ones, where they have ended."""
    for row in range(narrowest.shape[0]):
        network = np.int64(narrowest[row])
        while network != NOTHING and ts_ms[row] >= expires_ms[network]:
            network = parent[network]
        if network != NOTHING:
            found[row] = notes[network]

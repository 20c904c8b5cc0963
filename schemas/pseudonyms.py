"""Pseudonyms: what tables show in the place of a user, a device or an address (CONTRACT 3).

HMAC-SHA256 costs more than the rest of judging an event, so it is computed once for a value: a bounded
cache knows the pseudonym by the value's keyed 64-bit hash. Evicting changes nothing but the time.
"""

from __future__ import annotations

import hashlib
import threading

import numpy as np
from numpy.typing import NDArray

from schemas.addresses import canonical_text
from schemas.events import EventBatch, string_column
from schemas.flat_kernels import flat_kernel, inlined
from schemas.keys import KeyRing

PSEUDONYM_BYTES = 16
USER, DEVICE, IP = "user", "device", "ip"

_SHA256_BLOCK = 64
_WAYS = 4
_NONE = np.uint64(0)


class Pseudonyms:
    """Makes pseudonyms under one key ring and remembers them; threads may share it.

    Parameters
    ----------
    ring
        Its pseudonym key is used.
    capacity
        How many pseudonyms are remembered at most, 24 bytes each; rounded up to a power of two. Which of
        them go when it is full hangs on their keys alone.

    Examples
    --------
    >>> pseudonyms = Pseudonyms(KeyRing(bytes(32)))
    >>> pseudonyms.pseudonym("ip", "::ffff:10.0.0.1") == pseudonyms.pseudonym("ip", "10.0.0.1")
    True
    """

    def __init__(self, ring: KeyRing, capacity: int = 1 << 20) -> None:
        sets = max(1, 1 << (capacity - 1).bit_length()) // _WAYS or 1
        # HMAC (RFC 2104) from its two hashes, each begun once: half the time of the library's.
        key = ring.pseudonym_key
        key = key if len(key) <= _SHA256_BLOCK else hashlib.sha256(key).digest()
        block = key.ljust(_SHA256_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        self._keys = np.zeros((sets, _WAYS), np.uint64)
        self._values = np.zeros((sets, _WAYS, PSEUDONYM_BYTES), np.uint8)
        self._oldest = np.zeros(sets, np.uint8)
        self._lock = threading.Lock()

    def pseudonym(self, kind: str, value: str) -> str:
        """32 hex digits for one value; an address is made canonical first.

        Raises
        ------
        ValueError
            The kind is ``ip`` and the value is no address.
        """
        if kind == IP:
            value = canonical_text(value)
        return self._digest(self._begin(kind), value.encode()).hex()

    def columns(
        self, kind: str, keys: NDArray[np.uint64], batch: EventBatch, field: str, rows: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Pseudonyms of a field of some rows: uint8[m, 16], all zero where it is absent.

        Parameters
        ----------
        kind
            USER, DEVICE or IP.
        keys
            uint64[m]: keyed hashes of the values, 0 where absent; salted by kind, so that equal keys are
            equal values.
        batch, field, rows
            Where the values stand: int64[m] rows of a string field.

        Notes
        -----
        About 20 ns for a value that is remembered, 1.5 us for a new one.
        """
        found = np.zeros((len(keys), PSEUDONYM_BYTES), np.uint8)
        missing = np.zeros(len(keys), np.bool_)
        with self._lock:
            _look_up(keys, self._keys, self._values, found, missing)
        places = np.flatnonzero(missing)
        if len(places):
            new_keys, first, index = np.unique(keys[places], return_index=True, return_inverse=True)
            new_values = self._digests(kind, batch, field, rows[places[first]])
            found[places] = new_values[index]
            with self._lock:
                _remember(new_keys, new_values, self._keys, self._values, self._oldest)
        return found

    def _digests(
        self, kind: str, batch: EventBatch, field: str, rows: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        column = string_column(field, batch.attributes)
        begins = batch.starts[column, rows]
        ends = begins + batch.lengths[column, rows]
        text = batch.buffer.data
        spans = zip(begins.tolist(), ends.tolist(), strict=True)
        begun = self._begin(kind)
        digests = b"".join([self._digest(begun, text[begin:end]) for begin, end in spans])
        return np.frombuffer(digests, np.uint8).reshape(-1, PSEUDONYM_BYTES)

    def _begin(self, kind: str) -> hashlib._Hash:
        begun = self._inner.copy()
        begun.update(kind.encode() + b"\0")
        return begun

    def _digest(self, begun: hashlib._Hash, value: bytes | memoryview) -> bytes:
        inner, outer = begun.copy(), self._outer.copy()
        inner.update(value)
        outer.update(inner.digest())
        return outer.digest()[:PSEUDONYM_BYTES]


@inlined
def _set_of(key: np.uint64, sets: int) -> int:
    return int(np.int64(key & np.uint64(sets - 1)))


@flat_kernel
def _look_up(
    keys: NDArray[np.uint64],
    known: NDArray[np.uint64],
    values: NDArray[np.uint8],
    found: NDArray[np.uint8],
    missing: NDArray[np.bool_],
) -> None:
    for row in range(keys.shape[0]):
        if keys[row] == _NONE:
            continue
        slot, missing[row] = _set_of(keys[row], known.shape[0]), True
        for way in range(_WAYS):
            if known[slot, way] == keys[row]:
                missing[row] = False
                for k in range(PSEUDONYM_BYTES):
                    found[row, k] = values[slot, way, k]


@flat_kernel
def _remember(
    keys: NDArray[np.uint64],
    new: NDArray[np.uint8],
    known: NDArray[np.uint64],
    values: NDArray[np.uint8],
    oldest: NDArray[np.uint8],
) -> None:
    for row in range(keys.shape[0]):
        slot = _set_of(keys[row], known.shape[0])
        way = np.int64(oldest[slot])
        oldest[slot] = (way + 1) % _WAYS
        known[slot, way] = keys[row]
        for k in range(PSEUDONYM_BYTES):
            values[slot, way, k] = new[row, k]

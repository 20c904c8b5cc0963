"""Keyed 64-bit hashes: how the state knows a user, a device, an address, without holding it.

One secret makes all keys, each by its own label (HKDF-SHA256), so none tells anything of another; only
pseudonyms are made with the secret itself, as it stands, so that others can compute them (CONTRACT 3). Values
are hashed with SipHash-1-3 under a key of their own for each kind: without the secret nobody can search for
values that collide, and a device never shares a key with a user of the same name.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from functools import cache

import numpy as np
from numpy.typing import NDArray

from schemas.events import BUFFER_PADDING
from schemas.flat_kernels import flat_kernel, inlined
from schemas.words import byte_at, word_at

SECRET_BYTES = 16
"""Least length of the secret."""

_U = np.uint64
_NONE, _ONE, _BYTE = _U(0), _U(1), _U(8)
_WORD_BITS = _U(64)
_KEEP = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
_V0, _V1, _V2, _V3 = (
    _U(int.from_bytes(half, "big")) for half in (b"somepseu", b"dorandom", b"lygenera", b"tedbytes")
)
_FINAL = _U(0xFF)


class KeyRing:
    """Every key of an installation, from its one secret.

    Parameters
    ----------
    secret
        At least SECRET_BYTES bytes, uniformly random. Whoever has it can test guesses at what a pseudonym
        stands for.

    Attributes
    ----------
    fingerprint
        16 hex digits that tell one secret from another and nothing else; may be written anywhere.

    Raises
    ------
    ValueError
        The secret is too short.

    Examples
    --------
    >>> ring = KeyRing(bytes(32))
    >>> ring.fingerprint == KeyRing(bytes(32)).fingerprint != KeyRing(b"x" * 32).fingerprint
    True
    >>> ring.key_of("user_id", "u1") == ring.key_of("device_id", "u1")
    False
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"a secret of {len(secret)} bytes; expected at least {SECRET_BYTES}")
        self._root = hmac.digest(b"woolwatch keys 1", secret, hashlib.sha256)
        self.fingerprint = self.derive("fingerprint")[:8].hex()
        self.pseudonym_key = secret
        self.sealing_key = self.derive("sealing")
        self.nonce_key = self.derive("sealing nonce")
        self.salt = cache(self._salt)

    def __repr__(self) -> str:
        return f"KeyRing({self.fingerprint})"

    def derive(self, label: str) -> bytes:
        """32 bytes for one purpose (the expand step of RFC 5869, one block)."""
        return hmac.digest(self._root, label.encode() + b"\x01", hashlib.sha256)

    def _salt(self, kind: str) -> tuple[np.uint64, np.uint64]:
        low, high = struct.unpack("<QQ", self.derive(f"state {kind}")[:16])
        return _U(low), _U(high)

    def key_of(self, kind: str, value: str) -> int:
        """Hash of one text, as :func:`hash_spans` gives it for ``self.salt(kind)``; 0 for the empty text."""
        text = value.encode()
        buffer = np.frombuffer(bytearray(text + bytes(BUFFER_PADDING)), np.uint8)
        return int(
            hash_spans(buffer, np.zeros(1, np.int32), np.array([len(text)], np.int32), *self.salt(kind))[0]
        )


def hash_spans(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    k0: np.uint64,
    k1: np.uint64,
) -> NDArray[np.uint64]:
    """SipHash-1-3 of n spans under the key (k0, k1): uint64[n], 0 for empty spans and never else.

    Spans are int32[n]; at least eight bytes behind the last one must belong to the buffer. About 10 ns for
    12 bytes.
    """
    hashes = np.empty(len(starts), np.uint64)
    _hash_spans(buffer, starts, lengths, k0, k1, hashes)
    return hashes


def hash_words(
    words: NDArray[np.uint64], present: NDArray[np.bool_], k0: np.uint64, k1: np.uint64
) -> NDArray[np.uint64]:
    """SipHash-1-3 of n numbers of 64 bits: uint64[n], 0 where not present and never else."""
    hashes = np.empty(len(words), np.uint64)
    _hash_words(words, present, k0, k1, hashes)
    return hashes


def number_keys(values: NDArray[np.float64], k0: np.uint64, k1: np.uint64) -> NDArray[np.uint64]:
    """Keys of n numbers, equal for equal numbers (0.0 and -0.0 too): uint64[n], 0 for NaN."""
    plain = np.ascontiguousarray(values, np.float64) + 0.0
    return hash_words(plain.view(np.uint64), ~np.isnan(plain), k0, k1)


def mix(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One key for each pair of keys, in this order: uint64[n], 0 where either is 0 and never else.

    Not keyed itself: its inputs are hashes that nobody outside can choose.
    """
    pairs = np.empty(len(left), np.uint64)
    _mix(left, right, pairs)
    return pairs


def murmur2_partition(
    buffer: NDArray[np.uint8], starts: NDArray[np.int32], lengths: NDArray[np.int32], partitions: int
) -> NDArray[np.int32]:
    """Partition that Kafka's Java client gives a record with this key: int32[n], from 0 to partitions - 1.

    murmur2 of the bytes, sign bit cleared, modulo the number of partitions (``BuiltInPartitioner`` for
    keyed records).
    """
    chosen = np.empty(len(starts), np.int32)
    _murmur2_partition(buffer, starts, lengths, partitions, chosen)
    return chosen


@inlined
def _rotate(word: np.uint64, bits: np.uint64) -> np.uint64:
    return word << bits | word >> (_WORD_BITS - bits)


@inlined
def _round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """One SipRound (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012)."""
    v0, v2 = v0 + v1, v2 + v3
    v1, v3 = _rotate(v1, _U(13)) ^ v0, _rotate(v3, _U(16)) ^ v2
    v0, v2 = _rotate(v0, _U(32)) + v3, v2 + v1
    v1, v3 = _rotate(v1, _U(17)) ^ v2, _rotate(v3, _U(21)) ^ v0
    return v0, v1, _rotate(v2, _U(32)), v3


@inlined
def _siphash(buffer: NDArray[np.uint8], start: int, length: int, k0: np.uint64, k1: np.uint64) -> np.uint64:
    v0, v1, v2, v3 = k0 ^ _V0, k1 ^ _V1, k0 ^ _V2, k1 ^ _V3
    at, last = start, start + (length & ~7)
    while at < last:
        word = word_at(buffer, at)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
        v0 ^= word
        at += 8
    word = (word_at(buffer, at) & _KEEP[length & 7]) | _U(length) << _U(56)
    return _finish(v0, v1, v2, v3, word)


@inlined
def _finish(v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64, word: np.uint64) -> np.uint64:
    """The last word, three more rounds; 1 instead of 0, which means absent everywhere."""
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    v0, v2 = v0 ^ word, v2 ^ _FINAL
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return max(v0 ^ v1 ^ v2 ^ v3, _ONE)


@flat_kernel
def _hash_spans(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    k0: np.uint64,
    k1: np.uint64,
    hashes: NDArray[np.uint64],
) -> None:
    for row in range(starts.shape[0]):
        hashes[row] = _siphash(buffer, starts[row], lengths[row], k0, k1) if lengths[row] > 0 else _NONE


@flat_kernel
def _hash_words(
    words: NDArray[np.uint64],
    present: NDArray[np.bool_],
    k0: np.uint64,
    k1: np.uint64,
    hashes: NDArray[np.uint64],
) -> None:
    for row in range(words.shape[0]):
        word = words[row]
        v0, v1, v2, v3 = _round(k0 ^ _V0, k1 ^ _V1, k0 ^ _V2, k1 ^ _V3 ^ word)
        hashes[row] = _finish(v0 ^ word, v1, v2, v3, _BYTE << _U(56)) if present[row] else _NONE


@flat_kernel
def _mix(left: NDArray[np.uint64], right: NDArray[np.uint64], pairs: NDArray[np.uint64]) -> None:
    for row in range(left.shape[0]):
        # The finalizer of SplitMix64 over a combination in which left and right do not change places.
        word = left[row] * _U(0x9E3779B97F4A7C15) + _rotate(right[row], _U(29))
        word = (word ^ word >> _U(30)) * _U(0xBF58476D1CE4E5B9)
        word = (word ^ word >> _U(27)) * _U(0x94D049BB133111EB)
        absent = left[row] == _NONE or right[row] == _NONE
        pairs[row] = _NONE if absent else max(word ^ word >> _U(31), _ONE)


@flat_kernel
def _murmur2_partition(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    lengths: NDArray[np.int32],
    partitions: int,
    chosen: NDArray[np.int32],
) -> None:
    for row in range(starts.shape[0]):
        chosen[row] = (_murmur2(buffer, starts[row], lengths[row]) & 0x7FFFFFFF) % partitions


@inlined
def _murmur2(buffer: NDArray[np.uint8], start: int, length: int) -> int:
    """Austin Appleby's MurmurHash2 with Kafka's seed, in the low 32 bits of a signed integer."""
    hash_, at, end = 0x9747B28C ^ length, start, start + (length & ~3)
    while at < end:
        word = int(np.int64(word_at(buffer, at) & _KEEP[4])) * 0x5BD1E995 & 0xFFFFFFFF
        word = (word ^ word >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        hash_ = (hash_ * 0x5BD1E995 & 0xFFFFFFFF) ^ word
        at += 4
    if length & 3:
        for k in range(length & 3):
            hash_ ^= byte_at(buffer, at + k) << 8 * k
        hash_ = hash_ * 0x5BD1E995 & 0xFFFFFFFF
    hash_ = (hash_ ^ hash_ >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return hash_ ^ hash_ >> 15

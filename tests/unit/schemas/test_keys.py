"""Keyed hashes against their definitions in plain Python, and partitions against Kafka's own clients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2
from numpy.typing import NDArray

from schemas.keys import KeyRing, hash_spans, hash_words, mix, murmur2_partition, number_keys

MASK = (1 << 64) - 1
RING = KeyRing(bytes(range(32)))

Spans = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]


def spans(*texts: bytes) -> Spans:
    lengths = np.array([len(text) for text in texts], np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    return np.frombuffer(bytearray(b"".join(texts) + bytes(16)), np.uint8), starts, lengths


def siphash(text: bytes, k0: int, k1: int, *, compressions: int, finals: int) -> int:
    """SipHash-c-d as its paper has it."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def left(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & MASK

    def half(a: int, b: int, c: int, d: int, s: int, t: int) -> None:
        v[a] = (v[a] + v[b]) & MASK
        v[c] = (v[c] + v[d]) & MASK
        v[b] = left(v[b], s) ^ v[a]
        v[d] = left(v[d], t) ^ v[c]
        v[a] = left(v[a], 32)

    def rounds(count: int) -> None:
        for _ in range(count):
            half(0, 1, 2, 3, 13, 16)
            half(2, 1, 0, 3, 17, 21)

    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(compressions)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(finals)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_reference_gives_the_vector_of_the_paper() -> None:
    key = bytes(range(16))
    halves = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    assert siphash(bytes(range(15)), *halves, compressions=2, finals=4) == 0xA129CA6149BE45E5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1), st.integers(0, MASK), st.integers(0, MASK))
def test_spans_are_hashed_with_siphash_1_3(texts: list[bytes], k0: int, k1: int) -> None:
    hashes = hash_spans(*spans(*texts), np.uint64(k0), np.uint64(k1))
    expected = [siphash(text, k0, k1, compressions=1, finals=3) if text else 0 for text in texts]
    assert hashes.tolist() == expected


def test_words_are_hashed_as_their_eight_bytes() -> None:
    words = np.array([0, 1, 0xFFFFFFFFFFFFFFFF, 5], np.uint64)
    salt = RING.salt("gps_cell")
    by_bytes = hash_spans(*spans(*(word.tobytes() for word in words)), *salt)
    present = np.array([True, True, True, False])
    assert hash_words(words, present, *salt).tolist() == [*by_bytes.tolist()[:3], 0]


def test_numbers_that_are_equal_share_a_key() -> None:
    keys = number_keys(np.array([0.0, -0.0, 1.0, 1.5, np.nan]), *RING.salt("attrs.age")).tolist()
    assert keys[0] == keys[1] != 0
    assert len({*keys}) == 4
    assert keys[4] == 0


def test_kinds_and_secrets_never_share_a_key() -> None:
    other = KeyRing(bytes(32))
    keys = {
        ring.key_of(kind, "u1")
        for ring in (RING, other)
        for kind in ("user_id", "device_id", "attrs.user_id")
    }
    assert len(keys) == 6
    assert RING.key_of("user_id", "") == 0


def test_one_literal_hashes_as_in_a_batch() -> None:
    hashes = hash_spans(*spans("微".encode(), b"u1"), *RING.salt("page"))
    assert hashes.tolist() == [RING.key_of("page", "微"), RING.key_of("page", "u1")]


def test_the_keys_of_a_secret_never_change() -> None:
    assert RING.fingerprint == KeyRing(bytes(range(32))).fingerprint
    secrets = {RING.pseudonym_key, RING.sealing_key, RING.nonce_key, RING.derive("fingerprint")}
    assert len(secrets) == 4
    assert all(len(secret) == 32 for secret in secrets)
    assert RING.pseudonym_key.hex() not in repr(RING)
    # Pseudonyms are an outside promise: HMAC under the secret as it stands, not under a key made from it.
    assert (RING.fingerprint, RING.pseudonym_key) == ("31c01d65b6c9bdcf", bytes(range(32)))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="15 bytes"):
        KeyRing(bytes(15))


def test_mix_knows_the_order_and_the_absent() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.integers(1, MASK, (2, 10_000), np.uint64, endpoint=True)
    pairs = mix(left, right)
    assert len(np.unique(np.concatenate([pairs, mix(right, left), left, right]))) == 40_000
    ones = np.ones(2, np.uint64)
    assert mix(np.array([0, 1], np.uint64), ones)[0] == 0
    assert mix(ones, np.array([0, 1], np.uint64))[0] == 0
    # Every bit of either side moves half of the bits of the result.
    flipped = mix(left, right ^ np.uint64(1 << 63)) ^ pairs
    assert 31 < np.bitwise_count(flipped).mean() < 33


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1), st.integers(1, 1000))
def test_partitions_are_those_of_the_java_client(texts: list[bytes], partitions: int) -> None:
    chosen = murmur2_partition(*spans(*texts), partitions)
    assert chosen.tolist() == [(murmur2(text) & 0x7FFFFFFF) % partitions for text in texts]


def test_murmur2_gives_the_vectors_of_kafka_itself() -> None:
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    vectors = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    chosen = murmur2_partition(*spans(*vectors), 1 << 30)
    assert chosen.tolist() == [(value & 0x7FFFFFFF) % (1 << 30) for value in vectors.values()]

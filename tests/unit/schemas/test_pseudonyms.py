"""Pseudonyms against the standard library's HMAC, one by one and in bulk, also when the cache overflows."""

from __future__ import annotations

import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from schemas.decode import decode_json
from schemas.events import EventBatch
from schemas.keys import KeyRing, hash_spans
from schemas.pseudonyms import DEVICE, IP, USER, Pseudonyms

RING = KeyRing(b"k" * 32)


def expected(kind: str, value: str, secret: bytes = b"k" * 32) -> str:
    return hmac.new(secret, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:32]


def batch_of(devices: list[str | None]) -> EventBatch:
    raw = [
        json.dumps(
            {"event_id": "e", "event": "click", "ts": 1_760_000_000_000, "user_id": "u", "device_id": d}
        )
        for d in devices
    ]
    return decode_json(
        [text.encode() for text in raw],
        topic="clicks",
        partition=0,
        start=0,
        next=len(raw),
        offsets=np.arange(len(raw)),
    )


def devices_of(pseudonyms: Pseudonyms, batch: EventBatch, rows: np.ndarray) -> list[str]:
    keys = hash_spans(batch.buffer, batch.starts[3], batch.lengths[3], *RING.salt("device_id"))[rows]
    return [row.tobytes().hex() for row in pseudonyms.columns(DEVICE, keys, batch, "device_id", rows)]


def test_a_pseudonym_is_the_hmac_of_kind_and_value() -> None:
    pseudonyms = Pseudonyms(RING)
    for kind, value in [(USER, "u1"), (DEVICE, "微" * 50), (USER, ""), (IP, "10.0.0.1")]:
        assert pseudonyms.pseudonym(kind, value) == expected(kind, value)


@pytest.mark.parametrize("length", [16, 63, 64, 65, 200])
def test_secrets_of_any_length_are_hmac_keys(length: int) -> None:
    secret = bytes(range(length))
    assert Pseudonyms(KeyRing(secret)).pseudonym(USER, "u1") == expected(USER, "u1", secret)


def test_addresses_are_canonical_first() -> None:
    pseudonyms = Pseudonyms(RING)
    assert pseudonyms.pseudonym(IP, "::ffff:a00:1") == expected(IP, "10.0.0.1")
    assert pseudonyms.pseudonym(IP, "2001:DB8::0") == expected(IP, "2001:db8::")
    with pytest.raises(ValueError, match="does not appear"):
        pseudonyms.pseudonym(IP, "10.0.0")


@pytest.mark.parametrize("capacity", [1, 16, 1 << 16])
def test_columns_equal_single_pseudonyms_however_small_the_cache(capacity: int) -> None:
    pseudonyms = Pseudonyms(RING, capacity)
    rng = np.random.default_rng(capacity)
    for _ in range(4):
        names = [f"d{number}" if number else None for number in rng.integers(0, 200, 500).tolist()]
        batch, rows = batch_of(names), np.flatnonzero(rng.random(500) < 0.7)
        wanted = [expected(DEVICE, names[row] or "") if names[row] else "0" * 32 for row in rows.tolist()]
        assert devices_of(pseudonyms, batch, rows) == wanted


def test_a_value_is_hashed_once() -> None:
    pseudonyms = Pseudonyms(RING)
    batch = batch_of(["a", "b", "a", None, "b"])
    rows = np.arange(5)
    first = devices_of(pseudonyms, batch, rows)
    # The same keys over other bytes: only the cache can still know them.
    batch.buffer[:] = 0
    keys = np.array([RING.key_of("device_id", name) for name in "abab"], np.uint64)
    again = pseudonyms.columns(DEVICE, keys, batch, "device_id", np.arange(4))
    assert [row.tobytes().hex() for row in again] == [first[0], first[1], first[0], first[1]]


def test_no_rows_give_no_pseudonyms() -> None:
    batch = batch_of(["a"])
    none = np.zeros(0, np.int64)
    assert Pseudonyms(RING).columns(USER, none.astype(np.uint64), batch, "user_id", none).shape == (0, 16)


def test_threads_may_share_the_cache() -> None:
    pseudonyms = Pseudonyms(RING, 64)
    names: list[str | None] = [f"d{number}" for number in range(300)]
    batch = batch_of(names)
    wanted = [expected(DEVICE, name or "") for name in names]

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(300) for _ in range(40)]
        return all(devices_of(pseudonyms, batch, some) == [wanted[row] for row in some] for some in rows)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))

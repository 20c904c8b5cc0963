"""Sealed originals: the same bytes every time, readable with the right key for the right place only."""

from __future__ import annotations

import hashlib

import pytest

from schemas.errors import StateError
from schemas.keys import KeyRing
from schemas.sealing import Sealer

SEALER = Sealer(KeyRing(b"k" * 32))
RAW = b'{"phone": "13800138000"'


def seal(raw: bytes = RAW, offset: int = 7, topic: str = "clicks", partition: int = 1) -> bytes:
    digest = hashlib.sha256(raw).digest()
    return SEALER.seal(raw, topic=topic, partition=partition, offset=offset, sha256=digest)


def test_what_is_sealed_opens_again_and_shows_nothing() -> None:
    for raw in (RAW, b"", bytes(65536)):
        sealed = seal(raw)
        assert SEALER.open_sealed(sealed, topic="clicks", partition=1, offset=7) == raw
        assert len(sealed) == len(raw) + 29
    assert b"13800138000" not in seal()


def test_the_same_record_gives_the_same_bytes_and_any_other_another_nonce() -> None:
    assert seal() == seal()
    others = [seal(), seal(RAW + b"}"), seal(offset=8), seal(topic="participations"), seal(partition=2)]
    digest = hashlib.sha256(RAW).digest()
    others.append(SEALER.seal(RAW[:5], topic="clicks", partition=1, offset=7, sha256=digest))
    assert len({sealed[1:13] for sealed in others}) == len(others)


def test_another_key_another_place_or_a_changed_byte_do_not_open() -> None:
    sealed = seal()
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for sealer, text, offset in (
        (Sealer(KeyRing(b"x" * 32)), sealed, 7),
        (SEALER, sealed, 8),
        (SEALER, changed, 7),
    ):
        with pytest.raises(StateError, match="clicks-1 at"):
            sealer.open_sealed(text, topic="clicks", partition=1, offset=offset)
    for text in (b"", b"\x02" + sealed[1:], sealed[:9]):
        with pytest.raises(StateError, match="version"):
            SEALER.open_sealed(text, topic="clicks", partition=1, offset=7)

"""Seals dead letters under the key of the installation."""

from __future__ import annotations

from schemas.keys import KeyRing
from schemas.sealing import Sealer
from sinks.dead_letters import Seal


def seal_with(ring: KeyRing) -> Seal:
    """What the sinks call for each original."""
    sealer = Sealer(ring)

    def seal(topic: str, partition: int, offset: int, sha256: bytes, raw: bytes, /) -> bytes:
        return sealer.seal(raw, topic=topic, partition=partition, offset=offset, sha256=sha256)

    return seal

"""Sealed originals: a dead letter keeps what came in, readable to the holder of the secret (AES-256-GCM).

A nonce must never serve two different texts. It is derived from where the record stood and from the digest
of what it held, so the same record sealed again, after a restart for instance, is the same bytes, and any
other has its own. What is kept under a name, such as a list, is sealed alike.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import StateError
from schemas.keys import KeyRing

_VERSION = b"\x01"
_NONCE_BYTES = 12


class Sealer:
    """Seals and opens originals under one key ring.

    Examples
    --------
    >>> sealer = Sealer(KeyRing(bytes(32)))
    >>> digest = hashlib.sha256(b"{").digest()
    >>> sealed = sealer.seal(b"{", topic="clicks", partition=0, offset=7, sha256=digest)
    >>> sealer.open_sealed(sealed, topic="clicks", partition=0, offset=7)
    b'{'
    """

    def __init__(self, ring: KeyRing) -> None:
        self._cipher = AESGCM(ring.sealing_key)
        self._nonce_key = ring.nonce_key
        self._fingerprint = ring.fingerprint

    def seal(self, original: bytes, *, topic: str, partition: int, offset: int, sha256: bytes) -> bytes:
        """Seal the beginning of a record: 29 bytes longer than it.

        Parameters
        ----------
        original
            What is kept of the record; always the same part of the same record.
        topic, partition, offset
            Where it stood; needed to open it again.
        sha256
            Digest of the whole record.
        """
        return self._seal(original, _place(topic, partition, offset), sha256)

    def open_sealed(self, sealed: bytes, *, topic: str, partition: int, offset: int) -> bytes:
        """Read what :meth:`seal` made.

        Raises
        ------
        StateError
            It was sealed with another secret or for another place, or it was changed.
        """
        what = f"the original of {topic}-{partition} at {offset}"
        return self._open(sealed, _place(topic, partition, offset), what)

    def seal_named(self, original: bytes, name: str) -> bytes:
        """Seal what is kept under a name: 29 bytes longer than it.

        Examples
        --------
        >>> sealer = Sealer(KeyRing(bytes(32)))
        >>> sealer.open_named(sealer.seal_named(b"values", "list 7"), "list 7")
        b'values'
        """
        return self._seal(original, _named(name), hashlib.sha256(original).digest())

    def open_named(self, sealed: bytes, name: str) -> bytes:
        """Read what :meth:`seal_named` made.

        Raises
        ------
        StateError
            It was sealed with another secret or under another name, or it was changed.
        """
        return self._open(sealed, _named(name), name)

    def _seal(self, original: bytes, place: bytes, sha256: bytes) -> bytes:
        # The length too: of one record never two parts of different length under one nonce.
        label = place + sha256 + len(original).to_bytes(8, "big")
        nonce = hmac.digest(self._nonce_key, label, hashlib.sha256)[:_NONCE_BYTES]
        return _VERSION + nonce + self._cipher.encrypt(nonce, original, _VERSION + place)

    def _open(self, sealed: bytes, place: bytes, what: str) -> bytes:
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] != _VERSION or len(nonce) < _NONCE_BYTES:
            raise StateError("a sealed original of an unknown version; expected version 1")
        try:
            return self._cipher.decrypt(nonce, text, _VERSION + place)
        except InvalidTag as error:
            raise StateError(
                f"{what} does not open with {self._fingerprint}; expected the key and the place that it was sealed with"
            ) from error


def _place(topic: str, partition: int, offset: int) -> bytes:
    return f"{topic}\0{partition}\0{offset}\0".encode()


def _named(name: str) -> bytes:
    """No topic has a space in its name, so no record stands there."""
    return f" {name}\0".encode()

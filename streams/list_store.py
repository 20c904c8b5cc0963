"""The contents of lists beside the state, by digest: a turn that was judged by an old list is taken again by it.

They hold phones and devices of people, so they are sealed under the key of the installation.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pyarrow as pa

from schemas.errors import StateError
from schemas.keys import KeyRing
from schemas.sealing import Sealer
from sinks.store import STAGING_FOLDER, Store

_FOLDER = "lists"
_SIZE_BYTES = 8


class ListStore:
    """Files ``lists/<digest>.sealed`` of the state; nothing removes them.

    Parameters
    ----------
    state
        Where the state is, the same place for all workers.
    ring
        Its key seals them.
    """

    def __init__(self, state: Store, ring: KeyRing) -> None:
        self._state, self._sealer = state, Sealer(ring)

    def keep(self, digest: str, content: bytes) -> None:
        """Write a content, durably, unless it is there.

        Raises
        ------
        OSError
            The state can not be written; call again.
        """
        if self._state.read(_name(digest), durable=True) is not None:
            return
        packed = pa.Codec("zstd").compress(content, asbytes=True) if content else b""
        plain = len(content).to_bytes(_SIZE_BYTES, "little") + packed
        sealed = self._sealer.seal_named(plain, f"list {digest}")
        staged = f"{STAGING_FOLDER}/{_FOLDER}/{uuid.uuid4().hex}.staged"
        self._state.create(_name(digest), sealed, by_way_of=staged)

    def keep_all(self, contents: Mapping[str, bytes]) -> None:
        """Write contents by their digests."""
        for digest, content in contents.items():
            self.keep(digest, content)

    def content(self, digest: str) -> bytes:
        """Read a content.

        Raises
        ------
        StateError
            Nobody kept it here, or with another key.
        OSError
            The state can not be read; call again.
        """
        sealed = self._state.read(_name(digest))
        if sealed is None:
            raise StateError(
                f"a turn was judged by list {digest}, which is not in {_FOLDER}/ of the state: "
                "all workers need the same --state"
            )
        plain = self._sealer.open_named(sealed, f"list {digest}")
        size, packed = int.from_bytes(plain[:_SIZE_BYTES], "little"), plain[_SIZE_BYTES:]
        return bytes(pa.Codec("zstd").decompress(packed, size, asbytes=True)) if size else b""


def _name(digest: str) -> str:
    return f"{_FOLDER}/{digest}.sealed"

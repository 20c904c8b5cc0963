"""The contents of lists beside the state, by digest: a turn that was judged by an old list is taken again by it.

They hold phones and devices of people, so they are sealed under the key of the installation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from schemas.errors import StateError
from schemas.keys import KeyRing
from schemas.sealing import Sealer
from streams.checkpoints import sync_folder

_SIZE_BYTES = 8


class ListStore:
    """Files ``<state>/lists/<digest>.sealed``; nothing removes them.

    Parameters
    ----------
    state
        The state folder, shared by all workers.
    ring
        Its key seals them.
    """

    def __init__(self, state: Path, ring: KeyRing) -> None:
        self._folder, self._sealer = state / "lists", Sealer(ring)

    def keep(self, digest: str, content: bytes) -> None:
        """Write a content, durably, unless it is there."""
        path = self._path(digest)
        if path.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        packed = pa.Codec("zstd").compress(content, asbytes=True) if content else b""
        plain = len(content).to_bytes(_SIZE_BYTES, "little") + packed
        sealed = self._sealer.seal_named(plain, f"list {digest}")
        staged = path.with_suffix(f".{os.getpid()}.staged")
        with staged.open("wb") as file:
            file.write(sealed)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        sync_folder(self._folder)

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
        """
        try:
            sealed = self._path(digest).read_bytes()
        except FileNotFoundError as error:
            raise StateError(
                f"a turn was judged by list {digest}, which is not in {self._folder.name}/ of the state folder: "
                "all workers need the same --state"
            ) from error
        plain = self._sealer.open_named(sealed, f"list {digest}")
        size, packed = int.from_bytes(plain[:_SIZE_BYTES], "little"), plain[_SIZE_BYTES:]
        return bytes(pa.Codec("zstd").decompress(packed, size, asbytes=True)) if size else b""

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.sealed"

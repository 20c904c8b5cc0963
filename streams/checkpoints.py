"""State on disk: written whole or not at all, numbered by the position at which it stands.

A checkpoint is one file, ``<state>/checkpoints/<owner>/<position>.state``: a JSON head that names the arrays, the
arrays (zstd), and a digest over everything. A torn file fails its digest and the one before it is taken. Two writers
of the same position write the same bytes' meaning, so neither has to be fenced; a stale one writes a lower number,
which nobody reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import StateError
from sinks.faults import fault_point

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2
_MAGIC = b"woolwatch state\n"
_DIGEST_BYTES = 32

State = Mapping[str, NDArray[Any] | bytes]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State as of a position.

    ``position`` is a turn number for a judge and an offset of the sightings log for a shard; ``meta`` holds what
    else stands at that position (offsets, config hash), as JSON.
    """

    position: int
    meta: dict[str, Any]
    state: dict[str, NDArray[Any] | bytes]


class CheckpointStore:
    """The checkpoints of one owner (``judge-0003``, ``shard-0003``) below a state folder.

    Parameters
    ----------
    root
        The state folder, shared by all workers.
    owner
        Whose state.
    """

    def __init__(self, root: Path, owner: str) -> None:
        self._folder = root / "checkpoints" / owner

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, durably, then remove all but the newest two. Cost: about 0.4 s a million keys.

        Raises
        ------
        OSError
            The disk does not take it; the same call may be made again.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{checkpoint.position:020d}.state"
        staged = path.with_suffix(f".{os.getpid()}.staged")
        try:
            _write(checkpoint, staged)
        except OSError:
            staged.unlink(missing_ok=True)  # on a full disk it would be in its own way
            raise
        fault_point("checkpoint.staged")
        staged.replace(path)
        sync_folder(self._folder)
        fault_point("checkpoint.saved")
        self._prune()

    def load(self) -> Checkpoint | None:
        """The newest whole one; None when there is none.

        Raises
        ------
        StateError
            A file is of a format that this version does not know.
        """
        for path in sorted(self._folder.glob("*.state"), reverse=True):
            try:
                checkpoint = _read(path)
            except FileNotFoundError:
                continue  # pruned by its owner while we looked
            if checkpoint is not None:
                return checkpoint
            log.error("checkpoint %s is torn or altered: the one before it is taken", path.name)
        return None

    def _prune(self) -> None:
        for path in sorted(self._folder.glob("*.state"))[:-KEPT]:
            path.unlink(missing_ok=True)
        for path in self._folder.glob("*.staged"):
            if f".{os.getpid()}." not in path.name and not _is_alive(path):
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parts(checkpoint: Checkpoint) -> list[bytes]:
    codec, entries, blobs = pa.Codec("zstd", compression_level=1), [], []
    for name, value in checkpoint.state.items():
        raw = value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
        packed = codec.compress(raw, asbytes=True) if raw else b""
        dtype, shape = (None, None) if isinstance(value, bytes) else (value.dtype.str, value.shape)
        entries.append(
            {"name": name, "dtype": dtype, "shape": shape, "bytes": len(raw), "packed": len(packed)}
        )
        blobs.append(packed)
    head = orjson.dumps(
        {"format": FORMAT, "position": checkpoint.position, "meta": checkpoint.meta, "entries": entries}
    )
    return [_MAGIC, len(head).to_bytes(8, "little"), head, *blobs]


def _write(checkpoint: Checkpoint, path: Path) -> None:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    with path.open("wb") as file:
        for part in _parts(checkpoint):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Checkpoint | None:
    data = path.read_bytes()
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if not data.startswith(_MAGIC) or hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        return None
    at = len(_MAGIC) + 8
    size = int.from_bytes(body[len(_MAGIC) : at], "little")
    head = orjson.loads(body[at : at + size])
    if head["format"] != FORMAT:
        raise StateError(
            f"{path.name} is of state format {head['format']}; this version reads format {FORMAT}"
        )
    codec, state, at = pa.Codec("zstd"), {}, at + size
    for entry in head["entries"]:
        packed = body[at : at + entry["packed"]]
        at += entry["packed"]
        raw = codec.decompress(packed, entry["bytes"], asbytes=True) if packed else b""
        if entry["dtype"] is None:
            state[entry["name"]] = raw
        else:
            state[entry["name"]] = np.frombuffer(raw, entry["dtype"]).reshape(entry["shape"]).copy()
    return Checkpoint(head["position"], head["meta"], state)


def _is_alive(staged: Path) -> bool:
    pid = staged.name.split(".")[-2]
    return pid.isdigit() and Path(f"/proc/{pid}").exists()

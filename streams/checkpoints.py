"""State on a disk or in a bucket: written whole or not at all, numbered by the position at which it stands.

A checkpoint is one file, ``checkpoints/<owner>/<position>.state``. In every format: a magic line, the length of
a JSON head, the head with the format's number, the content, and a digest over all of it; so a torn file is told from
one of a later version. A torn one is passed over for the one before it.

Nobody is fenced here, since what may be saved is true whoever saves it, and when: a state is a function of the log up
to its position, and a judge saves only turns that were answered (void ones are not) with lessons that count
(:meth:`streams.lesson_log.LessonWriter.prove`). An owner that was overtaken saves what its successor would have.

=======  =========================================================================================================
format   content
=======  =========================================================================================================
2        of each array its chunks, each behind its packed length; ``claim`` of a judge is that of its last turn
1        of each array one piece, whose packed length is in the head; ``claim`` was that of the judge that wrote it
=======  =========================================================================================================
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import StateError
from sinks.faults import fault_point
from sinks.store import Store

log = logging.getLogger(__name__)

THE_STATE = "the state"
"""Who is waited for, when it can not be read or written."""
FORMAT = 2
"""Written; this one and those before it are read."""
KEPT = 2
_SUFFIX = ".state"
_MAGIC = b"woolwatch state\n"
_LENGTH_BYTES = 8
_DIGEST_BYTES = 32
_CHUNK_BYTES = 16 << 20
"""Packed at once, so that a large state is not in memory a second time."""

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
    """The checkpoints of one owner (``judge-0003``, ``shard-0003``).

    Parameters
    ----------
    state
        Where the state is, the same place for all workers.
    owner
        Whose state.
    """

    def __init__(self, state: Store, owner: str) -> None:
        self._state, self._folder = state, f"checkpoints/{owner}"

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, durably, then remove all but the newest two. Cost: about 0.4 s a million keys.

        Raises
        ------
        OSError
            The disk or the store does not take it; the same call may be made again.
        """
        self._state.put(f"{self._folder}/{checkpoint.position:020d}{_SUFFIX}", _file(checkpoint))
        fault_point("checkpoint.saved")
        self._state.remove(self._names()[:-KEPT])

    def load(self) -> Checkpoint | None:
        """The newest whole one; None when there is none.

        Raises
        ------
        StateError
            A file is of a format from the future.
        OSError
            The disk or the store can not be read; call again.
        """
        for name in reversed(self._names()):
            try:
                checkpoint = self._read(name)
            except FileNotFoundError:
                continue  # removed by its owner while we looked
            if checkpoint is not None:
                return checkpoint
            log.error("checkpoint %s is torn or altered: the one before it is taken", name)
        return None

    def _names(self) -> list[str]:
        return [name for name in self._state.names(self._folder) if name.endswith(_SUFFIX)]

    def _read(self, name: str) -> Checkpoint | None:
        with self._state.fetch(name) as file:
            if not _is_whole(file):
                return None
            file.seek(len(_MAGIC))
            head = orjson.loads(file.read(_length(file)))
            if head["format"] > FORMAT:
                raise StateError(
                    f"{name} is of state format {head['format']}; this version reads formats up to {FORMAT}"
                )
            chunk_bytes = head.get("chunk_bytes")
            state = {entry["name"]: _read_array(file, entry, chunk_bytes) for entry in head["entries"]}
        return Checkpoint(head["position"], head["meta"], state)


def _file(checkpoint: Checkpoint) -> Iterator[bytes]:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in _parts(checkpoint):
        digest.update(part)
        yield part
    yield digest.digest()


def _parts(checkpoint: Checkpoint) -> Iterator[bytes]:
    arrays = {name: _bytes_of(value) for name, value in checkpoint.state.items()}
    entries = [
        {"name": name, "bytes": len(arrays[name])}
        | ({"dtype": None} if isinstance(value, bytes) else {"dtype": value.dtype.str, "shape": value.shape})
        for name, value in checkpoint.state.items()
    ]
    head = {
        "format": FORMAT,
        "position": checkpoint.position,
        "meta": checkpoint.meta,
        "chunk_bytes": _CHUNK_BYTES,
        "entries": entries,
    }
    yield _MAGIC
    yield from _behind_length(orjson.dumps(head))
    codec = pa.Codec("zstd", compression_level=1)
    for array in arrays.values():
        for first in range(0, len(array), _CHUNK_BYTES):
            yield from _behind_length(codec.compress(array[first : first + _CHUNK_BYTES], asbytes=True))


def _bytes_of(value: NDArray[Any] | bytes) -> NDArray[np.uint8]:
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8)
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def _behind_length(part: bytes) -> tuple[bytes, bytes]:
    return len(part).to_bytes(_LENGTH_BYTES, "little"), part


def _is_whole(file: BinaryIO) -> bool:
    digest, left = hashlib.blake2b(digest_size=_DIGEST_BYTES), os.fstat(file.fileno()).st_size - _DIGEST_BYTES
    if file.read(len(_MAGIC)) != _MAGIC:
        return False
    file.seek(0)
    while left > 0:
        part = file.read(min(_CHUNK_BYTES, left))
        digest.update(part)
        left -= len(part)
    return file.read() == digest.digest()


def _length(file: BinaryIO) -> int:
    return int.from_bytes(file.read(_LENGTH_BYTES), "little")


def _read_array(file: BinaryIO, entry: Mapping[str, Any], chunk_bytes: int | None) -> NDArray[Any] | bytes:
    """The next array of the file; ``chunk_bytes`` None is format 1."""
    codec, raw = pa.Codec("zstd"), np.empty(entry["bytes"], np.uint8)
    for first in range(0, len(raw), chunk_bytes or len(raw) or 1):
        chunk = raw[first : first + chunk_bytes] if chunk_bytes else raw
        packed = file.read(_length(file) if chunk_bytes else entry["packed"])
        chunk[:] = np.frombuffer(codec.decompress(packed, len(chunk)), np.uint8)
    if entry["dtype"] is None:
        return raw.tobytes()
    array: NDArray[Any] = raw.view(entry["dtype"]).reshape(entry["shape"])
    return array

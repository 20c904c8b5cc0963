"""Judged features as files that never change, read through memory maps.

``judged/judge-0003/<name>.features`` of the state: a JSON head in a page of its own, then the columns one behind the
other. A checkpoint names the files that belong to it; a file is durable before the checkpoint that names it. Of a state
in a bucket there are copies on the disk of the worker that owns the partition.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import orjson

from detectors.judged_features import JudgedFeatures, Segment, joined, sealed
from schemas.errors import StateError
from sinks.store import Store
from streams.checkpoints import KEPT

log = logging.getLogger(__name__)

SEALED_ROWS = 16_384
"""Fewer rows stay in the checkpoint itself."""
_LITTER_S = 3600.0
"""What no checkpoint names is removed only so long after it was seen: another process may be about to name it."""
_VERSION = 1
_PAGE = 4096


class FeatureFiles:
    """The segments of one judge partition.

    Parameters
    ----------
    state
        Where the state is.
    owner
        Whose (``judge-0003``).
    clock
        Seconds, for litter.
    """

    def __init__(self, state: Store, owner: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state, self._folder, self._clock = state, f"judged/{owner}", clock
        self._named: deque[frozenset[str]] = deque(maxlen=KEPT)
        self._unnamed_since: dict[str, float] = {}

    def load(self, names: Sequence[str]) -> list[Segment]:
        """The segments that a checkpoint names.

        Raises
        ------
        StateError
            A file is missing or is none of ours.
        OSError
            The disk or the store can not be read; call again.
        """
        self._named.append(frozenset(names))
        return [self._read(name) for name in names]

    def keep(self, memory: JudgedFeatures, turn: int) -> list[str]:
        """Write what has gathered as files, durably, and return the names of all: the checkpoint's to note.

        Raises
        ------
        OSError
            The disk is full, or the store is away. The memory is whole: call again.
        """
        self._write_last(memory, turn)  # sealed by a call that failed
        if memory.tail_rows >= SEALED_ROWS:
            memory.seal()
            self._write_last(memory, turn)
        while parts := memory.mergeable():
            memory.replace(parts, self._write(sealed(joined(parts)), turn))
        memory.forget()
        return [segment.name for segment in memory.segments]

    def checkpointed(self, names: Sequence[str]) -> None:
        """Remove what the last checkpoints have not named for an hour."""
        self._named.append(frozenset(names))
        wanted, now_s = frozenset[str]().union(*self._named), self._clock()
        try:
            unnamed = [name for name in self._state.names(self._folder) if _last(name) not in wanted]
            self._unnamed_since = {name: self._unnamed_since.get(name, now_s) for name in unnamed}
            self._state.remove([name for name in unnamed if self._unnamed_since[name] <= now_s - _LITTER_S])
        except OSError as error:
            log.debug("files in %s/%s are left for later: %s", self._state, self._folder, error)

    def _write_last(self, memory: JudgedFeatures, turn: int) -> None:
        if memory.segments and not memory.segments[-1].name:
            memory.replace(memory.segments[-1:], self._write(memory.segments[-1], turn))

    def _write(self, segment: Segment, turn: int) -> Segment:
        name = f"{turn:020d}-{len(segment)}-{os.urandom(4).hex()}.features"
        self._state.put(f"{self._folder}/{name}", _parts(segment))
        return self._read(name)

    def _read(self, name: str) -> Segment:
        try:
            file = self._state.fetch(f"{self._folder}/{name}")
        except FileNotFoundError as error:
            raise StateError(f"{name} of the judged features is missing") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            try:
                head = orjson.loads(file.read(min(length, size)))
                rows, inputs = head["rows"], tuple(head["inputs"])
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise StateError(f"{name} of the judged features can not be read: {error}") from error
            start = -(-(length + 8) // _PAGE) * _PAGE
            if head["version"] != _VERSION or size != start + rows * 8 * (4 + len(inputs)):
                raise StateError(f"{name} of the judged features is of another version or torn")
            # One map a file, for a process may have only some 65,000.
            numbers = np.memmap(file, np.uint64, "r", start, rows * (4 + len(inputs)))
        event, user, ts_ms, order = numbers[: 4 * rows].reshape(4, rows)
        x = numbers[4 * rows :].view(np.float64).reshape(rows, len(inputs))
        return Segment(
            inputs, event, user, ts_ms.view(np.int64), order.view(np.int64), x, head["newest_ms"], name
        )


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _parts(segment: Segment) -> Iterator[bytes]:
    head = orjson.dumps(
        {
            "version": _VERSION,
            "rows": len(segment),
            "newest_ms": segment.newest_ms,
            "inputs": segment.inputs,
        }
    )
    pages = -(-(len(head) + 8) // _PAGE)
    yield len(head).to_bytes(8, "little") + head + bytes(pages * _PAGE - len(head) - 8)
    for column in (segment.event, segment.user, segment.ts_ms, segment.order, segment.x):
        yield np.ascontiguousarray(column).tobytes()

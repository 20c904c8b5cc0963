"""Judged features on disk: segments as files that never change, read through memory maps.

``<state>/judged/judge-0003/<name>.features``: a JSON head in a page of its own, then the columns one behind the other.
A checkpoint names the files that belong to it; a file is durable before the checkpoint that names it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from detectors.judged_features import JudgedFeatures, Segment, joined, sealed
from schemas.errors import StateError
from streams.checkpoints import KEPT, sync_folder

SEALED_ROWS = 16_384
"""Fewer rows stay in the checkpoint itself."""
_LITTER_S = 3600.0
"""What no checkpoint names is removed only then: another process may be about to name it."""
_VERSION = 1
_PAGE = 4096


class FeatureFiles:
    """The segments of one judge partition.

    Parameters
    ----------
    root
        The state folder.
    owner
        Whose (``judge-0003``).
    """

    def __init__(self, root: Path, owner: str) -> None:
        self._folder = root / "judged" / owner
        self._named: deque[frozenset[str]] = deque(maxlen=KEPT)

    def load(self, names: Sequence[str]) -> list[Segment]:
        """The segments that a checkpoint names.

        Raises
        ------
        StateError
            A file is missing or is none of ours.
        """
        self._named.append(frozenset(names))
        return [self._read(name) for name in names]

    def keep(self, memory: JudgedFeatures, turn: int) -> list[str]:
        """Write what has gathered as files, durably, and return the names of all: the checkpoint's to note.

        Raises
        ------
        OSError
            The disk is full, or away. The memory is whole: call again.
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
        """Remove what the last checkpoints do not name."""
        self._named.append(frozenset(names))
        wanted = frozenset().union(*self._named)
        before_s = time.time() - _LITTER_S
        for path in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # a former owner may tidy up, too
                if path.name not in wanted and path.stat().st_mtime < before_s:
                    path.unlink()

    def _write_last(self, memory: JudgedFeatures, turn: int) -> None:
        if memory.segments and not memory.segments[-1].name:
            memory.replace(memory.segments[-1:], self._write(memory.segments[-1], turn))

    def _write(self, segment: Segment, turn: int) -> Segment:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{turn:020d}-{len(segment)}-{os.urandom(4).hex()}.features"
        staged = self._folder / f"{name}.staged"
        head = orjson.dumps(
            {
                "version": _VERSION,
                "rows": len(segment),
                "newest_ms": segment.newest_ms,
                "inputs": segment.inputs,
            }
        )
        pages = -(-(len(head) + 8) // _PAGE)
        with staged.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head + bytes(pages * _PAGE - len(head) - 8))
            for column in (segment.event, segment.user, segment.ts_ms, segment.order, segment.x):
                file.write(np.ascontiguousarray(column).tobytes())
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._folder / name)
        sync_folder(self._folder)
        return self._read(name)

    def _read(self, name: str) -> Segment:
        path = self._folder / name
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                head = orjson.loads(file.read(min(length, size)))
            rows, inputs = head["rows"], tuple(head["inputs"])
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise StateError(f"{name} of the judged features can not be read: {error}") from error
        start = -(-(length + 8) // _PAGE) * _PAGE
        if head["version"] != _VERSION or size != start + rows * 8 * (4 + len(inputs)):
            raise StateError(f"{name} of the judged features is of another version or torn")
        # One map a file, for a process may have only some 65,000.
        numbers = np.memmap(path, np.uint64, "r", start, rows * (4 + len(inputs)))
        event, user, ts_ms, order = numbers[: 4 * rows].reshape(4, rows)
        x = numbers[4 * rows :].view(np.float64).reshape(rows, len(inputs))
        return Segment(
            inputs, event, user, ts_ms.view(np.int64), order.view(np.int64), x, head["newest_ms"], name
        )

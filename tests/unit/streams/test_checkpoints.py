"""A checkpoint comes back whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.errors import StateError
from sinks.local_store import LocalStore
from streams.checkpoints import Checkpoint, CheckpointStore


def checkpoint(position: int) -> Checkpoint:
    state: dict[str, NDArray[Any] | bytes] = {
        "a/ids": np.arange(position, dtype=np.uint64).reshape(-1, 1),
        "a/none": np.zeros(0, np.int32),
        "b/json": b'{"x": 1}',
        "b/empty": b"",
    }
    return Checkpoint(position, {"positions": {"clicks": position}}, state)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoints/judge-0001/*"))


def test_the_newest_comes_back_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(LocalStore(tmp_path), "judge-0001")
    for position in (3, 1000, 7):
        store.save(checkpoint(position))
    got = CheckpointStore(LocalStore(tmp_path), "judge-0001").load()
    assert got is not None
    assert (got.position, got.meta) == (1000, {"positions": {"clicks": 1000}})
    for name, value in checkpoint(1000).state.items():
        if isinstance(value, bytes):
            assert got.state[name] == value
        else:
            restored = got.state[name]
            assert isinstance(restored, np.ndarray)
            assert restored.dtype == value.dtype
            assert restored.shape == value.shape
            assert (restored == value).all()
            assert restored.flags.writeable


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert CheckpointStore(LocalStore(tmp_path), "judge-0001").load() is None


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(LocalStore(tmp_path), "judge-0001")
    for position in range(1, 6):
        store.save(checkpoint(position))
    assert [int(path.stem) for path in files(tmp_path)] == [4, 5]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_torn_one_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(LocalStore(tmp_path), "judge-0001")
    store.save(checkpoint(10))
    store.save(checkpoint(20))
    newest = files(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    damaged = {"cut": content[:-3], "flip": content, "empty": bytearray()}
    newest.write_bytes(damaged[damage])
    got = store.load()
    assert got is not None
    assert got.position == 10


def test_a_format_from_the_future_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(LocalStore(tmp_path), "judge-0001")
    monkeypatch.setattr("streams.checkpoints.FORMAT", 3)
    store.save(checkpoint(10))
    monkeypatch.undo()
    with pytest.raises(StateError, match="format 3; this version reads formats up to 2"):
        store.load()


@pytest.mark.parametrize("written_by", [1, 7, 1 << 20])
def test_arrays_of_many_chunks_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_by: int
) -> None:
    store = CheckpointStore(LocalStore(tmp_path), "judge-0001")
    monkeypatch.setattr("streams.checkpoints._CHUNK_BYTES", written_by)
    store.save(checkpoint(40))
    monkeypatch.undo()
    got = store.load()
    assert got is not None
    assert got.state.keys() == checkpoint(40).state.keys()
    for name, value in checkpoint(40).state.items():
        assert np.array_equal(np.asarray(got.state[name]), np.asarray(value)), name


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    store = CheckpointStore(LocalStore(tmp_path), "judge-0001")
    store.save(checkpoint(10))
    staging = tmp_path / "_staging" / "checkpoints" / "judge-0001"
    (staging / f"{11:020d}.0a1b2c3d.staged").write_bytes(b"half a state")
    store.save(checkpoint(12))
    assert list(staging.iterdir()) == []
    assert [path.name for path in files(tmp_path)] == [f"{position:020d}.state" for position in (10, 12)]

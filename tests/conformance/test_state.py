"""State comes back from a disk and from an S3-compatible server alike."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from detectors.judged_features import JudgedFeatures, Segment
from schemas.config import parse_config
from schemas.errors import StateError
from schemas.keys import KeyRing
from schemas.labels import labels_of
from sinks.local_store import LocalStore
from sinks.object_store import ObjectStore
from sinks.store import Store
from streams.checkpoints import Checkpoint, CheckpointStore
from streams.config_store import ConfigStore
from streams.feature_files import SEALED_ROWS, FeatureFiles
from streams.list_store import ListStore

pytestmark = pytest.mark.integration


@pytest.fixture(params=["disk", "s3"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Where the state is."""
    if request.param == "disk":
        return LocalStore(tmp_path / "state")
    return ObjectStore(request.getfixturevalue("s3_uri"))


def test_checkpoints(state: Store) -> None:
    checkpoints = CheckpointStore(state, "judge-0001")
    assert checkpoints.load() is None
    for position in (3, 1000, 7):
        checkpoints.save(Checkpoint(position, {"at": position}, {"ids": np.arange(position), "none": b""}))
    found = CheckpointStore(state, "judge-0001").load()
    assert found is not None
    assert (found.position, found.meta) == (1000, {"at": 1000})
    assert np.array_equal(np.asarray(found.state["ids"]), np.arange(1000))
    assert [int(Path(name).stem) for name in state.names("checkpoints")] == [7, 1000]
    state.put(f"checkpoints/judge-0001/{2000:020d}.state", [b"woolwatch state\n torn"])
    found = checkpoints.load()
    assert found is not None
    assert found.position == 1000


def test_configs_and_lists(state: Store) -> None:
    ring, content = KeyRing(bytes(32)), b"value\nu1\n"
    config, digest = parse_config({})[0], hashlib.sha256(content).hexdigest()[:32]
    for _ in range(2):
        ConfigStore(state).keep(config)
        ListStore(state, ring).keep(digest, content)
    assert ConfigStore(state).config(bytes.fromhex(config.hash)).hash == config.hash
    assert ListStore(state, ring).content(digest) == content
    with pytest.raises(StateError, match="same --state"):
        ConfigStore(state).config(bytes(16))
    with pytest.raises(StateError, match="same --state"):
        ListStore(state, ring).content("0" * 32)


def test_judged_features_are_found_also_when_their_file_is_gone(state: Store) -> None:
    now_s, rows = [0.0], np.arange(SEALED_ROWS)
    memory = JudgedFeatures(("a",), horizon_ms=10**9)
    memory.add(
        Segment(
            ("a",),
            rows.astype(np.uint64) + 5,
            rows.astype(np.uint64),
            rows,
            rows,
            (rows[:, None] / 2.0).astype(np.float64),
        )
    )
    names = FeatureFiles(state, "judge-0000").keep(memory, 1)
    files = FeatureFiles(state, "judge-0000", clock=lambda: now_s[0])
    again = JudgedFeatures(("a",), horizon_ms=10**9)
    again.segments = files.load(names)
    for _ in range(2):
        files.checkpointed([])
        files.checkpointed([])
        now_s[0] += 3600.0
    assert state.names("judged") == []
    (found,) = again.find(labels_of([(105, 0, 0, 1)]))
    assert found is not None
    assert (found.order, found.x.tolist()) == (100, [50.0])
    with pytest.raises(StateError, match="missing"):
        files.load(names)

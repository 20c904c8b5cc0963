"""Judged features are found again, from memory and from files alike, as a dictionary finds them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from detectors.judged_features import NOT_KEPT, JudgedFeatures, Segment
from schemas.errors import StateError
from schemas.labels import labels_of
from sinks.local_store import LocalStore
from streams.feature_files import SEALED_ROWS, FeatureFiles

INPUTS = ("a", "b")


def _rows(draw: random.Random, count: int, first: int) -> Segment:
    return Segment(
        INPUTS,
        event=np.array([draw.randrange(1, 200_000) for _ in range(count)], np.uint64),
        user=np.array([draw.randrange(1, 4) for _ in range(count)], np.uint64),
        ts_ms=np.arange(first, first + count) * 10,
        order=np.arange(first, first + count),
        x=np.array([[draw.random(), float(first)] for _ in range(count)]),
    )


def test_files_answer_as_a_dictionary_does(tmp_path: Path) -> None:
    draw, first = random.Random(1), 0
    memory, files = JudgedFeatures(INPUTS, horizon_ms=10**9), FeatureFiles(LocalStore(tmp_path), "judge-0000")
    known: dict[tuple[int, int], tuple[int, list[float]]] = {}
    sizes = []
    for turn in range(12):
        rows = _rows(draw, SEALED_ROWS // 2, first)
        first += len(rows)
        memory.add(rows)
        for i in range(len(rows)):
            for user in (0, int(rows.user[i])):
                known[int(rows.event[i]), user] = (int(rows.order[i]), rows.x[i].tolist())
        names = files.keep(memory, turn)
        sizes.append(len(names))
        asked = labels_of([(draw.randrange(1, 200_000), draw.randrange(4), 0, 1) for _ in range(300)])
        found = memory.find(asked)
        for place, (event, user) in enumerate(zip(asked.event.tolist(), asked.user.tolist(), strict=True)):
            one = found[place]
            assert (None if one is None else (one.order, one.x.tolist())) == known.get((event, user))
    assert max(sizes) <= 3
    again = JudgedFeatures(("b", "c"), horizon_ms=10**9)
    again.segments = FeatureFiles(LocalStore(tmp_path), "judge-0000").load(names)
    again.restore(memory.snapshot(), INPUTS)
    (event, user), (order, x) = next(iter(known.items()))
    one = again.find(labels_of([(event, user, 0, 1)]))[0]
    assert one is not None
    assert (one.order, one.x.tolist()) == (order, [x[1], NOT_KEPT])


def test_what_is_beyond_the_horizon_is_forgotten_and_its_file_removed(tmp_path: Path) -> None:
    now_s = [0.0]
    memory = JudgedFeatures(INPUTS, horizon_ms=1000)
    files = FeatureFiles(LocalStore(tmp_path), "judge-0000", clock=lambda: now_s[0])
    draw, kept = random.Random(2), []
    for turn in range(4):
        memory.add(_rows(draw, SEALED_ROWS, turn * SEALED_ROWS))
        kept.append(files.keep(memory, turn))
        files.checkpointed(kept[-1])
    assert all(len(names) == 1 for names in kept)

    def left() -> set[str]:
        return {path.name for path in (tmp_path / "judged" / "judge-0000").iterdir()}

    assert left() > {*kept[-1], *kept[-2]}
    now_s[0] = 3600.0
    files.checkpointed(kept[-1])
    assert left() == {*kept[-1], *kept[-2]}


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    memory, files = JudgedFeatures(INPUTS, horizon_ms=1000), FeatureFiles(LocalStore(tmp_path), "judge-0000")
    memory.add(_rows(random.Random(2), SEALED_ROWS, 0))
    (name,) = files.keep(memory, 0)
    os.truncate(tmp_path / "judged" / "judge-0000" / name, 5_000)
    with pytest.raises(StateError, match="torn"):
        files.load([name])
    with pytest.raises(StateError, match="missing"):
        files.load(["gone"])


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, files = JudgedFeatures(INPUTS, horizon_ms=10**9), FeatureFiles(LocalStore(tmp_path), "judge-0000")
    rows = _rows(random.Random(3), SEALED_ROWS, 0)
    memory.add(rows)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.keep(memory, 1)
    (segment,) = FeatureFiles(LocalStore(tmp_path), "judge-0000").load(files.keep(memory, 2))
    assert sorted(segment.order.tolist()) == rows.order.tolist()

"""A campaign as files: every format the same events, the truth beside them, all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.errors import RecordingError
from simulation.campaign import Campaign
from simulation.files import truth_path, write_campaign
from streams.recordings import raw_events, unseen
from tests.unit.simulation.campaigns import DAY_MS, START_MS

SMALL = Campaign(seed=2, events=3_000, start_ms=START_MS, duration_ms=DAY_MS)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_recording_is_what_load_and_replay_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    told: list[int] = []
    assert write_campaign(SMALL.batches(), path, progress=told.append) == sum(told) == 3_000
    rows = [row for chunk in raw_events([path]) for _, row in chunk if row is not None]
    expected = [
        {key: value for key, value in row.items() if value is not None and not key.startswith("truth_")}
        for table in SMALL.batches()
        for row in table.to_pylist()
    ]
    assert rows == expected
    truth = pq.read_table(tmp_path / "a.truth.parquet")
    assert truth.column_names == ["event_id", "user_id", "label", "truth_kind", "truth_party", "truth_crowd"]
    assert truth["event_id"].to_pylist() == [row["event_id"] for row in rows]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([name, "a.truth.parquet"])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.parquet"
        write_campaign(SMALL.batches(), path, progress=unseen)
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, truth_path(path))])
    assert digests[0] == digests[1]


def test_what_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        yield from SMALL.batches()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_campaign(failing(), tmp_path / "a.parquet", progress=unseen)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.csv", "a", ".parquet", "a.parquet.gz"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=r"\.parquet, \.jsonl"):
        write_campaign(SMALL.batches(), tmp_path / name, progress=unseen)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="missing"):
        write_campaign(SMALL.batches(), tmp_path / "missing" / "a.parquet", progress=unseen)

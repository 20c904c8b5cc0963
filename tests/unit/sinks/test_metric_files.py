"""Metric files: whole, the newest only, whoever writes."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sinks.metric_files
from schemas.errors import StateError
from schemas.partials import Block, BlockKey
from sinks.local_store import LocalStore
from sinks.metric_files import MetricFiles
from sinks.store import File
from sinks.tables import Table


def rows(*values: int) -> Table:
    return pa.table({"campaign": ["spring"] * len(values), "users_gross": list(values)})


def shown(root: Path, partition: int = 0) -> list[int]:
    path = root / "metrics" / "dau" / f"part-{partition}.parquet"
    values: list[int] = pq.ParquetFile(path).read()["users_gross"].to_pylist()
    return values


def staged(root: Path) -> list[str]:
    return [path.name for path in (root / "_staging" / "metrics").glob("**/*.staged")]


def test_newer_numbers_replace_older_ones_whole(tmp_path: Path) -> None:
    files = MetricFiles(LocalStore(tmp_path))
    assert files.position("dau", 0) is None
    assert files.replace("dau", 0, 5, rows(1, 2, 3))
    assert files.replace("dau", 0, 6, rows(4))
    assert files.replace("dau", 0, 6, rows(5, 6)), "the same position, counted anew"
    assert files.position("dau", 0) == 6
    assert shown(tmp_path) == [5, 6]
    assert staged(tmp_path) == []


def test_older_numbers_never_replace_newer_ones(tmp_path: Path) -> None:
    MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 6, rows(1))
    assert not MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 5, rows(2))
    assert shown(tmp_path) == [1]
    assert staged(tmp_path) == []


def test_tables_and_partitions_are_apart_and_read_as_one(tmp_path: Path) -> None:
    files = MetricFiles(LocalStore(tmp_path))
    files.replace("dau", 0, 6, rows(1))
    files.replace("dau", 10, 1, rows(2))
    files.replace("dau", 1, 0, rows())
    files.replace("funnel", 0, 1, rows(3))
    with duckdb.connect() as connection:
        found = connection.execute(
            "select users_gross from read_parquet(?) order by 1", [f"{tmp_path}/metrics/dau/*.parquet"]
        ).fetchall()
    assert found == [(1,), (2,)]
    assert files.position("funnel", 0) == 1


def test_the_schema_is_that_of_the_rows(tmp_path: Path) -> None:
    MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 1, rows(1))
    assert pq.read_schema(tmp_path / "metrics" / "dau" / "part-0.parquet").equals(rows(1).schema)


def test_what_dead_writers_staged_is_removed_unless_it_may_be_newer(tmp_path: Path) -> None:
    files = MetricFiles(LocalStore(tmp_path))
    files.replace("dau", 1, 1, rows(1))
    left = [
        f"part-1.{1:020d}-a.staged",
        f"part-1.{9:020d}-b.staged",
        f"part-10.{1:020d}-c.staged",
        f"part-1-2026-01-31.{1:020d}-d.staged",
    ]
    for name in left:
        (tmp_path / "_staging" / "metrics" / "dau" / name).touch()
    files.replace("dau", 1, 2, rows(2))
    assert sorted(staged(tmp_path)) == sorted(left[1:])


def test_a_writer_that_was_swept_is_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = sinks.metric_files._write

    def overtaken(table: Table, position: int, file: File) -> None:
        write(table, position, file)
        monkeypatch.setattr(sinks.metric_files, "_write", write)
        assert MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 7, rows(7))

    monkeypatch.setattr(sinks.metric_files, "_write", overtaken)
    assert not MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 6, rows(6))
    assert shown(tmp_path) == [7]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = MetricFiles(LocalStore(tmp_path))
    files.replace("dau", 0, 1, rows(1))

    def full(*_: object) -> None:
        raise OSError(28, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="full"):
            files.replace("dau", 0, 2, rows(2))
    assert shown(tmp_path) == [1]
    assert staged(tmp_path) == []
    assert files.replace("dau", 0, 2, rows(2))


def test_the_position_is_checked_after_the_lock_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def overtaken(file: IO[bytes], operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 7, rows(7))
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    assert not MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 6, rows(6))
    assert shown(tmp_path) == [7]


def test_nobody_else_has_the_lock_while_the_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def renamed_alone(source: Path, target: Path) -> Path:
        lock = tmp_path / "_log" / "metrics" / "dau.lock"
        with lock.open("wb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", renamed_alone)
    assert MetricFiles(LocalStore(tmp_path)).replace("dau", 0, 1, rows(1))
    assert shown(tmp_path) == [1]


def test_blocks_that_are_put_aside_come_back_as_they_were(tmp_path: Path) -> None:
    files = MetricFiles(LocalStore(tmp_path))
    blocks = [
        Block(BlockKey("events", "look", "5m", 7, "campaign", name), 3, 9, b"\0") for name in ("c", None)
    ]
    assert files.archived_days("events", 1) == set()
    assert files.archive("events", 1, 5, blocks, day=20_000)
    assert files.archive("events", 1, 5, blocks[:1], day=3_000_000), "in the year 10183"
    assert files.archive("events", 10, 5, [], day=1)
    assert not files.archive("events", 1, 4, [], day=20_000), "by an owner that was overtaken"
    assert files.archived_days("events", 1) == {20_000, 3_000_000}
    assert files.archived("events", 1, 20_000) == blocks


def test_an_archive_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "_rollup" / "events" / "part-0-2024-10-04.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(rows(1), path)
    with pytest.raises(StateError, match="part-0-2024-10-04"):
        MetricFiles(LocalStore(tmp_path)).archived("events", 0, 20_000)


def test_days_have_files_of_their_own(tmp_path: Path) -> None:
    files = MetricFiles(LocalStore(tmp_path))
    files.replace("dau", 0, 5, rows(1))
    files.replace("dau", 0, 6, rows(2), day=20_000)
    files.replace("dau", 0, 6, rows(3), day=20_001)
    files.remove_whole("dau", 0)
    files.remove_whole("dau", 0)
    names = sorted(path.name for path in (tmp_path / "metrics" / "dau").iterdir())
    assert names == ["part-0-2024-10-04.parquet", "part-0-2024-10-05.parquet"]

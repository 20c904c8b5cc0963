"""The Parquet sink: every row once, through repeats, other cuts, other writers, and a disk that fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sinks.local_store
import sinks.staged_commits
from schemas.errors import StateError
from schemas.verdicts import Verdicts
from sinks.commit_log import account_of, read_accounts
from sinks.local_store import LocalStore
from sinks.parquet import ParquetSink
from sinks.store import File
from sinks.tables import Table
from tests.unit.sinks.turns import Made, Row, made_turn

PARTITION = 3


def sink_at(root: Path) -> ParquetSink:
    sink = ParquetSink(LocalStore(root), PARTITION, key_fingerprint="key")
    sink.open()
    return sink


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, owner: object, call: str) -> Iterator[None]:
    """Let this call fail as on a full disk; the block must end by that error."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, _raise_full)
        with pytest.raises(OSError, match="full"):
            yield


def turns_of(made: Sequence[Made]) -> list[Verdicts]:
    return [turn.turn for turn in made]


def rows_in(root: Path, table: str) -> list[Row]:
    """All rows that a reader sees, by turn and row."""
    rows: list[Row] = []
    for path in root.glob(f"{table}/**/*.parquet"):
        date = path.parent.name.removeprefix("date=")
        for row in pq.ParquetFile(path).read().to_pylist():
            assert row["ts"].strftime("%Y-%m-%d") == date
            rows.append(row)
    return sorted(rows, key=lambda row: (row["topic"], row["offset"]))


def assert_tables(root: Path, made: Sequence[Made]) -> None:
    for table in ("verdicts", "late"):
        expected = [row for turn in made for row in getattr(turn, table)]
        assert rows_in(root, table) == sorted(expected, key=lambda row: (row["topic"], row["offset"]))


def staged(root: Path) -> list[str]:
    return [path.name for path in (root / "_staging" / f"p{PARTITION}").iterdir()]


def test_rows_land_in_folders_of_their_date(tmp_path: Path) -> None:
    made = [made_turn(number) for number in range(6)]
    sink = sink_at(tmp_path)

    assert sink.write(turns_of(made)) == 6

    assert_tables(tmp_path, made)
    assert sink.account == account_of(turns_of(made)) == read_accounts(LocalStore(tmp_path)).sources
    assert staged(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"_log", "_staging", "verdicts", "late"}


def test_other_tools_read_the_tables_as_one(tmp_path: Path) -> None:
    made = [made_turn(number) for number in range(6)]
    sink = sink_at(tmp_path)
    sink.write(turns_of(made[:4]))
    sink.write(turns_of(made[4:]))

    with duckdb.connect() as connection:
        found = connection.execute(
            "select date::varchar, count(*), sum(score) from read_parquet(?, hive_partitioning = true) "
            "group by 1 order by 1",
            [f"{tmp_path}/verdicts/**/*.parquet"],
        ).fetchall()

    expected: dict[str, list[float]] = {}
    for row in (row for turn in made for row in turn.verdicts):
        expected.setdefault(f"{row['ts']:%Y-%m-%d}", []).append(row["score"])
    assert [row[:2] for row in found] == [(date, len(scores)) for date, scores in sorted(expected.items())]
    assert [row[2] for row in found] == pytest.approx([sum(scores) for _, scores in sorted(expected.items())])


def test_turns_that_are_in_are_skipped(tmp_path: Path) -> None:
    made = [made_turn(number) for number in range(6)]
    sink = sink_at(tmp_path)
    assert sink.write(turns_of(made[:3])) == 3
    assert sink.write(turns_of(made[:3])) == 3
    assert sink.write(turns_of(made[1:5])) == 5
    assert sink.write([]) == 5
    assert sink_at(tmp_path).position == 5
    assert_tables(tmp_path, made[:5])


@pytest.mark.parametrize("numbers", [[3], [2, 4], [2, 2], [3, 2]])
def test_a_gap_is_a_bug_and_nothing_is_written(tmp_path: Path, numbers: list[int]) -> None:
    sink = sink_at(tmp_path)
    sink.write(turns_of([made_turn(0), made_turn(1)]))
    with pytest.raises(ValueError, match="expected turns from 2 on"):
        sink.write([made_turn(number).turn for number in numbers])
    assert sink_at(tmp_path).position == 2


def test_turns_without_rows_move_the_position(tmp_path: Path) -> None:
    sink = sink_at(tmp_path)
    assert sink.write([made_turn(0, events=0).turn]) == 1
    assert sink_at(tmp_path).account == sink.account
    assert sink.account[0].ranges == ((0, 1),)


def test_a_change_of_config_makes_files_of_its_own(tmp_path: Path) -> None:
    made = [
        made_turn(number, config="ab"[number // 2], features=("x",) if number < 2 else ("x", "y"))
        for number in range(4)
    ]
    sink_at(tmp_path).write(turns_of(made))
    assert_tables(tmp_path, made)
    assert {tuple(pq.read_schema(path).names[-3:]) for path in tmp_path.glob("verdicts/**/*.parquet")} == {
        ("config_hash", "f_x", "m_anomaly"),
        ("f_x", "f_y", "m_anomaly"),
    }


def test_a_loser_goes_on_behind_the_winner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = [made_turn(number) for number in range(6)]
    winner, loser = sink_at(tmp_path), sink_at(tmp_path)
    winner.write(turns_of(made[:2]))

    assert loser.write(turns_of(made)) == 6

    assert "another writer committed position 0" in caplog.text
    assert_tables(tmp_path, made)
    assert staged(tmp_path) == []
    assert winner.write(turns_of(made)) == 6
    assert_tables(tmp_path, made)


def test_renames_that_the_winner_left_are_finished_by_the_loser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [made_turn(number) for number in range(4)]
    winner, loser = sink_at(tmp_path), sink_at(tmp_path)
    with full_disk(monkeypatch, Path, "rename"):
        winner.write(turns_of(made[:2]))
    assert rows_in(tmp_path, "verdicts") == []

    assert loser.write(turns_of(made)) == 4
    assert_tables(tmp_path, made)


def test_whoever_opens_finishes_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [made_turn(number) for number in range(4)]
    sink = sink_at(tmp_path)
    with full_disk(monkeypatch, Path, "rename"):
        sink.write(turns_of(made))

    assert sink_at(tmp_path).position == 4
    assert_tables(tmp_path, made)
    assert sink.write(turns_of(made)) == 4, "the one that failed may try again, too"
    assert_tables(tmp_path, made)


def test_a_disk_that_fails_leaves_nothing_and_the_same_call_works_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [made_turn(number) for number in range(4)]
    sink = sink_at(tmp_path)
    with full_disk(monkeypatch, os, "link"):
        sink.write(turns_of(made))
    assert staged(tmp_path) == []
    assert rows_in(tmp_path, "verdicts") == []

    assert sink.write(turns_of(made)) == 4
    assert_tables(tmp_path, made)


def test_a_failure_just_after_the_commit_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [made_turn(number) for number in range(4)]
    sink = sink_at(tmp_path)
    link = os.link

    def link_then_fail(source: Path, target: Path) -> None:
        link(source, target)
        _raise_full()

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link_then_fail)
        assert sink.write(turns_of(made)) == 4
    assert_tables(tmp_path, made)


def test_a_writer_whose_staging_is_swept_by_the_winner_is_a_loser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [made_turn(number) for number in range(4)]
    winner, loser = sink_at(tmp_path), sink_at(tmp_path)
    write = sinks.staged_commits._write_parquet
    # One file after the other: a thread that is just writing the next one would keep the folder.
    monkeypatch.setattr(sinks.local_store, "side_by_side", lambda work, items: [work(item) for item in items])

    def overtaken(table: Table, file: File) -> None:
        monkeypatch.setattr(sinks.staged_commits, "_write_parquet", write)
        winner.write(turns_of(made[:1]))
        assert staged(tmp_path) == [], "the winner swept"
        write(table, file)

    monkeypatch.setattr(sinks.staged_commits, "_write_parquet", overtaken)
    assert loser.write(turns_of(made)) == 4
    assert_tables(tmp_path, made)


def test_what_a_zombie_may_still_commit_is_not_swept(tmp_path: Path) -> None:
    made = [made_turn(number) for number in range(4)]
    sink = sink_at(tmp_path)
    sink.write(turns_of(made[:2]))
    zombies = tmp_path / "_staging" / f"p{PARTITION}"
    (zombies / f"{1:020d}-old").mkdir()
    (zombies / f"{2:020d}-new").mkdir()

    assert sink_at(tmp_path).position == 2
    assert staged(tmp_path) == [f"{2:020d}-new"]

    sink.write(turns_of(made))
    assert staged(tmp_path) == []


def test_a_committed_file_that_is_gone_is_an_error_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = sink_at(tmp_path)
    with full_disk(monkeypatch, Path, "rename"):
        sink.write([made_turn(0).turn])
    for path in tmp_path.glob("_staging/**/0.staged"):
        path.unlink()
    with caplog.at_level(logging.ERROR):
        sink_at(tmp_path)
    assert "its rows are lost" in caplog.text


def test_another_key_is_refused(tmp_path: Path) -> None:
    sink_at(tmp_path)
    with pytest.raises(StateError, match="another key"):
        ParquetSink(LocalStore(tmp_path), 0, key_fingerprint="other").open()


def test_dead_letters_are_in_the_same_commit(tmp_path: Path) -> None:
    made = [made_turn(number) for number in range(4)]
    sink = ParquetSink(
        LocalStore(tmp_path),
        PARTITION,
        key_fingerprint="key",
        seal=lambda *place: repr(place[:3]).encode() + place[4],
    )
    sink.open()
    sink.write(turns_of(made[:1]))
    sink.write(turns_of(made))

    letters = [
        row for path in tmp_path.glob("deadletters/*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    expected = {
        (turn.turn.batch.topic, int(turn.turn.batch.offsets[rejection.row])): rejection
        for turn in made
        for rejection in turn.turn.batch.rejections
    }
    assert len(letters) == len(expected) > 0
    for letter in letters:
        rejection = expected[letter["topic"], letter["offset"]]
        assert letter["code"] == "bad_ip"
        assert letter["sealed"] == repr((letter["topic"], 3, letter["offset"])).encode() + rejection.raw


class Step(NamedTuple):
    """One write: by which of two, opened anew or not, from how far back and how far ahead."""

    writer: int
    reopened: bool
    back: int
    ahead: int


STEPS = st.builds(Step, st.integers(0, 1), st.booleans(), back=st.integers(0, 3), ahead=st.integers(0, 4))


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS, max_size=8))
def test_any_cuts_by_any_two_writers_give_each_row_once(steps: list[Step]) -> None:
    made = [made_turn(number, events=4, days=2) for number in range(8)]
    with TemporaryDirectory() as folder:
        root = Path(folder)
        writers = [sink_at(root), sink_at(root)]
        for step in [*steps, Step(0, False, 8, 8), Step(1, False, 8, 8)]:
            if step.reopened:
                writers[step.writer] = sink_at(root)
            sink = writers[step.writer]
            last = min(sink.position + step.ahead, len(made))
            assert sink.write(turns_of(made[max(0, sink.position - step.back) : last])) >= last
        assert_tables(root, made)
        accounts = read_accounts(LocalStore(root))
        assert accounts.sources == account_of(turns_of(made))
        assert accounts.problems == ()
        assert staged(root) == []


def _raise_full(*_: object) -> None:
    raise OSError(28, "the disk is full")

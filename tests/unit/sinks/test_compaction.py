"""Compaction and retention: the same rows before and after, wherever they stop, whoever writes beside them."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sinks.compaction
import sinks.local_store
import sinks.retention
import sinks.upkeep_journal
from schemas.errors import ConfigError, StateError
from sinks.alert_tables import AlertTables
from sinks.commit_log import read_accounts
from sinks.compaction import plan_compaction
from sinks.local_store import LocalStore
from sinks.parquet import ParquetSink
from sinks.retention import plan_retention
from sinks.table_files import alone
from sinks.upkeep import carry_out, finish
from sinks.upkeep_journal import Plan, UpkeepJournal
from tests.alert_receiver import made_alert
from tests.faults.upkeep_process import DAYS, compact_all
from tests.recounts import rows_of
from tests.unit.sinks.turns import Made, made_turn

DAY_MS = 86_400_000
NOW_MS = 2_000_000_000_000
TABLES = ("verdicts", "late")


class Stop(Exception):
    """Where a test ends a run, as a kill would."""


def written(
    root: Path, *, turns: int = 8, partition: int = 3, first: int = 0, config: str = "a"
) -> list[Made]:
    """Turns over some days, each a commit of its own; the first two configs of a test share a schema or not."""
    features = ("ip_users",) if config == "b" else ("ip_users", "dwell")
    made = [
        made_turn(number, days=DAYS, partition=partition, config=config, features=features)
        for number in range(first, first + turns)
    ]
    sink = ParquetSink(LocalStore(root), partition, key_fingerprint="key")
    sink.open()
    for each in made:
        sink.write([each.turn])
    return made


def rows_of_tables(root: Path) -> dict[str, Counter[str]]:
    """Every row of the tables as a reader who globs sees them, with how often."""
    columns = '* exclude ("date")'
    return {table: Counter(map(repr, rows_of(root, table, f"{columns}, date::text"))) for table in TABLES}


def rows_of_view(root: Path) -> dict[str, Counter[tuple[str, int, int]]]:
    """Every row as reconcile counts them."""
    found = {}
    for table in TABLES:
        rows = [
            (row["topic"], row["partition"], row["offset"])
            for name in UpkeepJournal(LocalStore(root)).view(table).files
            for row in pq.ParquetFile(root / name).read(columns=["topic", "partition", "offset"]).to_pylist()
        ]
        found[table] = Counter(rows)
    return found


def told(_: int) -> None:
    """Nobody looks at the progress."""


def compacted(root: Path, *, most_bytes: int = 1 << 29) -> Plan:
    store = LocalStore(root)
    with alone(store):
        finish(store, told)
        plan = plan_compaction(store, settle_ms=DAY_MS, now_ms=NOW_MS, most_bytes=most_bytes)
        assert carry_out(store, plan.steps, told) == []
    return plan


def expired(root: Path, *, days: int = 1) -> Plan:
    store = LocalStore(root)
    with alone(store):
        finish(store, told)
        plan = plan_retention(store, keep_ms=days * DAY_MS, now_ms=NOW_MS)
        assert carry_out(store, plan.steps, told) == []
    return plan


def files_by_date(root: Path, table: str) -> dict[str, list[str]]:
    return {
        folder.name: sorted(path.name for path in folder.iterdir())
        for folder in sorted((root / table).iterdir())
    }


def test_closed_dates_become_one_file_for_each_schema_and_no_row_changes(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, partition=5)
    before, accounts = rows_of_tables(tmp_path), read_accounts(LocalStore(tmp_path))
    open_dates = {table: list(files_by_date(tmp_path, table).items())[-2:] for table in TABLES}

    plan = compacted(tmp_path)

    assert plan.steps
    assert plan.problems == ()
    assert rows_of_tables(tmp_path) == before
    assert read_accounts(LocalStore(tmp_path)) == accounts
    newest = {path for _, path in accounts.moving}
    for table in TABLES:
        found = list(files_by_date(tmp_path, table).items())
        assert found[-2:] == open_dates[table], "dates that are not closed"
        for folder, names in found[:-2]:
            others = [name for name in names if f"{table}/{folder}/{name}" not in newest]
            assert len(others) == 1
    assert LocalStore(tmp_path).names("_staging/upkeep") == []
    assert compacted(tmp_path).steps == ()


def test_rows_stand_in_order_of_partition_and_turn(tmp_path: Path) -> None:
    written(tmp_path, turns=12)
    written(tmp_path, turns=12, partition=5)
    plan = compacted(tmp_path)
    for step in plan.steps:
        for name in step.names(merge.output for merge in step.merges):
            rows = pq.ParquetFile(tmp_path / name).read().to_pylist()
            turns = [(row["partition"], int(row["event_id"].split("-")[1])) for row in rows]
            assert turns == sorted(turns)


def test_schemas_are_not_mixed(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, first=8, config="b")
    before = rows_of_tables_by_name(tmp_path)
    compacted(tmp_path)
    assert rows_of_tables_by_name(tmp_path) == before
    oldest = next(iter(files_by_date(tmp_path, "verdicts").values()))
    assert len([name for name in oldest if name.startswith("c")]) == 2


def rows_of_tables_by_name(root: Path) -> Counter[str]:
    return Counter(
        repr(row)
        for path in root.glob("verdicts/*/*.parquet")
        for row in pq.ParquetFile(path).read().to_pylist()
    )


def test_late_rows_of_a_closed_date_are_merged_by_the_next_run(tmp_path: Path) -> None:
    written(tmp_path)
    compacted(tmp_path)
    written(tmp_path, turns=3, first=8)
    before = rows_of_tables(tmp_path)
    assert compacted(tmp_path).steps
    assert rows_of_tables(tmp_path) == before


STEPS = (
    *("upkeep.planned", "parquet.staging", "compact.staged", "parquet.renaming", "parquet.renamed"),
    *("compact.published", "upkeep.decided", "store.removing", "upkeep.done"),
)


def stopping_at(patch: pytest.MonkeyPatch, step: str, number: int) -> None:
    """Let the named place raise at its pass, in whatever module it is."""
    passes = iter(range(1, number + 1))

    def stop(name: str) -> None:
        if name == step and next(passes, number) == number:
            raise Stop(name)

    for module in (sinks.compaction, sinks.local_store, sinks.upkeep_journal):
        patch.setattr(module, "fault_point", stop)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((1, 3)), st.sampled_from("ab"), st.integers(1, 5)), min_size=1, max_size=4
    ),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 6)), max_size=3),
    st.sampled_from((1 << 29, 20_000, 9_000)),
)
def test_wherever_it_stops_every_row_is_there_once_in_the_end(
    batches: list[tuple[int, str, int]], stops: list[tuple[str, int]], most_bytes: int
) -> None:
    with TemporaryDirectory() as folder:
        root, turns = Path(folder), Counter[int]()
        for partition, config, count in batches:
            written(root, turns=count, partition=partition, first=turns[partition], config=config)
            turns[partition] += count
        before, seen = rows_of_tables_by_name(root), rows_of_view(root)
        for step, number in stops:
            with pytest.MonkeyPatch.context() as patch:
                stopping_at(patch, step, number)
                try:
                    compacted(root, most_bytes=most_bytes)
                except Stop:
                    assert before <= rows_of_tables_by_name(root), "a reader never misses a row"
            assert rows_of_view(root) == seen, "who knows the journal sees each row once, always"
        compacted(root, most_bytes=most_bytes)
        assert rows_of_tables_by_name(root) == before
        assert rows_of_view(root) == seen
        assert UpkeepJournal(LocalStore(root)).begun_steps() == []


PROCESSES = multiprocessing.get_context("forkserver")


@pytest.mark.parametrize("step", ["compact.published", "store.removing:3"])
def test_a_killed_process_is_followed_by_one_that_ends_its_work(tmp_path: Path, step: str) -> None:
    written(tmp_path)
    before, seen = rows_of_tables(tmp_path), rows_of_view(tmp_path)
    process = PROCESSES.Process(target=compact_all, args=(tmp_path, step))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert rows_of_view(tmp_path) == seen
    assert rows_of_tables(tmp_path) != before, "killed too early to prove anything"
    written(tmp_path, turns=2, first=8)
    compacted(tmp_path)
    again = rows_of_tables(tmp_path)
    assert all(again[table] >= before[table] for table in TABLES)
    assert max(count for table in TABLES for count in rows_of_view(tmp_path)[table].values()) == 1
    assert {table: sum(again[table].values()) for table in TABLES} == {
        table: sum(rows_of_view(tmp_path)[table].values()) for table in TABLES
    }


def test_the_newest_commit_is_left_alone(tmp_path: Path) -> None:
    written(tmp_path, turns=8)
    newest = [path for _, path in read_accounts(LocalStore(tmp_path)).moving]
    assert newest
    compacted(tmp_path)
    expired(tmp_path)
    assert all((tmp_path / path).exists() for path in newest)


def test_two_at_once_the_second_does_nothing(tmp_path: Path) -> None:
    written(tmp_path, turns=2)
    with alone(LocalStore(tmp_path)), pytest.raises(StateError, match="another compact or expire is at work"):
        compacted(tmp_path)


def test_a_folder_that_is_no_sink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "verdicts").mkdir()
    with pytest.raises(ConfigError, match="no log of commits"):
        compacted(tmp_path)


def test_links_and_files_of_others_are_not_touched(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    written(root, turns=8)
    folder = next(iter(sorted((root / "verdicts").iterdir())))
    elsewhere.mkdir()
    moved = min(folder.iterdir())
    moved = moved.rename(elsewhere / moved.name)
    (folder / moved.name).symlink_to(moved)
    (folder / "notes.parquet").write_bytes(b"not ours")
    (root / "late").rename(elsewhere / "late")
    (root / "late").symlink_to(elsewhere / "late")
    before = sorted(path for path in elsewhere.rglob("*"))
    compacted(root)
    expired(root)
    assert sorted(path for path in elsewhere.rglob("*")) == before
    assert {"notes.parquet", moved.name} < {path.name for path in folder.iterdir()}
    assert (folder / moved.name).is_symlink()


def test_a_torn_file_is_named_and_the_others_are_merged(tmp_path: Path) -> None:
    written(tmp_path, turns=12)
    folder = min((tmp_path / "verdicts").iterdir())
    torn = sorted(folder.iterdir())[2]
    torn.write_bytes(torn.read_bytes()[:-9])
    plan = compacted(tmp_path)
    assert len(plan.problems) == 1
    assert str(torn) in plan.problems[0]
    assert torn.exists()
    assert any(path.name.startswith("c") for path in folder.iterdir())


def test_a_file_whose_rows_can_not_be_read_keeps_its_neighbours_and_blocks_no_later_run(
    tmp_path: Path,
) -> None:
    written(tmp_path, turns=12)
    folder = min((tmp_path / "verdicts").iterdir())
    torn = sorted(folder.iterdir())[2]
    content = bytearray(torn.read_bytes())
    content[4:200] = bytes(196)
    torn.write_bytes(content)
    names = sorted(folder.iterdir())
    store = LocalStore(tmp_path)
    for _ in range(2):
        with alone(store):
            finish(store, told)
            plan = plan_compaction(store, settle_ms=DAY_MS, now_ms=NOW_MS)
            assert len(problems := carry_out(store, plan.steps, told)) == 1
        assert "can not be compacted" in problems[0]
        assert sorted(folder.iterdir()) == names


def test_alerts_are_known_after_compaction(tmp_path: Path) -> None:
    alerts = [made_alert(i, state=state) for i in range(200) for state in ("open", "resolved")]
    tables = AlertTables(LocalStore(tmp_path), 2, key_fingerprint="key")
    tables.open()
    for i in range(0, 300, 10):
        tables.write_alerts(alerts[i : i + 10], next_=i + 10)
    compacted(tmp_path)
    assert list(tmp_path.glob("alerts/*/c*.parquet"))
    after = AlertTables(LocalStore(tmp_path), 2, key_fingerprint="key")
    after.open()
    after.write_alerts(alerts, next_=1_000)
    assert sorted(rows_of(tmp_path, "alerts", "id, state")) == sorted((a.id, a.state) for a in alerts)


@pytest.mark.parametrize("stop", [None, ("upkeep.planned", 1), ("upkeep.decided", 1), ("store.removing", 3)])
def test_retention_says_what_went_by_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, int] | None
) -> None:
    written(tmp_path)
    written(tmp_path, partition=5)
    compacted(tmp_path)
    before, accounts = rows_of_view(tmp_path), read_accounts(LocalStore(tmp_path))
    if stop is not None:
        with monkeypatch.context() as patch:
            stopping_at(patch, *stop)
            with pytest.raises(Stop):
                expired(tmp_path)
    else:
        assert expired(tmp_path).steps
    for _ in range(2):  # as it was left, then as the next run leaves it
        for table in TABLES:
            gone = UpkeepJournal(LocalStore(tmp_path)).view(table).expired
            assert sum(gone.values()) > 0 or (stop is not None and table == "late")
            left = Counter((topic, partition) for topic, partition, _ in rows_of_view(tmp_path)[table])
            assert Counter(gone) + left == Counter(
                (topic, partition) for topic, partition, _ in before[table].elements()
            )
        expired(tmp_path)
    assert read_accounts(LocalStore(tmp_path)) == accounts
    dates = [dt.date.fromisoformat(name.removeprefix("date=")) for name in dates_with_rows(tmp_path)]
    assert max(dates) - min(dates) <= dt.timedelta(days=DAYS)


def dates_with_rows(root: Path) -> Iterator[str]:
    return (path.parent.name for path in root.glob("verdicts/*/*.parquet"))


def test_after_retention_only_the_newest_commit_and_the_days_kept_have_files(tmp_path: Path) -> None:
    written(tmp_path)
    newest = {path for _, path in read_accounts(LocalStore(tmp_path)).moving}
    dates = sorted(files_by_date(tmp_path, "verdicts"))
    expired(tmp_path, days=2)
    left = {
        folder: [name for name in names if f"verdicts/{folder}/{name}" not in newest]
        for folder, names in files_by_date(tmp_path, "verdicts").items()
    }
    assert [folder for folder in dates if left[folder]] == dates[-3:]

"""Tables on an S3-compatible store: what it refuses us for, what it leaves uncertain, and a worker through a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import obstore
import pyarrow.parquet as pq
import pytest
from obstore.exceptions import GenericError

import sinks.compaction
import sinks.object_store
import sinks.upkeep_journal
from schemas.errors import ConfigError, RefusedError, StateError, UnreachableError
from sinks.commit_log import account_of, read_accounts
from sinks.compaction import plan_compaction
from sinks.object_store import ObjectStore
from sinks.parquet import ParquetSink
from sinks.store import Store, UncertainError
from sinks.upkeep import carry_out, finish
from sinks.upkeep_journal import UpkeepJournal
from streams.first_contact import reach_store
from streams.settings import open_store
from tests.unit.sinks.turns import Row, made_turn

pytestmark = pytest.mark.integration

MADE = [made_turn(number) for number in range(6)]
TURNS = [made.turn for made in MADE]


def rows_in(store: Store, table: str) -> list[Row]:
    return rows_of_files(store, store.names(table))


def rows_of_files(store: Store, names: Iterable[str]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        with store.open(name) as file:
            rows += pq.ParquetFile(file).read().to_pylist()
    return sorted(rows, key=lambda row: (row["topic"], row["offset"]))


def assert_each_row_once(store: Store) -> None:
    for table in ("verdicts", "late"):
        expected = [row for made in MADE for row in getattr(made, table)]
        assert rows_in(store, table) == sorted(expected, key=lambda row: (row["topic"], row["offset"]))
    assert read_accounts(store).sources == account_of(TURNS)
    assert store.names("_staging") == []


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3://me:hidden@bucket/a",
        "s3://bucket/a?secret=hidden",
        "s3://bucket/../a",
        "s3://b/a",
        "s3://bucket/p*",
    ],
)
def test_what_is_no_bucket_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/prefix") as refused:
        open_store(uri)
    assert "hidden" not in str(refused.value)


def test_other_stores_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="found a gs:// URI; expected a folder, a file:// URI or s3://bucket"
    ):
        open_store("gs://bucket/tables")


def test_rows_do_not_cross_a_network_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    with pytest.raises(ConfigError, match="AWS_ALLOW_HTTP=true"):
        ObjectStore("s3://tables/a")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert str(ObjectStore("s3://tables/a/")) == "s3://tables/a"


@pytest.mark.parametrize(
    ("variable", "value", "bucket", "said"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "tables", "does not accept the access key or its secret"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "tables", "does not accept the access key or its secret"),
        ("AWS_REGION", "us-east-1", "missing", "has no bucket missing"),
    ],
)
@pytest.mark.parametrize("writing", [False, True])
def test_who_is_not_let_in_is_told_why_at_once(
    s3_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    variable: str,
    value: str,
    bucket: str,
    said: str,
    writing: bool,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(RefusedError, match=said) as refused:
        ObjectStore(s3_uri.replace("tables", bucket)).check(writing=writing)
    assert "\n" not in str(refused.value)


def test_a_store_that_is_away_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch, topic_prefix: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(UnreachableError, match="did not answer at once"):
        reach_store(ObjectStore(f"s3://tables/{topic_prefix}"), writing=True, wait_s=0)


def test_a_store_without_conditional_writes_is_refused(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = obstore.put

    def without(*arguments: Any, mode: Any, **options: Any) -> Any:
        return put(*arguments, **options)

    monkeypatch.setattr(obstore, "put", without)
    with pytest.raises(RefusedError, match="no conditional writes"):
        ObjectStore(s3_uri).check(writing=True)


def failing_put(when: Callable[[Any], bool], *, taken: bool) -> Callable[..., Any]:
    """As put, but once the answer does not come; the store has taken it, or has not."""
    put = obstore.put
    failed: list[str] = []

    def fail_once(store: Any, name: str, content: Any, **options: Any) -> Any:
        if failed or not when(options.get("mode")):
            return put(store, name, content, **options)
        failed.append(name)
        if taken:
            put(store, name, content, **options)
        raise GenericError("operation timed out")

    return fail_once


@pytest.mark.parametrize("taken", [False, True])
def test_a_commit_without_an_answer_is_met_again(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    store = ObjectStore(s3_uri)
    sink = ParquetSink(store, 3, key_fingerprint="key")
    sink.open()
    monkeypatch.setattr(obstore, "put", failing_put(lambda mode: mode == "create", taken=taken))

    with pytest.raises(UncertainError):
        sink.write(TURNS[:4])
    assert store.names("_staging") != [], "the entry may come to be: its files are kept"

    assert sink.write(TURNS[:4]) == 4
    assert sink.write(TURNS) == 6
    assert_each_row_once(store)


def test_a_commit_that_the_client_repeats_by_itself_is_ours(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def repeated(store: Any, name: str, content: Any, **options: Any) -> Any:
        if options.get("mode") == "create":
            put(store, name, content, **options)
        return put(store, name, content, **options)

    store = ObjectStore(s3_uri)
    sink = ParquetSink(store, 3, key_fingerprint="key")
    sink.open()
    monkeypatch.setattr(obstore, "put", repeated)
    assert sink.write(TURNS) == 6
    assert_each_row_once(store)


def test_a_write_that_fails_leaves_nothing_and_works_later(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(s3_uri)
    sink = ParquetSink(store, 3, key_fingerprint="key")
    sink.open()
    monkeypatch.setattr(obstore, "put", failing_put(lambda mode: mode is None, taken=False))
    with pytest.raises(OSError, match="timed out"):
        sink.write(TURNS)
    assert store.names("verdicts") + store.names("_staging") == []
    assert sink.write(TURNS) == 6
    assert_each_row_once(store)


def test_a_zombie_and_the_new_owner_collide_at_the_log(s3_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    zombie, owner = (ParquetSink(ObjectStore(s3_uri), 3, key_fingerprint="key") for _ in range(2))
    zombie.open()
    owner.open()
    assert owner.write(TURNS[:4]) == 4
    assert zombie.write(TURNS) == 6
    assert owner.write(TURNS) == 6
    assert "another writer committed position 0" in caplog.text
    assert_each_row_once(ObjectStore(s3_uri))


@pytest.mark.parametrize("step", ["parquet.staging", "compact.staged", "compact.published", "upkeep.decided"])
def test_a_compaction_that_is_frozen_and_overtaken_harms_no_row(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    frozen, owner = ObjectStore(s3_uri), ObjectStore(s3_uri)
    sink = ParquetSink(owner, 3, key_fingerprint="key")
    sink.open()
    for number in range(12):
        sink.write([made_turn(number, days=4).turn])
    before = rows_that_count(owner)
    stood: list[str] = []

    def pause(name: str) -> None:
        if name == step and not stood:
            stood.append(name)
            compact_all(owner)

    with monkeypatch.context() as patch:
        for module in (sinks.compaction, sinks.object_store, sinks.upkeep_journal):
            patch.setattr(module, "fault_point", pause)
        with suppress(
            StateError
        ):  # as if its lease were still its own: it only may see that others were here
            compact_all(frozen)
    assert stood
    assert rows_that_count(owner) == before
    compact_all(owner)
    assert rows_that_count(owner) == before == rows_in(owner, "verdicts")
    assert owner.names("_staging") == []


def compact_all(store: Store) -> None:
    finish(store, lambda _: None)
    plan = plan_compaction(store, settle_ms=86_400_000, now_ms=2_000_000_000_000)
    carry_out(store, plan.steps, lambda _: None)


def rows_that_count(store: Store) -> list[Row]:
    return rows_of_files(store, UpkeepJournal(store).view("verdicts").files)

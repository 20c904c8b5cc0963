"""Judging tables again: each kind of change is found and told, and what can not be judged is said so."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from commands.replay import replay as command
from schemas.errors import ConfigError, StateError
from schemas.events import TOPICS
from schemas.keys import KeyRing
from schemas.pseudonyms import Pseudonyms
from sinks.local_store import LocalStore
from sinks.tables import verdict_schema
from streams.config_files import ConfigFolder, read_config_folder
from streams.config_store import ConfigStore
from streams.kept_configs import KeptConfigs
from streams.list_books import ListBooks
from streams.list_store import ListStore
from streams.rejudge import TableJudge, rejudge
from streams.replay import replay
from tests.made_events import CONFIG, START_MS, made_events, write_config, write_recording
from tests.rejudging import RING, judged_table, with_cell

Change = Callable[[Any, int], Any]
EVERYTHING = {"score", "level", "reasons", "evidence"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigFolder, Path]:
    """A config with lists, and the tables of a replay under it."""
    folder = tmp_path_factory.mktemp("rejudge")
    config = write_config(folder / "config")
    wider = CONFIG.replace("dwell_ms < 900", "dwell_ms < 30000").replace(
        "ip_other_users >= 20", "ip_other_users >= 1"
    )
    (config / "detectors.yaml").write_text(wider)
    read = read_config_folder(config)
    recording = write_recording(folder / "events.jsonl", made_events(1500, seed=3))
    lists = ListBooks(RING, read.lists.__getitem__).of(read.config)
    replay([recording], read.config, RING, folder / "out", lists=lists)
    return read, folder / "out"


@pytest.fixture
def out(made: tuple[ConfigFolder, Path], tmp_path: Path) -> Path:
    """Tables of one's own."""
    return Path(shutil.copytree(made[1], tmp_path / "out"))


def kept(*folders: ConfigFolder, state: Path = Path("none")) -> KeptConfigs:
    return KeptConfigs(folders, LocalStore(state), RING)


def change(out: Path, how: Change, *, table: str = "verdicts") -> dict[str, Any]:
    """Change the table at a row that one rule flagged (a list has every row); returns the row as it was."""
    (path,) = (out / table).rglob("*.parquet")
    rows = pq.read_table(path, partitioning=None)
    flagged = [
        row for row, reasons in enumerate(rows["reasons"].to_pylist()) if reasons == ["rented", "quick"]
    ]
    pq.write_table(how(rows, flagged[0]), path)
    before: dict[str, Any] = rows.slice(flagged[0], 1).to_pylist()[0]
    return before


def test_a_replay_comes_out_the_same(made: tuple[ConfigFolder, Path]) -> None:
    read, out = made
    report = rejudge(LocalStore(out), kept(read), RING)
    rows = sum(pq.read_metadata(path).num_rows for path in out.glob("[vl]*/*/*.parquet"))
    assert (report.rows, report.same, report.exit_code, report.differences) == (rows, rows, 0, ())
    (config,) = report.configs
    assert (config.config_hash, config.given_lists, config.undecided_rules) == (
        read.config.hash,
        ("rented",),
        {},
    )
    assert {place.topic for place in report.places} == set(TOPICS)
    reasons = {
        reason
        for path in out.glob("[vl]*/*/*.parquet")
        for row in pq.read_table(path, partitioning=None)["reasons"].to_pylist()
        for reason in row
    }
    assert reasons == {"staff", "farm", "rented", "shared_device", "quick", "from_advert", "model:anomaly"}


def _another_value(rows: Any, row: int) -> Any:
    said = json.loads(rows["evidence"][row].as_py())
    said[-1]["terms"][0]["value"] += 1
    return with_cell(rows, "evidence", row, msgspec.json.encode(said).decode())


def _another_reason(rows: Any, row: int) -> Any:
    return with_cell(rows, "reasons", row, ["quick", "farm"])


@pytest.mark.parametrize(
    ("how", "columns"),
    [
        (
            lambda rows, row: with_cell(
                rows, "score", row, float(np.nextafter(rows["score"][row].as_py(), 1))
            ),
            {"score"},
        ),
        (lambda rows, row: with_cell(rows, "score", row, None), {"score"}),
        (lambda rows, row: with_cell(rows, "level", row, "pass"), {"level"}),
        (_another_reason, {"reasons"}),
        (_another_value, {"evidence"}),
        (
            lambda rows, row: with_cell(rows, "evidence", row, "{no evidence"),
            {"score", "reasons", "evidence"},
        ),
        (
            lambda rows, row: with_cell(rows, "evidence", row, '[{"reason":{"list":[]}},7]'),
            {"score", "reasons", "evidence"},
        ),
        (lambda rows, row: with_cell(rows, "dwell_ms", row, 30_000), EVERYTHING),
        (
            lambda rows, row: with_cell(rows, "event", row, "signup"),
            EVERYTHING,
        ),
        (
            lambda rows, row: with_cell(rows, "f_since_signup_s", row, 1e9),
            EVERYTHING,
        ),
        (lambda rows, row: with_cell(rows, "m_anomaly", row, 0.001), {"score", "reasons", "evidence"}),
        (lambda rows, row: with_cell(rows, "event", row, None), EVERYTHING),
    ],
)
def test_a_changed_cell_is_found_and_told(
    made: tuple[ConfigFolder, Path], out: Path, how: Change, columns: set[str]
) -> None:
    before = change(out, how)
    report = rejudge(LocalStore(out), kept(made[0]), RING)
    assert (report.rows - report.same, report.exit_code) == (1, 1)
    (told,) = report.differences
    place = {
        "table": "verdicts",
        **{name: before[name] for name in ("topic", "partition", "offset", "config_hash")},
    }
    assert {name: getattr(told, name) for name in place} == place
    assert told.recorded.keys() == told.again.keys() == columns
    if how is _another_reason:
        assert (told.recorded, told.again) == ({"reasons": ["quick", "farm"]}, {"reasons": before["reasons"]})


def test_hits_of_lists_of_users_and_devices_are_looked_up_again(
    made: tuple[ConfigFolder, Path], out: Path
) -> None:
    pseudonyms = Pseudonyms(RING)
    for column, value, expected in (("device", "farm2", "block"), ("user", "u1", "pass")):
        mine = Path(shutil.copytree(out, out.parent / column))
        name = pseudonyms.pseudonym(column, value)

        def now_listed(rows: Any, row: int, column: str = column, name: str = name) -> Any:
            moved = with_cell(rows, column, row, name)
            return with_cell(moved, "ts", row, START_MS)

        change(mine, now_listed)
        (told,) = rejudge(LocalStore(mine), kept(made[0]), RING).differences
        assert told.again["level"] == expected


def test_a_list_hit_that_is_no_entry_is_found(made: tuple[ConfigFolder, Path], out: Path) -> None:
    (path,) = (out / "verdicts").rglob("*.parquet")
    rows = pq.read_table(path, partitioning=None)
    evidence = rows["evidence"].to_pylist()
    row = next(row for row, text in enumerate(evidence) if text and '"whois"' in text)
    pq.write_table(with_cell(rows, "evidence", row, evidence[row].replace("whois", "hearsay")), path)
    (told,) = rejudge(LocalStore(out), kept(made[0]), RING).differences
    assert "rented" not in told.again["reasons"]


def test_many_differences_are_counted_and_ten_are_told(made: tuple[ConfigFolder, Path], out: Path) -> None:
    (path,) = (out / "verdicts").rglob("*.parquet")
    rows = pq.read_table(path, partitioning=None)
    place = rows.schema.get_field_index("score")
    wrong = pa.array(np.full(rows.num_rows, 0.123))
    pq.write_table(rows.set_column(place, rows.schema.field(place), wrong), path)
    report = rejudge(LocalStore(out), kept(made[0]), RING)
    assert report.rows - report.same == rows.num_rows
    assert len(report.differences) == 10
    done = invoke("--from-verdicts", out, "--config", made[1].parent / "config")
    assert done.exit_code == 1
    assert f"... and {rows.num_rows - 10:,} more" in done.output
    assert f"{report.same:,} are the same, {rows.num_rows:,} are NOT" in done.output


# -- by hand -----------------------------------------------------------------------------------------------

BY_HAND = """
features: {others: {entity: device_id, distinct: user_id, exclude: self}}
rules:
  crowd: {when: "others >= 2 and (attrs.age < 18 or lat > 50)", weight: 0.5}
  ads:   {when: 'channel == "ads" and attrs.browser != "safari"', weight: 0.25}
"""
CROWD = (
    '{"reason":"crowd","terms":[{"feature":"others","value":3,"op":">=","threshold":2},'
    '{"feature":"attrs.age","value":%s,"op":"<","threshold":18},'
    '{"feature":"lat","value":%s,"op":">","threshold":50}]}'
)
ADS = (
    '{"reason":"ads","terms":[{"feature":"channel","value":"ads","op":"==","threshold":"ads"},'
    '{"feature":"attrs.browser","value":%s,"op":"!=","threshold":"safari"}]}'
)

NOT_SAFARI, SAFARI = ADS % '{"not":"safari"}', ADS % '"safari"'


def by_hand(folder: Path, *rows: tuple[float | None, str | None, float, str, list[str], str | None]) -> Any:
    """(others, channel, score, level, reasons, evidence) as a table, judged again: same and undecided."""
    (folder / "all.yaml").write_text(BY_HAND)
    read = read_config_folder(folder)
    others, channel, score, level, reasons, evidence = zip(*rows, strict=True)
    count = len(rows)
    columns = {
        "event_id": [f"e{i}" for i in range(count)],
        "event": ["view"] * count,
        "ts": [START_MS] * count,
        "topic": ["clicks"] * count,
        "partition": [0] * count,
        "offset": list(range(count)),
        "user": ["0" * 32] * count,
        "f_others": others,
        "channel": channel,
        "score": score,
        "level": level,
        "reasons": reasons,
        "evidence": evidence,
        "config_hash": [read.config.hash] * count,
    }
    schema = verdict_schema(read.config.feature_names, ())
    table = pa.table([pa.array(columns.get(f.name, [None] * count), f.type) for f in schema], schema=schema)
    again, same, undecided = TableJudge(read.config, kept(read), RING).judge(table)
    return again.to_pylist(), same.tolist(), dict(zip(read.config.rules, undecided.tolist(), strict=True))


def test_what_a_table_does_not_keep_is_read_from_the_evidence(tmp_path: Path) -> None:
    _, same, undecided = by_hand(
        tmp_path,
        (3, None, 0.5, "observe", ["crowd"], f"[{CROWD % (17, 'null')}]"),
        (3, None, 0.5, "observe", ["crowd"], f"[{CROWD % ('null', 50.5)}]"),
        (3, "ads", 0.625, "review", ["crowd", "ads"], f"[{CROWD % (17, 1)},{NOT_SAFARI}]"),
        (3, None, 0.0, "pass", [], None),  # perhaps they were older
        (1, "ads", 0.0, "pass", [], None),  # perhaps it was safari
        (None, "qr", 0.0, "pass", [], None),
    )
    assert same == [True] * 6
    assert undecided == {"crowd": 1, "ads": 1}


def test_evidence_that_does_not_bear_the_reason_out_is_found(tmp_path: Path) -> None:
    again, same, _ = by_hand(
        tmp_path,
        (3, None, 0.5, "observe", ["crowd"], f"[{CROWD % (18, 50)}]"),
        (1, None, 0.5, "observe", ["crowd"], f"[{CROWD % (17, 'null')}]"),
        (3, "ads", 0.25, "pass", ["ads"], f"[{SAFARI}]"),
        (3, None, 0.5, "observe", ["crowd"], f"[{CROWD % ('true', 1)}]"),
    )
    assert same == [False] * 4
    assert [row["reasons"] for row in again] == [[]] * 4


# -- what can not be judged --------------------------------------------------------------------------------


def test_a_config_that_is_nowhere_is_named_and_the_others_are_judged(
    made: tuple[ConfigFolder, Path], out: Path, tmp_path: Path
) -> None:
    strange = ["ab" * 16, "../" * 10 + "ab", None, "é" * 400]
    (path,) = (out / "verdicts").rglob("*.parquet")
    rows = pq.read_table(path, partitioning=None)
    for row, name in enumerate(strange):
        rows = with_cell(rows, "config_hash", row, name)
    pq.write_table(rows, path)
    report = rejudge(LocalStore(out), kept(made[0]), RING)
    missing = {config.config_hash: config.missing for config in report.configs if config.missing}
    assert missing.keys() == {name or "" for name in strange}
    assert "which is not in configs/" in missing["ab" * 16]
    assert (report.rows - report.same, report.exit_code) == (4, 3)
    done = invoke("--from-verdicts", out, "--state", tmp_path / "none")
    assert done.exit_code == 3
    assert "can not be judged again: their config is missing" in done.output


def test_configs_and_lists_are_found_beside_the_state(
    made: tuple[ConfigFolder, Path], tmp_path: Path
) -> None:
    read, out = made
    ConfigStore(LocalStore(tmp_path)).keep(read.config)
    without = rejudge(LocalStore(out), kept(state=tmp_path), RING)
    assert without.exit_code == 3
    assert "which is not in lists/" in without.configs[0].missing
    ListStore(LocalStore(tmp_path), RING).keep_all(read.lists)
    assert rejudge(LocalStore(out), kept(state=tmp_path), RING).exit_code == 0
    path = tmp_path / "configs" / f"{read.config.hash}.json"
    path.write_bytes(path.read_bytes().replace(b'"weight":0.7', b'"weight":0.8'))
    assert (
        rejudge(LocalStore(out), kept(state=tmp_path), RING).configs[0].missing.endswith("is another config")
    )


def test_what_is_no_table_is_refused_with_its_name(made: tuple[ConfigFolder, Path], out: Path) -> None:
    (path,) = (out / "verdicts").rglob("*.parquet")
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows.drop_columns(["f_user_events"]), path)
    with pytest.raises(StateError, match=rf"{path.name}.*no column f_user_events; expected double"):
        rejudge(LocalStore(out), kept(made[0]), RING)
    pq.write_table(rows.drop_columns(["ts"]), path)
    with pytest.raises(StateError, match=r"no column ts; expected timestamp"):
        rejudge(LocalStore(out), kept(made[0]), RING)
    path.write_bytes(os.urandom(100))
    with pytest.raises(StateError, match=rf"{path.name} is no table of this version"):
        rejudge(LocalStore(out), kept(made[0]), RING)
    with pytest.raises(StateError, match="another key"):
        rejudge(LocalStore(out), kept(made[0]), KeyRing(b"another key of the installation."))
    with pytest.raises(ConfigError, match="has no verdicts"):
        rejudge(LocalStore(out / "metrics"), kept(made[0]), RING)


def test_a_time_selects_rows(made: tuple[ConfigFolder, Path]) -> None:
    read, out = made
    times = [
        int(ts.timestamp() * 1000)
        for path in out.glob("[vl]*/*/*.parquet")
        for ts in pq.read_table(path, partitioning=None)["ts"].to_pylist()
    ]
    since, until = START_MS + 100_000, START_MS + 300_000
    report = rejudge(LocalStore(out), kept(read), RING, since_ms=since, until_ms=until)
    assert report.rows == report.same == sum(since <= ts < until for ts in times) > 100
    assert rejudge(LocalStore(out), kept(read), RING, since_ms=START_MS + 86_400_000 * 9).rows == 0


# -- the command -------------------------------------------------------------------------------------------


def invoke(*arguments: str | Path) -> Result:
    key = {"WOOLWATCH_KEY": RING_TEXT}
    return CliRunner(env=key).invoke(command, [str(argument) for argument in arguments])


RING_TEXT = "a key for tests, of 32 bytes ...."


def test_the_command_tells_and_writes_the_report(made: tuple[ConfigFolder, Path], tmp_path: Path) -> None:
    config = made[1].parent / "config"
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"config: {config}\n")
    done = invoke("--from-verdicts", made[1], "--settings", settings, "--json", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert f"{report['rows']:,} rows: {report['same']:,} are the same" in done.output
    assert all(place["config_hash"] in done.output for place in report["places"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.parquet", "--from-verdicts", "out"], "goes without FILES"),
        (["--from-verdicts", "out", "--out", "o", "--batch-size", "7"], "goes without --out, --batch-size"),
        (["a.parquet", "--out", "o", "--since", "2026-01-01"], "--since goes with --from-verdicts only"),
        (
            ["a.parquet", "--out", "o", "--state", "s", "--json", "j"],
            "--state, --json go with --from-verdicts only",
        ),
        (["a.parquet"], "expected --out, or --from-verdicts OUT"),
        ([], "expected FILES and --out, or --from-verdicts OUT"),
        (["a.parquet", "--out", "o", "--config", "a", "--config", "b"], "judged by one --config"),
        (
            ["--from-verdicts", "out", "--until", "yesterday"],
            "expected a date, an ISO time with its zone, or epoch ms",
        ),
        (["--from-verdicts", "out", "--since", "latest"], "expected a date"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], sentence: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())


def test_the_core_and_the_table_agree_with_batches_of_one(made: tuple[ConfigFolder, Path]) -> None:
    """How rows are cut into calls changes nothing."""
    read, out = made
    table = judged_table(read, out.parent / "events.jsonl").slice(0, 40)
    judge = TableJudge(read.config, kept(read), RING)
    whole, _, _ = judge.judge(table)
    assert pa.concat_tables([judge.judge(table.slice(row, 1))[0] for row in range(40)]).equals(whole)

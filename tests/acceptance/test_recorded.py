"""Replays of recorded events: every number that a second method can give, it gives too."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import random
from bisect import bisect_left, insort
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from river import anomaly, preprocessing

from schemas.keys import KeyRing
from sinks.local_store import LocalStore
from streams.config_files import read_config_folder
from streams.kept_configs import KeptConfigs
from streams.rejudge import rejudge
from tests.acceptance.recordings import KEY, LATENESS_MS, METRICS, Replays, differences, rows, sql, table
from tests.command import run_woolwatch
from tests.recounts import recount_retention
from tests.services import REPOSITORY

FILES = ("fraud_dev", "talkingdata", "rees46", "rete_ecom")
FIRST_WINDOW = 250


@pytest.fixture(scope="module")
def replays(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Replays:
    return Replays(data_dir, tmp_path_factory.mktemp("replays"))


# -- what is counted ---------------------------------------------------------------------------------------


def test_features_equal_the_expected_ones_on_every_row(replays: Replays) -> None:
    verdicts = table(replays.tables("fraud_dev"), "verdicts")
    expected = replays.recording("fraud_dev_expected_features")
    wrong = """f_device_other_users is distinct from dev_other_users_before
        or f_device_other_users_24h is distinct from dev_other_users_last24h
        or coalesce(f_ip_other_users, 0) is distinct from ip_other_users_before
        or (f_ip_other_users is null) <> (ip is null)"""
    (compared,) = sql(
        f"select count(*), count(*) filter ({wrong}) from {verdicts} join '{expected}' using (event_id)"
    )
    assert compared == (25_885, 0)


@pytest.mark.parametrize(
    ("name", "funnel", "reached"),
    [
        ("rete_ecom", "shop", [598, 482, 207]),
        ("rete_ecom", "shop_ties", [598, 482, 208]),
        ("rees46", "market", [4_505, 111, 62]),
    ],
)
def test_funnels(replays: Replays, name: str, funnel: str, reached: list[int]) -> None:
    found = sql(
        f"""select step, users_gross, users_suspect + users_clean, error
        from {table(replays.tables(name), "metrics/funnel")}
        where funnel = '{funnel}' and "window" = 'all' and dim = 'all' order by step"""
    )
    assert found == [(step, users, users, 0) for step, users in enumerate(reached, 1)]


@pytest.mark.parametrize("name", FILES)
def test_daily_users_equal_a_count_over_the_recording(replays: Replays, name: str) -> None:
    recording, out = replays.recording(name), replays.tables(name)
    present = {row[0] for row in sql(f"describe select * from '{recording}'")}
    values = {"all": "null", "all_campaigns": "null"} | {
        dim: f"{dim}::varchar" if dim in present else "null" for dim in ("channel", "platform")
    }
    verdicts = table(out, "verdicts")
    counts = " union all ".join(
        f"select epoch_ms(ts)::date, null::varchar, '{dim}', {value}, count(distinct user_id), "
        f"count(distinct user_id) filter (bad < epoch_ms(ts)::date + interval 31 day) from events group by all"
        for dim, value in values.items()
    )
    # A user is a suspect of a day by verdicts up to 30 days behind its end.
    expected = sql(
        f"""with bad as (
            select user_id, min(v.ts at time zone 'UTC') as bad
            from {verdicts} v join '{recording}' using (event_id) where level in ('review', 'block') group by 1
        ), events as (select * from '{recording}' left join bad using (user_id)) {counts}"""
    )
    found = sql(
        f"""select date, campaign, dim, dim_value, users_gross, users_suspect from {table(out, "metrics/dau")}
        where error = 0 and users_clean = users_gross - users_suspect"""
    )
    assert len(found) == rows(out, "metrics/dau")
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


@pytest.mark.parametrize(("name", "cells"), [("fraud_dev", 100), ("talkingdata", 20), ("rete_ecom", 100)])
def test_retention_equals_a_count_over_the_verdicts(replays: Replays, name: str, cells: int) -> None:
    config = replays.config
    assert config.retention is not None
    out, days = replays.tables(name), config.retention.days
    assert recount_retention(out, days=days, restate_ms=config.restate_ms) >= cells


# -- duplicates --------------------------------------------------------------------------------------------


def with_repeats(recording: Path, target: Path, places: dict[int, int], other_topic: set[int]) -> Path:
    """A copy in which row ``i`` comes again before row ``places[i]``; some say that they are of the other topic."""
    events = pq.read_table(recording)
    order = [(index, 1, index) for index in range(len(events))]
    order += [(place, 0, index) for index, place in places.items()]
    order.sort()
    participations = pc.equal(events["event"], "purchase").to_pylist()
    names = ("clicks", "participations")
    topics = [
        names[participations[index] ^ (index in other_topic)] if not original else None
        for _, original, index in order
    ]
    copy = events.take([index for _, _, index in order]).append_column("topic", pa.array(topics, pa.string()))
    pq.write_table(copy, target)
    return target


def last_place_in_time(ts: np.ndarray, index: int) -> int:
    """The last row before which a repeat of a row of an ordered recording is not late."""
    return int(np.searchsorted(ts, ts[index] + LATENESS_MS, side="right"))


def test_repeats_change_nothing(replays: Replays, tmp_path: Path) -> None:
    draw = random.Random(500)
    ts = pq.read_table(replays.recording("rees46"))["ts"].to_numpy()
    again = draw.sample(range(len(ts)), 500)
    places = {index: draw.randint(index + 1, last_place_in_time(ts, index)) for index in again}
    copy = with_repeats(replays.recording("rees46"), tmp_path / "copy.parquet", places, set(again[:5]))
    out = tmp_path / "out"
    said = run_woolwatch("replay", copy, "--config", replays.config_folder, "--out", out, key=KEY).stdout
    assert said.startswith("17,935 records: 17,435 verdicts"), said
    assert "0 late, 500 duplicates, 0 rejected" in said
    original = replays.tables("rees46")
    assert differences(original, out, "verdicts", '* exclude ("offset")') == 0
    assert not any(differences(original, out, name) for name in METRICS)


def test_repeats_beyond_the_lateness_are_late_and_change_nothing_either(
    replays: Replays, tmp_path: Path
) -> None:
    draw = random.Random(501)
    ts = pq.read_table(replays.recording("rees46"))["ts"].to_numpy()
    # Up to two hours later, when ids may be forgotten: but then their repeats are late.
    again = draw.sample(range(int(np.searchsorted(ts, ts[0] + LATENESS_MS // 2))), 500)
    latest = {index: int(np.searchsorted(ts, ts[index] + 2 * LATENESS_MS)) for index in again}
    places = {index: draw.randint(index + 1, latest[index]) for index in again}
    copy = with_repeats(replays.recording("rees46"), tmp_path / "copy.parquet", places, set(again[:100]))
    late = sum(places[index] > last_place_in_time(ts, index) for index in again)
    assert 100 < late < 400
    outcomes, out = replays.summary(copy).outcomes, replays.tables(copy)
    assert (outcomes.verdicts, outcomes.late, outcomes.duplicates) == (len(ts), late, 500 - late)
    original = replays.tables("rees46")
    assert differences(original, out, "verdicts", '* exclude ("offset")') == 0
    assert not any(differences(original, out, name) for name in METRICS)
    assert rows(out, "late") == late


# -- batches and formats -----------------------------------------------------------------------------------


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["rees46", "fraud_dev"])
@pytest.mark.parametrize("batch_size", [1, 997, 65_536])
def test_batch_sizes_change_nothing(replays: Replays, name: str, batch_size: int) -> None:
    usual, cut = replays.tables(name), replays.tables(name, batch_size)
    assert not any(differences(usual, cut, name) for name in ("verdicts", *METRICS))
    assert rows(cut, "late") == rows(cut, "deadletters") == 0


def _json_lines(events: pa.Table) -> Iterator[bytes]:
    for number, row in enumerate(events.to_pylist()):
        # Absent and null mean the same.
        yield orjson.dumps(row if number % 2 else {k: v for k, v in row.items() if v is not None}) + b"\n"


def _written(events: pa.Table, path: Path) -> Path:
    if path.suffix == ".csv":
        pa_csv.write_csv(events, path)
        return path
    text = b"".join(_json_lines(events))
    if path.suffix == ".gz":
        text = gzip.compress(text, 1)
    if path.suffix == ".zst":
        text = pa.compress(text, codec="zstd", asbytes=True)
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "csv"])
@pytest.mark.parametrize("name", ["rees46", "rete_ecom"])
def test_formats_change_nothing(replays: Replays, tmp_path: Path, name: str, ending: str) -> None:
    events = pq.read_table(replays.recording(name))
    path = _written(events, tmp_path / f"{name}.{ending}")
    usual, other = replays.tables(name), replays.tables(path)
    assert not any(differences(usual, other, name) for name in ("verdicts", *METRICS))
    assert rows(other, "deadletters") == 0


# -- how it is judged --------------------------------------------------------------------------------------


def in_judged_order(replays: Replays, name: str, columns: str) -> list[tuple[Any, ...]]:
    """Columns of the verdicts in the order of the recording."""
    return sql(
        f"""select {columns} from {table(replays.tables(name), "verdicts")} v
        join (select event_id, file_row_number as place
            from read_parquet('{replays.recording(name)}', file_row_number = true)) using (event_id)
        order by place"""
    )


def keep_of_rules(replays: Replays, reasons: list[str]) -> float:
    keep = 1.0
    for name, rule in replays.config.rules.items():
        if name in reasons:
            keep *= 1.0 - rule.weight
    return keep


def test_rules_fire_where_sql_says(replays: Replays) -> None:
    (compared,) = sql(
        f"""select count(*), count(*) filter (
            list_contains(reasons, 'shared_device')
                <> coalesce(f_device_other_users_24h >= 2 and event in ('participate', 'redeem'), false)
            or list_contains(reasons, 'instant_participation')
                <> coalesce(dwell_ms < 60000 and f_since_signup_s < 60, false)
        ), count(*) filter (len(reasons) > 0) from {table(replays.tables("fraud_dev"), "verdicts")}"""
    )
    assert compared[:2] == (51_770, 0)
    assert compared[2] > 1_000


@pytest.mark.parametrize("name", ["fraud_dev", "rees46"])
def test_scores_follow_from_what_fired(replays: Replays, name: str) -> None:
    weight = replays.config.models["anomaly"].weight
    levels = replays.config.levels
    for score, level, reasons, strength in in_judged_order(replays, name, "score, level, reasons, m_anomaly"):
        assert score == 1.0 - keep_of_rules(replays, reasons) * (1.0 - weight * strength)
        reached = [low for low in ("observe", "review", "block") if score >= getattr(levels, low)]
        assert level == (reached[-1] if reached else "pass")
        assert ("model:anomaly" in reasons) == (strength > 0)


def test_half_space_trees_equal_river(replays: Replays) -> None:
    features = replays.config.models["anomaly"].features
    columns = "reasons, m_anomaly, evidence, f_device_other_users, f_ip_other_users, dwell_ms"
    model = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(
        n_trees=25, height=8, window_size=250, seed=42
    )
    learned: list[float] = []
    taught = strong = 0
    for reasons, strength, evidence, *values in in_judged_order(replays, "fraud_dev", columns):
        event = {name: float(value or 0) for name, value in zip(features, values, strict=True)}
        raw = model.score_one(event)
        assert strength == strength_by_rank(learned, raw)
        if strength > 0:
            strong += 1
            assert json.loads(evidence)[-1]["raw"] == raw
        if 1.0 - keep_of_rules(replays, reasons) < replays.config.levels.review:
            model.learn_one(event)
            taught += 1
            # The scores of the first window are no scores: there is nothing yet to compare with.
            if taught > FIRST_WINDOW:
                insort(learned, raw)
    assert taught < 51_770
    assert strong > 100


def strength_by_rank(learned: list[float], raw: float) -> float:
    if not learned:
        return 0.0
    share = bisect_left(learned, raw) / len(learned)
    return min(1.0, max(0.0, (share - 0.99) / 0.01))


def test_pseudonyms_are_hmacs_of_kind_and_value(replays: Replays) -> None:
    joined = f"""{table(replays.tables("fraud_dev"), "verdicts")} v
        join '{replays.recording("fraud_dev")}' r using (event_id)"""
    columns = {"user": "user_id", "device": "device_id", "ip": "ip"}
    seen = [
        (kind, *row)
        for kind, field in columns.items()
        for row in sql(f'select distinct r.{field}, v."{kind}" from {joined}')
    ]
    assert len(seen) > 40_000
    for kind, value, shown in seen:
        if value is None:
            assert shown is None
        else:
            assert shown == hmac.new(KEY, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()[:32]


# -- judged again ------------------------------------------------------------------------------------------


def test_what_the_shipped_config_judged_comes_out_the_same(data_dir: Path, tmp_path: Path) -> None:
    recording, config, out = data_dir / "fraud_dev.parquet", REPOSITORY / "config", tmp_path / "out"
    run_woolwatch("replay", recording, "--config", config, "--out", out, key=KEY)
    done = run_woolwatch("replay", "--from-verdicts", out, "--config", config, key=KEY)
    assert "51,770 rows: 51,770 are the same\n" in done.stdout


@pytest.mark.parametrize("name", FILES)
def test_recorded_verdicts_come_out_the_same(replays: Replays, name: str) -> None:
    out, ring = replays.tables(name), KeyRing(KEY)
    kept = KeptConfigs([read_config_folder(replays.config_folder)], LocalStore(replays.folder / "none"), ring)
    report = rejudge(LocalStore(out), kept, ring)
    assert report.rows == rows(out, "verdicts") + rows(out, "late") == report.same > 0
    assert report.exit_code == 0
    assert [config.undecided_rules for config in report.configs] == [{}]

"""The config folder changes while events flow: each judge switches at one recorded point, through a kill as well."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest

from schemas.config import Config
from schemas.keys import KeyRing
from schemas.pseudonyms import Pseudonyms
from streams.config_files import read_config
from tests.installation import KEY, Installation
from tests.made_events import CONFIG, made_events, write_config, write_recording
from tests.recounts import rows_of
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

PARTITIONS = 2
EVENTS, RATE = 3600, 60
"""A minute: so long events must flow while the config changes twice, on a busy machine too."""
NAMES = "events: {signup: {}, product_view: {}, add_to_cart: {}}\n"
KPIS = """
kpi_alerts:
  kept:    {metric: events.add_to_cart.count, window: 1m, above: 1}
  gone:    {metric: events.purchase.count, window: 1m, above: 1}
  bound:   {metric: events.purchase.count, window: 1m, above: 1}
  swapped: {metric: events.purchase.count, window: 1m, above: 1}
"""
OTHER_KPIS = """
kpi_alerts:
  kept:    {metric: events.add_to_cart.count, window: 1m, above: 1}
  bound:   {metric: events.purchase.count, window: 1m, above: 1000}
  swapped: {metric: events.signup.count, window: 1m, above: 1}
  added:   {metric: events.product_view.count, window: 1m, above: 1}
"""
"""A minute of event time passes in two seconds, with some twenty events of each name."""


@dataclass
class Reload:
    """One run under two configs, with a bad one in between and a kill right after the switch."""

    installation: Installation
    configs: tuple[Config, Config]
    log: str
    """Of the worker that was killed."""

    def rows(self, columns: str, more: str = "") -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            table = f"read_parquet('{self.installation.out}/verdicts/**/*.parquet', union_by_name = true)"
            return connection.execute(f"select {columns} from {table} {more}").fetchall()

    def said(self, log: str) -> list[str]:
        """Messages of a log in which every line is JSON."""
        return [json.loads(line)["message"] for line in log.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def reload(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaBroker, redis_server: RedisServer
) -> Iterator[Reload]:
    folder = tmp_path_factory.mktemp("reload")
    config_folder = write_config(folder / "config", events=NAMES, kpis=KPIS)
    prefix = f"reload-{time.time_ns()}-"
    installation = Installation(folder, kafka, redis_server, prefix, config_folder, partitions=PARTITIONS)
    recording = write_recording(folder / "events.jsonl", made_events(EVENTS, seed=11, broken=False))
    loading = threading.Thread(
        target=installation.load, args=(recording,), kwargs={"rate": RATE}, daemon=True
    )
    detectors, farm = config_folder / "detectors.yaml", config_folder / "lists" / "farm.csv"
    log = folder / "worker-001.log"

    def logged(words: str) -> Callable[[], bool]:
        return lambda: log.read_text().count(words) >= (PARTITIONS if words.startswith(": config") else 1)

    def tables() -> int:
        return len(list((folder / "out" / "verdicts").rglob("*.parquet")))

    def opened() -> int:
        return len(rows_of(folder / "out", "alerts", "id")) if tables() else 0

    try:
        first, _ = read_config(config_folder)
        worker = installation.start_worker()
        loading.start()
        wait_until(lambda: tables() > 0, "something is judged")
        detectors.write_text(CONFIG.replace("dwell_ms < 900", "dwel_ms < 900"))
        wait_until(logged("is refused"), "the bad config is told")
        wait_until(lambda: opened() >= 4, "the KPI alerts are told")
        committed = tables()
        wait_until(lambda: tables() > committed, "the config before goes on judging")
        (config_folder / "kpis.yaml").write_text(OTHER_KPIS)
        detectors.write_text(CONFIG.replace("weight: 0.6", "weight: 0.45"))
        farm.write_text("value\nfarm3\n")
        second, _ = read_config(config_folder)
        wait_until(logged(f": config {second.hash} from turn"), "each judge switches")
        installation.kill(worker)
        worker = installation.start_worker()
        loading.join()
        installation.wait_until_judged(EVENTS)
        assert installation.stop(worker) == 0
        yield Reload(installation, (first, second), log.read_text())
    finally:
        installation.close()


def test_each_partition_switches_once_and_from_there_on(reload: Reload) -> None:
    first, second = (config.hash for config in reload.configs)
    edges = reload.rows(
        f"""topic, partition, max("offset") filter (config_hash = '{first}'),
        min("offset") filter (config_hash = '{second}'), count(distinct config_hash)""",
        "group by all",
    )
    assert len(edges) == 2 * PARTITIONS
    assert all(last < next_ and configs == 2 for _, _, last, next_, configs in edges)
    assert reload.rows("count(*), count(distinct event_id)") == [(EVENTS, EVENTS)]


def test_what_was_judged_is_what_the_config_of_the_row_says(reload: Reload) -> None:
    pseudonyms = Pseudonyms(KeyRing(KEY.encode()))
    farms = {name: pseudonyms.pseudonym("device", name) for name in ("farm2", "farm3")}
    first = reload.configs[0].hash
    met = set()
    # The entry of farm2 in the first list ends a quarter of an hour after the start, see LIST_FILES.
    for config_hash, device, ts, event, reasons, dwell_ms, since, score in reload.rows(
        "config_hash, device, epoch_ms(ts), event, reasons, dwell_ms, f_since_signup_s, score"
    ):
        old = config_hash == first
        listed = device == farms["farm2"] and ts < 1_760_000_900_000 if old else device == farms["farm3"]
        assert ("farm" in reasons) == listed
        quick = event == "purchase" and dwell_ms < 900 and since is not None and since < 600
        assert ("quick" in reasons) == quick
        if reasons == ["quick"]:
            assert score == 1 - (1 - (0.6 if old else 0.45))
        met.add((old, listed))
    assert len(met) == 4


def test_a_bad_config_is_told_once_and_the_one_before_goes_on(reload: Reload) -> None:
    refusals = [message for message in reload.said(reload.log) if "is refused" in message]
    assert len(refusals) == 1
    assert reload.configs[0].hash in refusals[0]
    assert 'detectors.yaml: $.rules.quick.when: found "dwel_ms"' in refusals[0]
    assert reload.rows("count(distinct config_hash)") == [(2,)]


def test_features_that_are_defined_alike_go_on_counting(reload: Reload) -> None:
    """The n-th event of a user has n - 1 before it, whatever config judged it."""
    counted = reload.rows(
        """f_user_events, row_number() over (partition by "user" order by f_user_events) - 1, config_hash"""
    )
    assert all(feature == number for feature, number, _ in counted)
    assert max(number for _, number, config in counted if config == reload.configs[1].hash) > 10


def test_each_kpi_alert_is_told_once_and_what_became_of_it_as_well(reload: Reload) -> None:
    """Through the change of what it measures or of its bound, and through the kill."""
    rows = rows_of(reload.installation.out, "alerts", "name, state, id, title_en, config_hash")
    first, second = (config.hash for config in reload.configs)
    told: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for name, state, *rest in rows:
        if name in ("kept", "gone", "bound", "swapped", "added"):
            told[name, state].append(tuple(rest))
    assert {key: len(alerts) for key, alerts in told.items()} == {
        ("kept", "open"): 1,
        ("gone", "open"): 1,
        ("gone", "resolved"): 1,
        ("bound", "open"): 1,
        ("bound", "resolved"): 1,
        ("swapped", "open"): 2,
        ("swapped", "resolved"): 1,
        ("added", "open"): 1,
    }
    for name, words in (
        ("gone", "no longer watched"),
        ("bound", "back within"),
        ("swapped", "no longer watched"),
    ):
        ((ended, title, config),) = told[name, "resolved"]
        assert words in title
        assert config == second
        assert ended == next(id_ for id_, _, config in told[name, "open"] if config == first)
    assert len({id_ for id_, *_ in told["swapped", "open"]}) == 2
    assert [config for _, _, config in told["added", "open"]] == [second]


def test_names_outside_the_events_block_are_told_once_by_each_judge(reload: Reload) -> None:
    told = [message for message in reload.said(reload.log) if "is not listed under events" in message]
    assert len(told) == len(set(told)) == PARTITIONS
    assert all('"看广告"' in message for message in told)


def test_judging_again_switches_where_the_worker_did_and_finds_the_same(reload: Reload) -> None:
    """The config folder has only the second config by now: the first one is found beside the state."""
    installation = reload.installation
    report_file = installation.folder / "again.json"
    places = ("--state", installation.state, "--json", report_file)
    said = installation.run("replay", "--from-verdicts", installation.out, *places).stdout
    assert f"{EVENTS:,} rows: {EVENTS:,} are the same" in said
    report = json.loads(report_file.read_bytes())
    assert {config["config_hash"] for config in report["configs"]} == {one.hash for one in reload.configs}
    found = [
        tuple(place[name] for name in ("topic", "partition", "config_hash", "first", "last", "rows"))
        for place in report["places"]
    ]
    assert found == reload.rows(
        """topic, partition, config_hash, min("offset"), max("offset"), count(*)""",
        """group by all order by topic, partition, min("offset")""",
    )

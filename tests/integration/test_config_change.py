"""A worker is killed, its config changed, and it is started again: what is defined alike goes on counting."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.config import Config, Feature
from streams.config_files import read_config
from tests.command import run_woolwatch
from tests.installation import KEY, Installation
from tests.made_events import made_events, write_recording
from tests.services import KafkaBroker, RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PARTITIONS = 2
FIRST = """
features:
  device_other_users: {entity: device_id, distinct: user_id, exclude: self}
  user_events:        {entity: user_id, count: "*"}
  ip24_purchases_1h:  {entity: ip_prefix_24, count: purchase, window: 1h}
rules:
  shared_device: {when: device_other_users >= 3, weight: 0.7}
  hurried:       {when: dwell_ms < 500, weight: 0.2}
models:
  anomaly: {kind: half_space_trees, trees: 5, height: 6, features: [device_other_users, dwell_ms], weight: 0.3}
dau: {by: [channel]}
"""
SECOND = """
features:
  user_purchases:       {entity: user_id, count: purchase}
  device_neighbours:    {entity: device_id, distinct: user_id, exclude: self}
  user_events:          {entity: user_id, count: "*"}
  device_neighbours_1h: {entity: device_id, distinct: user_id, exclude: self, window: 1h}
rules:
  shared_device: {when: device_neighbours >= 3, weight: 0.4}
  busy:          {when: user_events >= 10 and user_purchases >= 2, weight: 0.5}
dau: {by: [channel, platform]}
"""
BROKEN = SECOND.replace("busy:          {when: user_events >= 10", "busy:          {when: user_event >= 10")


@dataclass
class Change:
    """One installation before and after its config changed."""

    installation: Installation
    configs: tuple[Config, Config]
    parts: tuple[list[bytes], list[bytes]]
    refused: str
    log: str
    """Of the worker that was started under the second config."""

    def ids(self, part: int) -> set[str]:
        """Event ids of a part."""
        return {json.loads(raw)["event_id"] for raw in self.parts[part]}

    def verdicts(self, columns: str) -> list[tuple[Any, ...]]:
        """Columns of the verdicts of both configs, null where a config has none; perhaps only of some rows."""
        select, where, condition = columns.partition(" where ")
        return sql(f"select {select} from {self.table('verdicts')}{where}{condition}")

    def table(self, name: str) -> str:
        """A table as SQL reads it."""
        return f"read_parquet('{self.installation.out}/{name}/**/*.parquet', union_by_name = true)"


def sql(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def write_config(folder: Path, text: str) -> Config:
    """Write the detectors into a folder that may have other files; None of a broken config is read."""
    (folder / "detectors.yaml").write_text(text)
    return read_config(folder)[0]


@pytest.fixture(scope="module")
def change(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaBroker, redis_server: RedisServer
) -> Iterator[Change]:
    folder = tmp_path_factory.mktemp("change")
    config_folder = folder / "config"
    config_folder.mkdir()
    prefix = f"change-{time.time_ns()}-"
    installation = Installation(folder, kafka, redis_server, prefix, config_folder, partitions=PARTITIONS)
    lines = made_events(5000, seed=7, broken=False)
    parts = lines[:3000], lines[3000:]
    try:
        first = write_config(config_folder, FIRST)
        worker = installation.start_worker()
        installation.load(write_recording(folder / "first.jsonl", parts[0]))
        installation.wait_until_judged(len(parts[0]))
        # No checkpoint knows the last turns: they are taken again under the config that judged them.
        installation.kill(worker)
        (config_folder / "detectors.yaml").write_text(BROKEN)
        places = (*installation.endpoints(), *installation.places())
        refused = run_woolwatch("worker", *places, key=KEY.encode(), expect=2)
        second = write_config(config_folder, SECOND)
        worker = installation.start_worker()
        installation.load(write_recording(folder / "second.jsonl", parts[1]))
        installation.wait_until_judged(len(lines))
        assert installation.stop(worker) == 0
        log = (folder / "worker-002.log").read_text()
        yield Change(installation, (first, second), parts, refused.stderr, log)
    finally:
        installation.close()


def test_what_was_judged_stays_and_what_comes_is_judged_anew(change: Change) -> None:
    for part, config in enumerate(change.configs):
        ids = {event_id for (event_id,) in change.verdicts(f"event_id where config_hash = '{config.hash}'")}
        assert ids == change.ids(part)
    assert len(change.verdicts("event_id")) == sum(map(len, change.parts))


def test_each_partition_switches_once(change: Change) -> None:
    first, second = (config.hash for config in change.configs)
    edges = sql(
        f"""select topic, partition, max("offset") filter (config_hash = '{first}'),
            min("offset") filter (config_hash = '{second}') from {change.table("verdicts")} group by all"""
    )
    assert len(edges) == 2 * PARTITIONS
    assert all(last < next_ for _, _, last, next_ in edges)


def test_the_log_says_from_where_on_and_what_starts_empty(change: Change) -> None:
    said = [
        json.loads(entry)["message"] for entry in change.log.splitlines() if not entry.startswith("note: ")
    ]
    switches = sorted(entry for entry in said if ": config " in entry)
    empty = "these start empty there: feature user_purchases, feature device_neighbours_1h, dau by platform"
    assert len(switches) == PARTITIONS
    for partition, entry in enumerate(switches):
        assert entry.startswith(f"judge {partition}: config {change.configs[1].hash} from turn ")
        assert entry.endswith(empty)
        offsets = dict(
            sql(
                f"""select topic, min("offset") from {change.table("verdicts")}
                where partition = {partition} and config_hash = '{change.configs[1].hash}' group by all"""
            )
        )
        assert (
            f"from offsets clicks {offsets['clicks']}, participations {offsets['participations']};" in entry
        )


# -- features ----------------------------------------------------------------------------------------------

Place = tuple[str, int, int]


@dataclass
class Counter:
    """State of one definition, in plain Python."""

    seen: dict[int, dict[int, int]]
    times: dict[int, list[int]]

    def answer(self, feature: Feature, entity: int, ts: int, members: Mapping[str, int]) -> float:
        since = ts - feature.window_ms if feature.window_ms is not None else -(2**62)
        if feature.distinct is not None:
            own = members.get(feature.distinct)
            return float(sum(at >= since and member != own for member, at in self.seen[entity].items()))
        return float(sum(at >= since for at in self.times[entity]))

    def count(
        self, feature: Feature, entity: int, ts: int, members: Mapping[str, int], event: str | None
    ) -> None:
        if feature.distinct is not None:
            member = members[feature.distinct]
            self.seen[entity][member] = max(ts, self.seen[entity].get(member, ts))
        elif feature.count in ("*", event):
            self.times[entity].append(ts)


def recounted(change: Change) -> dict[Place, dict[str, float]]:
    """All features again, from the sightings log: state under a definition, from its first config on."""
    judged_by = {
        (topic, partition, offset): config
        for topic, partition, offset, digest in change.verdicts('topic, partition, "offset", config_hash')
        for config in change.configs
        if config.hash == digest
    }
    counters: dict[str, Counter] = defaultdict(lambda: Counter(defaultdict(dict), defaultdict(list)))
    found: dict[Place, dict[str, float]] = defaultdict(dict)
    log = sql(
        f"""select topic, partition, "offset", epoch_ms(ts), event, kind, entity, members
        from read_parquet('{change.installation.sightings()}', file_row_number = true)
        where not look_only order by file_row_number"""
    )
    for topic, partition, offset, ts, event, kind, entity, members in log:
        place = topic, partition, offset
        features = {
            name: feature for name, feature in judged_by[place].features.items() if feature.entity == kind
        }
        for name, feature in features.items():
            found[place][name] = counters[feature.definition()].answer(feature, entity, ts, members)
        for definition, feature in {f.definition(): f for f in features.values()}.items():
            counters[definition].count(feature, entity, ts, members, event)
    return found


def test_features_that_are_defined_alike_go_on_and_new_ones_start_empty(change: Change) -> None:
    expected, compared = recounted(change), 0
    for config in change.configs:
        columns = ", ".join(f"f_{name}" for name in config.features)
        where = f"where config_hash = '{config.hash}'"
        for *place, values in change.verdicts(f'topic, partition, "offset", [{columns}] {where}'):
            topic, partition, offset = place
            assert dict(zip(config.features, values, strict=True)) == expected[topic, partition, offset]
            compared += len(values)
    assert compared == 3 * len(change.parts[0]) + 4 * len(change.parts[1])


def test_the_new_feature_knows_nothing_of_what_came_before(change: Change) -> None:
    sold_before = f"""select distinct "user" from {change.table("verdicts")}
        where event = 'purchase' and config_hash = '{change.configs[0].hash}'"""
    firsts = sql(
        f"""select f_user_purchases, f_user_events from {change.table("verdicts")}
        where config_hash = '{change.configs[1].hash}' and "user" in ({sold_before})
        qualify row_number() over (partition by "user", topic order by "offset") = 1
            and min("offset") over (partition by "user") is not null"""
    )
    assert min(purchases for purchases, _ in firsts) == 0
    assert min(events for _, events in firsts) >= 1


def test_a_removed_feature_has_no_column_any_more(change: Change) -> None:
    for name, config in (("ip24_purchases_1h", 0), ("user_purchases", 1)):
        counted = sql(
            f"""select config_hash, count(f_{name}) > 0 from {change.table("verdicts")} group by all"""
        )
        other = change.configs[1 - config].hash
        assert sorted(counted) == sorted([(change.configs[config].hash, True), (other, False)])


def test_rules_and_models_are_those_of_the_config_that_judged(change: Change) -> None:
    first, second = change.configs
    fired: dict[str, set[str]] = defaultdict(set)
    for digest, score, level, reasons, strength in change.verdicts(
        "config_hash, score, level, reasons, m_anomaly"
    ):
        config = first if digest == first.hash else second
        keep = 1.0
        for name, rule in config.rules.items():
            keep *= 1.0 - rule.weight if name in reasons else 1.0
        assert (strength is None) == (config is second)
        score_again = 1.0 - keep * (1.0 - 0.3 * (strength or 0.0))
        assert score == score_again
        assert (level in ("review", "block")) == (score >= config.levels.review)
        fired[digest].update(reasons)
    assert fired == {
        first.hash: {"shared_device", "hurried", "model:anomaly"},
        second.hash: {"shared_device", "busy"},
    }


def test_daily_users_go_on(change: Change) -> None:
    everything = write_recording(
        change.installation.folder / "all.jsonl", [raw for part in change.parts for raw in part]
    )
    out = change.installation.folder / "replayed"
    change.installation.replay(everything, out=out)
    where = "where dim in ('all', 'all_campaigns', 'channel')"
    columns = "date, campaign, dim, dim_value, users_gross"
    replayed = sql(f"select {columns} from read_parquet('{out}/metrics/dau/*.parquet') {where}")
    found = sql(f"select {columns} from {change.table('metrics/dau')} {where}")
    assert sorted(map(repr, found)) == sorted(map(repr, replayed))
    assert len(found) > 5


# -- a config that is none ---------------------------------------------------------------------------------


def test_a_bad_config_is_refused_by_the_worker_and_explained_by_check(change: Change, tmp_path: Path) -> None:
    words = "detectors.yaml: $.rules.busy.when: found "
    assert words in change.refused
    assert "user_event" in change.refused
    assert "expected " in change.refused
    (tmp_path / "detectors.yaml").write_text(BROKEN)
    said = run_woolwatch("check", "--config", tmp_path, key=KEY.encode(), expect=1).stderr
    assert words in said

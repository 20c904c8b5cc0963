"""Second opinions on a run: everything is counted again, in plain Python or SQL, from what was sent and written."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from schemas.config import Config

CHARGED = """
with flags as (
    select distinct user_id, truth_kind as kind, unnest(reasons) as reason from {judged} where flagged
), kinds as (
    select distinct truth_kind as kind from {judged} where truth_kind is not null
), caught as (
    select reason, kinds.kind, count(flags.kind) as people
    from (select distinct reason from flags) cross join kinds left join flags using (reason, kind) group by all
), shares as (
    select reason, kind, coalesce(people / nullif(sum(people) over (partition by reason), 0),
        1 / count(*) over (partition by reason)) as share
    from caught
), alarms as (
    select reason, 1 / count(*) over (partition by user_id) as part from flags where kind is null
)
select kind, coalesce(sum(part * share), 0)
from kinds left join (shares join alarms using (reason)) using (kind) group by 1 order by 1
"""
"""Flagged honest people by the kind that they are charged to; ``judged`` has user_id, truth_kind, reasons, flagged."""


def rows_of(folder: Path, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    """Rows of a table; none when it has no file.

    Files of ``metrics/`` are replaced while the engine runs, and DuckDB opens a file more than once in a query: they
    are read first, each opened once.
    """
    files = sorted((folder / table).glob("**/*.parquet"))
    if not files:
        return []
    if table.startswith("metrics/"):
        read = pa.concat_tables([pq.ParquetFile(file).read() for file in files], promote_options="default")
        return duckdb.from_arrow(read).project(columns).fetchall()
    return asked(f"select {columns} from read_parquet('{folder}/{table}/**/*.parquet')")


def asked(query: str) -> list[tuple[Any, ...]]:
    """Rows of a query to DuckDB."""
    relation = duckdb.sql(query)
    assert relation is not None
    return relation.fetchall()


def same_tables(left: Path, right: Path, *tables: str, columns: str = "*") -> None:
    """Fail unless both folders hold the same rows, each as often."""
    for table in tables:
        ours, theirs = (Counter(map(repr, rows_of(folder, table, columns))) for folder in (left, right))
        assert ours == theirs, (table, list((ours - theirs).items())[:3], list((theirs - ours).items())[:3])


def recount_features(config: Config, sightings: Path, out: Path) -> int:
    """Count every state feature again from the sightings log; returns how many values of verdicts were compared."""
    want = _features_by_event(config, sightings)
    names = [name for name, feature in config.features.items() if feature.entity is not None]
    columns = ", ".join(["topic", "partition", '"offset"', *(f"f_{name}" for name in names)])
    compared = 0
    for topic, partition, offset, *values in rows_of(out, "verdicts", columns) + rows_of(
        out, "late", columns
    ):
        expected = want.get((topic, partition, offset), {})
        for name, value in zip(names, values, strict=True):
            assert value == expected.get(name), (topic, partition, offset, name, value, expected.get(name))
            compared += 1
    return compared


def _features_by_event(
    config: Config, sightings: Path
) -> dict[tuple[str, int, int], dict[str, float | None]]:
    seen: dict[tuple[str, int], dict[str, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    # Times of an entity's events by their name, ascending: a run under faults may be long.
    times: dict[tuple[str, int], dict[str | None, list[int]]] = defaultdict(lambda: defaultdict(list))
    found: dict[tuple[str, int, int], dict[str, float | None]] = defaultdict(dict)
    log = asked(
        f"""select topic, partition, "offset", epoch_ms(ts), event, look_only, kind, entity, members
        from read_parquet('{sightings}', file_row_number = true) order by file_row_number"""
    )
    for topic, partition, offset, ts, event, look_only, kind, entity, members in log:
        here, answers = (kind, entity), found[topic, partition, offset]
        for name, feature in config.features.items():
            if feature.entity == kind:
                answers[name] = _answer(feature, seen[here], times[here], ts, members)
        if not look_only:
            for member, value in members.items():
                seen[here][member][value] = max(ts, seen[here][member].get(value, ts))
            insort(times[here][event], ts)
    return found


def _answer(feature: Any, seen: Any, times: Any, ts: int, members: dict[str, int]) -> float | None:
    since = ts - feature.window_ms if feature.window_ms is not None else -(2**62)
    if feature.kind == "distinct":
        own = members.get(feature.distinct) if feature.exclude_self else None
        return float(sum(at >= since and key != own for key, at in seen[feature.distinct].items()))
    if feature.kind == "count":
        counted = times.values() if feature.count == "*" else [times[feature.count]]
        return float(sum(len(ascending) - bisect_left(ascending, since) for ascending in counted))
    seen_at = times[feature.since]
    return (ts - seen_at[-1]) / 1000 if seen_at else None


def recount_dau(out: Path, *, restate_ms: int) -> int:
    """Recount DAU, gross and suspect, from the run's own verdicts with SQL; returns the rows compared."""
    want = asked(
        f"""
        with verdicts as (select *, date_trunc('day', ts) as day from read_parquet('{out}/verdicts/**/*.parquet')),
        flagged as (select "user", min(ts) as bad from verdicts where level in ('review', 'block') group by 1),
        daily as (
            select day, campaign, 'all' as dim, null as value, "user" from verdicts
            union select day, null, 'all_campaigns', null, "user" from verdicts
            union select day, campaign, 'channel', channel, "user" from verdicts
            union select day, campaign, 'platform', platform, "user" from verdicts
        )
        select day::date, campaign, dim, value, count(*),
            count(*) filter (bad < day + interval 1 day + to_milliseconds({restate_ms}))
        from daily left join flagged using ("user") group by all
        """
    )
    got = rows_of(out, "metrics/dau", "date, campaign, dim, dim_value, users_gross, users_suspect")
    assert Counter(got) == Counter(want)
    assert not [
        row for row in rows_of(out, "metrics/dau", "users_gross - users_suspect - users_clean") if row[0]
    ]
    return len(got)


def recount_retention(out: Path, *, days: int, restate_ms: int) -> int:
    """Recount retention by UTC dates from the run's own verdicts with SQL; returns the rows compared."""
    want = asked(
        f"""
        with verdicts as (select *, date_trunc('day', ts) as day from read_parquet('{out}/verdicts/**/*.parquet')),
        flagged as (select "user", min(ts) as bad from verdicts where level in ('review', 'block') group by 1),
        daily as (
            select distinct campaign, 'all' as dim, "user", day from verdicts
            union select null, 'all_campaigns', "user", day from verdicts
        ),
        followed as (select *, min(day) over (partition by campaign, dim, "user") as cohort from daily)
        select cohort::date, campaign, dim, date_diff('day', cohort, day), count(*), count(*),
            count(*) filter (bad < day + interval 1 day + to_milliseconds({restate_ms}))
        from followed left join flagged using ("user")
        where date_diff('day', cohort, day) <= {days} group by all
        """
    )
    columns = "cohort_date, campaign, dim, day, users, users_clean + users_suspect, users_suspect"
    got = rows_of(out, "metrics/retention", columns)
    assert Counter(got) == Counter(want)
    return len(got)


def recount_funnel_suspects(out: Path, steps: tuple[str, ...], within_ms: int) -> int:
    """Recount the funnel's ``all`` window without dimensions by brute force over every user's verdicts."""
    events: dict[tuple[Any, str], list[tuple[int, str]]] = defaultdict(list)
    flagged = set()
    for user, campaign, event, ts, level in rows_of(
        out, "verdicts", '"user", campaign, event, epoch_ms(ts), level'
    ):
        events[campaign, user].append((ts, event))
        if level in ("review", "block"):
            flagged.add(user)
    want: Counter[tuple[Any, int, str]] = Counter()
    for (campaign, user), mine in events.items():
        reached = _depth(sorted(mine), steps, within_ms)
        for step in range(1, reached + 1):
            want[campaign, step, "gross"] += 1
            want[campaign, step, "suspect"] += user in flagged
    rows = rows_of(
        out, "metrics/funnel", 'campaign, step, users_gross, users_suspect, users_clean, dim, "window"'
    )
    got = [row for row in rows if row[5:] == ("all", "all")]
    for campaign, step, gross, suspect, clean, *_ in got:
        assert (gross, suspect) == (want[campaign, step, "gross"], want[campaign, step, "suspect"])
        assert clean == gross - suspect
    assert sum(row[2] for row in got) == sum(n for (_, _, what), n in want.items() if what == "gross")
    return len(got)


def _depth(events: list[tuple[int, str]], steps: tuple[str, ...], within_ms: int) -> int:
    best = 0
    for first, name in events:
        if name != steps[0]:
            continue
        at, depth = first, 1
        while depth < len(steps):
            later = [ts for ts, event in events if event == steps[depth] and at < ts <= first + within_ms]
            if not later:
                break
            at, depth = min(later), depth + 1
        best = max(best, depth)
    return best


def verdicts_in_redis_equal_tables(url: str, namespace: str, out: Path) -> int:
    """Compare every byte of what Redis shows of users and devices with the last verdicts; returns how many there are.

    Last is by turn, then by offset.
    """
    cuts: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for path in sorted((out / "_log").glob("p*/*.json")):
        entry = orjson.loads(path.read_bytes())
        for turn, topic, start in entry["cuts"]:
            cuts[topic, entry["partition"]].append((start, turn))
    rows = asked(
        f"""select topic, partition, "offset", "user", device,
        reasons, score, level, event, event_id, epoch_ms(ts), campaign, config_hash
        from read_parquet('{out}/verdicts/**/*.parquet')"""
    )

    def judged(row: tuple[Any, ...]) -> tuple[int, int]:
        starts = cuts[row[0], row[1]]
        return starts[bisect_right(starts, (row[2], 2**62)) - 1][1], row[2]

    names = ("reasons", "score", "level", "event", "event_id", "ts", "campaign", "config_hash")
    users: dict[str, dict[str, str]] = {}
    devices: dict[str, dict[str, str]] = defaultdict(dict)
    for row in sorted(rows, key=judged):
        partition, user, device, shown = row[1], row[3], row[4], dict(zip(names, row[5:], strict=True))
        shown["campaign"] = shown["campaign"] or ""
        users[user] = {k: orjson.dumps(v).decode() if k == "reasons" else str(v) for k, v in shown.items()}
        devices[device or ""][str(partition)] = orjson.dumps(shown | {"user": user}).decode()
    devices.pop("", None)
    want = {f"user:{user}": shown for user, shown in users.items() if shown["level"] != "pass"}
    for device, fields in devices.items():
        if held := {field: text for field, text in fields.items() if orjson.loads(text)["level"] != "pass"}:
            want[f"device:{device}"] = held
    with redis.Redis.from_url(url, decode_responses=True) as client:
        found = {
            key.partition(":verdict:")[2]: client.hgetall(key)
            for key in client.scan_iter(f"{{{namespace}}}:verdict:*", count=1000)
        }
    for shown in (found, want):  # how a float is written is Arrow's matter
        for fields in shown.values():
            if "score" in fields:
                fields["score"] = repr(float(fields["score"]))
    assert found == want
    return len(found)


def redis_equals_parquet(url: str, namespace: str, out: Path) -> int:
    """Compare every number of funnels, DAU and retention in Redis with the tables; returns how many."""

    def part(value: Any) -> str:
        return "-" if value is None else "%2D" if value == "-" else quote(str(value), safe="")

    want: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    counts = "users_gross, users_suspect, users_clean"
    for campaign, date, dim, value, *numbers in rows_of(
        out, "metrics/dau", f"campaign, date, dim, dim_value, {counts}"
    ):
        field = f"{date.isoformat()}/{part(dim)}/{part(value)}"
        want[f"dau:{part(campaign)}"][field] = dict(zip(("gross", "suspect", "clean"), numbers, strict=True))
    for name, campaign, window, start, dim, value, step, *numbers in rows_of(
        out,
        "metrics/funnel",
        f"""funnel, campaign, "window", strftime(window_start at time zone 'UTC', '%Y-%m-%dT%H:%M:%SZ'),
        dim, dim_value, step, {counts}""",
    ):
        field = f"{start or 'all'}/{part(dim)}/{part(value)}/{step}"
        key = f"funnel:{part(name)}:{part(campaign)}:{part(window)}"
        want[key][field] = dict(zip(("gross", "suspect", "clean"), numbers, strict=True))
    for campaign, cohort, dim, day, *numbers in rows_of(
        out, "metrics/retention", f"campaign, cohort_date, dim, day, {counts}"
    ):
        field = f"{cohort.isoformat()}/{part(dim)}/{day}"
        want[f"retention:{part(campaign)}"][field] = dict(
            zip(("gross", "suspect", "clean"), numbers, strict=True)
        )
    with redis.Redis.from_url(url, decode_responses=True) as client:
        found = {
            key.partition("}:")[2]: {
                field: {n: v for n, v in orjson.loads(value).items() if n != "step_name"}
                for field, value in client.hgetall(key).items()
            }
            for kind in ("dau", "funnel", "retention")
            for key in client.scan_iter(f"{{{namespace}}}:{kind}:*", count=1000)
        }
    assert found == want
    return sum(map(len, found.values()))

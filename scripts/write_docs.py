"""Writes docs/CONFIG.md, docs/TABLES.md and docs/METRICS.md from the types, schemas and catalogues of the code.

``python scripts/write_docs.py``; a test fails where a page is not what this writes. Each block of the config has an
example in docs/config_examples/, which a test checks as ``woolwatch check`` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from schemas.config import Config
from schemas.config_blocks import Block
from schemas.config_decode import description_of
from schemas.durations import UNITS_MS
from schemas.metric_tables import METRIC_SCHEMAS
from sinks.alert_tables import ALERT_SCHEMA, DELIVERY_SCHEMA
from sinks.tables import verdict_schema
from streams.meters import METRICS, NAMESPACE
from streams.settings import Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLES = DOCS / "config_examples"

COLUMNS: Mapping[str, str] = {
    "event_id": "the event's own id; of several with one id only the first is here",
    "event": "name of the event",
    "ts": "time of the event",
    "topic": "`clicks` or `participations`, whatever Kafka calls them",
    "partition": "partition of the topic, and of the judge",
    "offset": "offset in the partition; with topic and partition it names a record",
    "user": "pseudonym of the user (`woolwatch pseudonym user VALUE`)",
    "device": "pseudonym of the device; null without one",
    "ip": "pseudonym of the address; null without one",
    "channel": "as it came",
    "campaign": "as it came; null for events without one",
    "page": "as it came",
    "platform": "as it came",
    "variant": "as it came",
    "dwell_ms": "as it came",
    "amount_minor": "as it came, in the smallest unit of the currency",
    "cost_minor": "as it came, in the smallest unit of the currency",
    "score": "0 to 1: 1 - product of (1 - weight x strength) over what fired",
    "level": "`pass`, `observe`, `review` or `block`",
    "reasons": "codes of what fired: names of lists, rules and models",
    "evidence": "JSON: for each reason the features, their values and the thresholds",
    "config_hash": "the config that judged",
    "f_<feature>": "each configured feature as it was just before the event; null where its entity is absent",
    "m_<model>": "strength of each model, 0 to 1",
    "funnel": "name of the funnel",
    "window": "`all` (campaign to date), or the length of the window",
    "window_start": "start of the window in which the chain's first step lies; null for `all`. Of events: the minute",
    "dim": "dimension, or `all` for the total of the campaign; `all_campaigns` is the total of the product",
    "dim_value": "value of the dimension",
    "step": "number of the step, from 1",
    "step_name": "the step's event",
    "users_gross": "distinct users",
    "users_suspect": "of them, those with a verdict of at least `review` that holds",
    "users_clean": "gross - suspect",
    "error": "one standard error of `users_gross`, as a share of it; 0 is exact. Beyond `memory.max_users` users are "
    "sampled: of a part of x users it is sqrt(users_gross / x) times that",
    "date": "day, in UTC or the campaign's time zone",
    "count": "events",
    "dwell_count": "events that came with a dwell time",
    "dwell_p50": "median of the dwell times in ms; of buckets of 1 %",
    "dwell_p90": "dwell time in ms that 90 % do not exceed",
    "dwell_p99": "dwell time in ms that 99 % do not exceed",
    "amount_minor_sum": "amounts together",
    "cost_minor_sum": "costs together",
    "cohort_date": "day on which the users were first seen, in the campaign or, for `all_campaigns`, in the product; "
    "in UTC or the campaign's time zone",
    "day": "days since then, 0 for the day itself; a day on which none of them was seen has no row",
    "users": "`users_gross` again",
}

ALERT_COLUMNS: Mapping[str, str] = {
    "id": "of the incident, 32 hex digits; the same in all of its states, and whoever finds it",
    "kind": "`wool_party` or `kpi`",
    "name": "reason code, or name of the KPI alert",
    "state": "`open` or `resolved`",
    "severity": "`observe`, `review` or `block`: the gravest level in it",
    "campaign": "null: events without one, or all campaigns",
    "dim": "what ties it together: an entity, or the dimension of a metric; `all` is neither",
    "dim_value": "pseudonym of the entity, or value of the dimension",
    "since": "event time at which it began",
    "ts": "event time of what raised or ended it",
    "title_zh": "for people, in Chinese",
    "title_en": "for people, in English",
    "text_zh": "for people, in Chinese",
    "text_en": "for people, in English",
    "evidence": "JSON: counts, values, thresholds, pseudonyms",
    "config_hash": "the config that raised it",
    "channel": "name of the channel in the config",
    "outcome": "`sent` or `failed`",
    "attempts": "how often it was tried; 0 where a note in Redis said that it had been sent",
    "reason": "why it failed; never names a URL",
    "ended": "when that was, by the worker's clock",
}


def settings_page() -> str:
    """The settings as a table."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        name = field.encode_name
        if name == "topics":
            continue
        default = {"wait": "60"}.get(name, "" if field.default is None else f"{field.default}")
        rows.append((f"`{name}`", description_of(field.type), f"`{default}`" if default else ""))
    return _table(("setting", "what it says", "default"), rows)


_CONFIG_PAGE = """\
<!-- written by scripts/write_docs.py: change the code, then run `make docs` -->

# Settings and config

**Settings** say where things are and differ between installations; the **config** says how events are judged and
counted, and belongs to the risk team.

## Settings

Each is a flag (`--kafka-ca-file`), a variable (`WOOLWATCH_KAFKA_CA_FILE`) and a name in the file of `--settings`
(`kafka_ca_file`), in this order. Paths are relative to where the command runs. Secrets come by variable
(`WOOLWATCH_KEY`, `WOOLWATCH_KAFKA_PASSWORD`, `WOOLWATCH_REDIS_PASSWORD`) or in a file that a setting names; a variable
with a secret comes before the file. In the settings file itself secrets are refused.

@settings

## Config

A folder of YAML files (`--config`). Every block may stand in any file, each in one only; all are optional.
`woolwatch check --config FOLDER` says all that is wrong at once, with file, path, what was found and what was expected.
Durations are written `90s`, `10m`, `24h`, `30d`. Every example below is checked by the tests.

A running worker takes up what changes in the folder, lists included, within seconds (`kill -HUP` makes it look at
once): each judge goes on under the new config from one recorded turn on, verdicts carry its hash, and what is
defined as before goes on counting. A config that is wrong is refused, which the log, `/healthz` and
`woolwatch_config_refused` tell, and the one before it goes on; so it is when the file of a list is gone. `topics`,
`memory`, `lateness`, `alerts.channels` and `alerts.give_up` stay as they are while a worker runs: stop all workers
and start them again. Give all workers the same content.

@blocks
"""


def config_page() -> str:
    """docs/CONFIG.md."""
    blocks = [part for field in msgspec.structs.fields(Config) for part in _block(field)]
    return _CONFIG_PAGE.replace("@settings", settings_page()).replace("@blocks", "\n\n".join(blocks))


def _block(field: msgspec.structs.FieldInfo) -> Iterator[str]:
    yield f"### `{field.encode_name}`"
    for kind in structs_in(field.type):
        yield _sentences(kind)
        yield _table(("key", "expected", "default"), [_row(one) for one in written_fields(kind)])
    if not list(structs_in(field.type)):
        yield (
            _PLAIN_BLOCKS.get(field.encode_name)
            or f"{_sentence(_expected(field))}; default {_default(field)}."
        )
    example = EXAMPLES / f"{field.encode_name}.yaml"
    if example.exists():
        yield f"```yaml\n{example.read_text().rstrip()}\n```"


_PLAIN_BLOCKS = {
    "fields": "Under which names the fields of an event come in: our name, then yours.",
    "lateness": (
        "How late an event may come, by the event times of its topic-partition; later ones go to `late/`. Default `1h`."
    ),
    "label_horizon": "How long the features of judged events are kept, on disk, for labels to come. Default `30d`.",
    "restate": "How long after the end of a window a verdict still makes its user suspect in it. Default `30d`.",
}


def written_fields(kind: type[Block]) -> list[msgspec.structs.FieldInfo]:
    """The fields that people write; others are filled in when the files are read."""
    filled_in = getattr(kind, "FILLED_IN", ())
    return [field for field in msgspec.structs.fields(kind) if field.name not in filled_in]


def structs_in(kind: Any) -> Iterator[type[Block]]:
    """The block types inside a type expression, outer ones first, those of their fields behind them."""
    if isinstance(kind, type) and issubclass(kind, Block):
        yield kind
        for field in msgspec.structs.fields(kind):
            yield from structs_in(field.type)
        return
    for part in get_args(kind):
        yield from structs_in(part)


def _row(field: msgspec.structs.FieldInfo) -> tuple[str, ...]:
    return f"`{field.encode_name}`", _expected(field), _default(field)


def _expected(field: msgspec.structs.FieldInfo) -> str:
    if said := description_of(field.type):
        return said
    return "true or false" if field.type is bool else "names"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None or value in ((), {}):
        return ""
    if field.name.endswith("_ms"):
        return f"`{_duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`[{', '.join(value)}]`" if isinstance(value, tuple) else f"`{value}`"


def _duration(value_ms: int) -> str:
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if value_ms % UNITS_MS[unit] == 0 or unit == "ms")
    return f"{value_ms // UNITS_MS[unit]}{unit}"


def _sentences(kind: type) -> str:
    tag = kind.__struct_config__.tag if hasattr(kind, "__struct_config__") else None
    """What a type says of itself, without the sections for programmers."""
    said = (
        (inspect.getdoc(kind) or "")
        .split("\n\nExamples\n")[0]
        .split("\n\nParameters\n")[0]
        .replace("``", "`")
    )
    return f"`kind: {tag}`: {said}" if tag else said


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


_TABLES_PAGE = """\
<!-- written by scripts/write_docs.py: change the code, then run `make docs` -->

# Tables

Parquet (zstd) below the sink folder (`--out`). Only whole, committed files are ever visible; whoever reads
`<table>/**/*.parquet` sees each row once. After a feature is added, union by name:
`read_parquet('out/verdicts/**/*.parquet', union_by_name=true)`.

## `verdicts/` and `late/`

One row an event, partitioned by `date` (UTC, of the event). `late/` has the events that came after the watermark:
judged, but not counted. A verdict is visible within 10 s.

@verdicts

## `alerts/`

One row for each alert in each of its states, partitioned by `date` (UTC, of `ts`); [ALERTS.md](ALERTS.md) says what an
incident is and what its evidence holds.

@alerts

## `deliveries/`

One row for each alert, state and channel, partitioned by `date` (UTC, of the alert's `ts`): how telling people ended.

@deliveries

@metrics

The files of `metrics/` are replaced whole: each key has one row, its present value. Nothing needs to be summed over
files, and the numbers of a window are corrected while events may come late and verdicts may change. In
`metrics/events/` each UTC day has files of its own, so a day that is over is not written again. What it was counted
from is kept in `_rollup/`, for an event that comes for it all the same: leave that folder as it is, also when old
files of `metrics/events/` are no longer wanted.

Most readers (DuckDB, pyarrow's datasets, pandas) open a file more than once in a query. Where it was replaced in
between they say so by an error, such as `TProtocolException: Invalid data` or `Could not read enough bytes`: ask again.
A dashboard that asks all the time does better with Redis, which shows the same numbers. Files of `verdicts/` are never
replaced under their name.
"""


def tables_page() -> str:
    """docs/TABLES.md."""
    verdicts = _schema_table(verdict_schema(["<feature>"], ["<model>"]))
    metrics = [f"## `metrics/{name}/`\n\n{_schema_table(schema)}" for name, schema in METRIC_SCHEMAS.items()]
    page = _TABLES_PAGE.replace("@verdicts", verdicts).replace("@metrics", "\n\n".join(metrics))
    for name, schema in (("@alerts", ALERT_SCHEMA), ("@deliveries", DELIVERY_SCHEMA)):
        page = page.replace(name, _schema_table(schema, ALERT_COLUMNS))
    return page


def _schema_table(schema: Any, said: Mapping[str, str] = COLUMNS) -> str:
    rows = [(f"`{field.name}`", f"{field.type}", said.get(field.name, "")) for field in schema]
    return _table(("column", "type", "what it says"), rows)


_METRICS_PAGE = """\
<!-- written by scripts/write_docs.py: change the code, then run `make docs` -->

# Metrics and health

`woolwatch worker --http HOST:PORT` serves `/metrics` (Prometheus), `/healthz` and `/readyz`; without it nothing is
listened on. Give a loopback address unless others must reach it: there is no login. A port that is taken is the
neighbour's, and the next free one of a hundred is taken; port 0 is any free one. The address stands in the log and in
`<state>/http/<host>-<pid>.json`, as Prometheus' `file_sd_configs` reads it.

- `/readyz` is 200 once partitions are seated and while nothing is waited for, else 503 with the reasons.
- `/healthz` is 503 when a process says nothing for 10 s, or when nothing becomes durable for a minute (with a large
  state: for three checkpoints) though there is input. That is also so while Redis is away for minutes, which a restart
  does not mend; nothing is lost by one.

Counters begin at 0 with the process. No label and no value holds anything of a person.

@metrics
"""


def metrics_page() -> str:
    """docs/METRICS.md."""
    rows = [
        (f"`{NAMESPACE}_{name}`", metric.kind, ", ".join(("part", *metric.labels)), metric.help)
        for name, metric in METRICS.items()
    ]
    return _METRICS_PAGE.replace("@metrics", _table(("metric", "kind", "labels", "what it says"), rows))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


PAGES = {"CONFIG.md": config_page, "TABLES.md": tables_page, "METRICS.md": metrics_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()

"""Random configs and events: what the core judged comes out the same when judged again, and no change is missed."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rule_grammar import parse_rule
from schemas.rule_tree import Input, grant, holds, inputs_of
from sinks.local_store import LocalStore
from streams.config_files import ConfigFolder, read_config_folder
from streams.kept_configs import KeptConfigs
from streams.rejudge import TableJudge
from tests.made_events import START_MS, write_recording
from tests.rejudging import RING, judged_table, with_cell

FEATURES = """
features:
  others: {entity: device_id, distinct: user_id, exclude: self}
  events: {entity: user_id, count: "*"}
  since:  {entity: user_id, since: signup}
  age:    {field: attrs.age}
"""
RULES = (
    "others >= 1 and dwell_ms < 900",
    "lat > 30.5 or others >= 2",
    "attrs.age * 2 < 60 and events >= 2",
    'attrs.browser == "chrome" and not (attrs.age == 17)',
    'channel in ("ads", "qr") and since < 1',
    "amount_minor / cost_minor > 2 or lon - lat < attrs.age",
    'event != "view" and attrs.browser != "safari"',
    "age >= 20",
)
LISTS = (
    ("white", "user_id", "value,reason\nu1,a friend\nu3,\n"),
    ("black", "device_id", f"value,reason,source,expires\nd1,seen,ops,{START_MS + 20_000}\nd2,,,\n"),
    ("grey", "ip", "value,source\n10.0.0.0/30,whois\n10.0.0.2,\n"),
    ("grey", "phone", "value\n138\n1380013\n"),
    ("grey", "channel", "value,reason\nqr,posters\n"),
    ("black", "attrs.browser", "value\nbot\n"),
)
FOREST = (
    "{kind: half_space_trees, trees: 3, height: 4, features: [others, dwell_ms, attrs.age, lat], weight: 0.3}"
)
CLASSIFIERS = (
    "{kind: river, class: linear_model.LogisticRegression, scale: true, features: [events, attrs.age], weight: 0.9}",
    "{kind: river, class: naive_bayes.GaussianNB, features: [others, dwell_ms], weight: 0.8}",
)

_events = st.fixed_dictionaries(
    {
        "event": st.sampled_from(["signup", "view", "redeem"]),
        "user_id": st.sampled_from(["u1", "u2", "u3", "u4"]),
    },
    optional={
        "device_id": st.sampled_from(["d1", "d2", "d3"]),
        "ip": st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.9", "2001:db8::1"]),
        "phone": st.sampled_from(["13800138000", "13899999999", "15012345678"]),
        "channel": st.sampled_from(["ads", "qr", 'quo"ted', "微信"]),
        "dwell_ms": st.integers(0, 2000),
        "amount_minor": st.integers(0, 9),
        "cost_minor": st.integers(0, 3),
        "age": st.one_of(st.integers(15, 40), st.floats(-1e3, 1e3), st.booleans()),
        "browser": st.sampled_from(["chrome", "safari", "bot"]),
        "place": st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
        "label": st.sampled_from([0, 1]),
    },
)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Mapping[str, str], list[bytes]]:
    """Files of a config folder, and the lines of a recording."""
    weights = st.floats(0.05, 1)
    rules = draw(st.lists(st.sampled_from(RULES), min_size=1, unique=True))
    lists = draw(st.lists(st.sampled_from(LISTS), unique=True))
    models = draw(st.lists(st.sampled_from([FOREST, *CLASSIFIERS]), unique=True))
    files = {f"list{i}.csv": content for i, (_, _, content) in enumerate(lists)}
    blocks = [FEATURES, "rules:"]
    blocks += [
        f"  r{i}: {{when: {json.dumps(rule)}, weight: {draw(weights)}}}" for i, rule in enumerate(rules)
    ]
    blocks += ["lists:"] * bool(lists)
    blocks += [
        f"  l{i}: {{kind: {kind}, entity: {entity}, file: list{i}.csv, weight: {draw(weights)}}}"
        for i, (kind, entity, _) in enumerate(lists)
    ]
    blocks += ["models:"] * bool(models) + [f"  m{i}: {model}" for i, model in enumerate(models)]
    files["all.yaml"] = "\n".join(blocks)
    return files, [
        _line(i, event) for i, event in enumerate(draw(st.lists(_events, min_size=1, max_size=80)))
    ]


def _line(number: int, event: dict[str, Any]) -> bytes:
    lat, lon = event.get("place", (None, None))
    whole = {"event_id": f"e{number}", "ts": START_MS + number * 500, "lat": lat, "lon": lon, **event}
    return json.dumps({key: value for key, value in whole.items() if key != "place"}).encode()


def _made(files: Mapping[str, str], lines: list[bytes]) -> tuple[ConfigFolder, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "config"
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
        read = read_config_folder(folder)
        return read, judged_table(read, write_recording(Path(name) / "events.jsonl", lines))


def _judge(read: ConfigFolder) -> TableJudge:
    return TableJudge(read.config, KeptConfigs([read], LocalStore(Path("none")), RING), RING)


@settings(max_examples=40)
@given(_cases(), st.data())
def test_what_was_judged_comes_out_the_same_and_no_change_is_missed(
    case: tuple[Mapping[str, str], list[bytes]], data: st.DataObject
) -> None:
    read, table = _made(*case)
    judge = _judge(read)
    again, same, undecided = judge.judge(table)
    assert same.all(), (table.filter(~same).to_pylist()[:1], again.filter(~same).to_pylist()[:1])
    assert (undecided >= 0).all()

    row = data.draw(st.integers(0, table.num_rows - 1))
    before = table.slice(row, 1).to_pylist()[0]
    changes = {
        "score": float(np.nextafter(before["score"], 2)),
        "level": "observe" if before["level"] != "observe" else "pass",
        "reasons": before["reasons"][1:] if before["reasons"] else ["r0"],
        "evidence": None if before["evidence"] else "[]",
    }
    column = data.draw(st.sampled_from(sorted(changes)))
    _, same, _ = judge.judge(with_cell(table, column, row, changes[column]))
    assert np.flatnonzero(~same).tolist() == [row]

    first = data.draw(st.integers(0, table.num_rows - 1))
    part, _, _ = judge.judge(table.slice(first))
    assert part.equals(again.slice(first))


_unknown = st.sampled_from(["dwell_ms", "attrs.a", "lat"])


@given(
    st.sampled_from(
        [
            "dwell_ms < 3 and not (attrs.a > 1 or lat == 2)",
            "attrs.a + dwell_ms > 3 or (lat < 2 and lon > 1)",
            "not (dwell_ms in (1, 2) and (attrs.a != 3 or lon <= 2))",
            "1 < dwell_ms < attrs.a",
        ]
    ),
    st.sets(_unknown),
    st.fixed_dictionaries(
        {
            name: st.sampled_from([math.nan, 0.0, 1.0, 2.0, 3.0, 4.0])
            for name in ("dwell_ms", "lat", "lon", "attrs.a")
        }
    ),
)
def test_what_is_granted_holds_whenever_the_condition_does(
    text: str, unknown: set[str], values: dict[str, float]
) -> None:
    condition = parse_rule(text, []).condition
    granted = grant(condition, [used for used in inputs_of(condition) if used.name in unknown])

    def read(used: Input) -> float:
        return values[used.name]

    assert holds(granted, read) or not holds(condition, read)
    assert not unknown & {used.name for used in inputs_of(granted)}
    assert unknown & {used.name for used in inputs_of(condition)} or granted == condition

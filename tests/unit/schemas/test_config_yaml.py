"""What YAML could do and may not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Config, config_from_json, parse_config
from schemas.config_yaml import MAX_DEPTH, MAX_FILE_BYTES
from schemas.errors import ConfigError, ConfigProblem


def problem_of(raw: bytes) -> ConfigProblem:
    with pytest.raises(ConfigError) as refused:
        parse_config({"a.yaml": raw})
    assert refused.value.file == "a.yaml"
    return refused.value.problems[0]


@pytest.mark.parametrize(
    ("raw", "path", "found"),
    [
        (b"rules: {a: 1, a: 2}", "$.rules.a", '"a" on line 1 and again on 1'),
        (b"rules: {}\n\nrules: {}", "$.rules", '"rules" on line 1 and again on 3'),
        (b"funnels:\n  f:\n    steps: [{x: 1, x: 2}]", "$.funnels.f.steps[0].x", '"x" on line 3'),
        (b"rules: &a {}\nlists: *a", "$.lists", "the alias"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "$.b[0]", "the alias"),
        (b"rules: !!python/object/apply:os.system [ls]", "$.rules", "the tag"),
        (b"rules: !!binary aGk=", "$.rules", "the tag"),
        (b"rules: {? [a, b] : 1}", "$.rules", "a mapping or list as a key"),
        (b"a: " + b"[" * 100 + b"]" * 100, "$.a" + "[0]" * (MAX_DEPTH - 1), "deeper nesting"),
        (b"a: " + b"{a: " * 100 + b"}" * 100, "$.a" + ".a" * (MAX_DEPTH - 1), "deeper nesting"),
        (b"a: " + b"[" * 500_000, "$.a" + "[0]" * (MAX_DEPTH - 1), "deeper nesting"),
        (b"rules: {}\n---\nlists: {}", "$", "a second document"),
        (b"rules: {", "$", "line 2, column 1"),
        (b"\tlevels: 1", "$", "line 1, column 1"),
        (b"a: \x00", "$", ""),
        (b"\xff\xfe", "$", "no UTF-8 at 0"),
        (b"# " + b"x" * MAX_FILE_BYTES, "$", "more than 1 MiB"),
        (b"events: {no: {topic: clicks}}", "$.events", "the key false"),
        (b"events: {7: {topic: clicks}}", "$.events", "the key 7"),
        (b"lateness: 2024-13-45", "$", "cannot read"),
        (b"lateness: " + b"9" * 5000, "$", "cannot read"),
        (b"lateness: 0x" + b"f" * 5000, "$.lateness", "beyond 64 bits"),
        (b"lateness: 2024-01-01", "$.lateness", "2024-01-01"),
        (b"just text", "$", "just text"),
    ],
)
def test_a_trap_is_refused_with_its_place(raw: bytes, path: str, found: str) -> None:
    problem = problem_of(raw)
    assert problem.path == path
    assert found in problem.found


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse_config({"a.yaml": b"\xef\xbb\xbflateness: 2h"})[0].lateness_ms == 7_200_000


def test_the_same_key_in_neighbouring_entries_is_no_repetition() -> None:
    config, _ = parse_config({"a.yaml": b"funnels: {a: {steps: [x, x]}, b: {steps: [x, x]}}"})
    assert config.funnels["b"].steps == ("x", "x")


GOOD = """\
features: {users: {entity: ip, distinct: user_id, exclude: self, window: 1h}, age: {field: attrs.age}}
rules: {r: {when: users > 2 and channel == "x", applies_to: [redeem], weight: 0.4, reason_en: why}}
lists: {l: {kind: grey, entity: ip, file: l.csv, weight: 0.2}}
models: {m: {kind: half_space_trees, trees: 5, height: 4, seed: 1, features: [users, lat], weight: 0.3}}
levels: {observe: 0.2, review: 0.5, block: 0.9}
funnels: {f: {steps: [a, b], within: 1d, by: [page], windows: [all, 1d], order: strict}}
dau: {by: [channel]}
kpi_alerts: {k: {metric: "funnel.f.rate(1, 2)", window: 5m, below: 0.5, for: 2}}
events: {strict: true, a: {topic: clicks, role: view}}
fields: {user_id: uid}
topics: {clicks: c}
campaigns: {c: {timezone: Asia/Shanghai}}
memory: {max_keys: 5}
lateness: 2h
"""
WORDS = [found.span() for found in re.finditer(r"[\w.]+", GOOD)]
JUNK = st.sampled_from(
    [
        "",
        "null",
        "[]",
        "{}",
        "-1",
        "7",
        "true",
        ".nan",
        "-.inf",
        "1e9",
        "'x'",
        "{a: [b]}",
        "2024-01-01",
        "<x>",
        "*x",
    ]
) | st.text(max_size=5)


def kept_or_refused(text: str) -> Config | ConfigError:
    try:
        return parse_config({"a.yaml": text.encode()})[0]
    except ConfigError as error:
        return error


@given(st.lists(st.tuples(st.sampled_from(WORDS), JUNK), max_size=2, unique_by=lambda change: change[0]))
def test_whatever_stands_there_is_either_kept_exactly_or_refused_in_words(
    changes: list[tuple[tuple[int, int], str]],
) -> None:
    text = GOOD
    for (start, end), junk in sorted(changes, reverse=True):
        text = text[:start] + junk + text[end:]
    outcome = kept_or_refused(text)
    if isinstance(outcome, ConfigError):
        assert all(problem.found and problem.expected for problem in outcome.problems)
        assert all(line.isprintable() for line in str(outcome).split("\n"))
    else:
        assert config_from_json(outcome.to_json()) == outcome

"""What YAML could do and may not."""

from __future__ import annotations

import pytest

from schemas.config import parse_config
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

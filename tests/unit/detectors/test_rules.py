"""Compiled rules: what they read, which events they look at, how they explain themselves."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from detectors.evidence import EvidenceWriter
from detectors.rule_machine import LANE
from detectors.rules import RuleProgram, compile_rules
from schemas.config import parse_config
from schemas.rule_tree import Input, InputKind

FEATURES = "features: {users: {entity: ip, distinct: user_id}, ips: {entity: user_id, distinct: ip}}\n"


def program(rules: str) -> RuleProgram:
    return compile_rules(parse_config({"a.yaml": (FEATURES + rules).encode()})[0])


def test_inputs_are_each_named_once_in_order_of_use() -> None:
    rules = program("""rules:
  a: {when: dwell_ms < 5 and users > ips}
  b: {when: users > 1 and attrs.age < 3 and channel == "x"}
  c: {when: 'channel in ("x", "y") and attrs.age == "z"'}
""")
    assert rules.inputs == (
        Input(InputKind.FIELD, "dwell_ms"),
        Input(InputKind.FEATURE, "users"),
        Input(InputKind.FEATURE, "ips"),
        Input(InputKind.ATTRIBUTE, "attrs.age"),
        Input(InputKind.TEXT, "channel", "x"),
        Input(InputKind.TEXT, "channel", "y"),
        Input(InputKind.TEXT, "attrs.age", "z"),
    )
    assert [used.attribute for used in rules.inputs] == [None, None, None, "age", None, None, "age"]


def test_a_rule_looks_only_at_events_it_applies_to() -> None:
    rules = program("""rules:
  all: {when: users > 1}
  some: {when: users > 1, applies_to: [redeem, participate]}
  one: {when: users > 1, applies_to: [redeem]}
  none_here: {when: users > 1, applies_to: [refund]}
""")
    index = {"click": 0, "redeem": 5, "participate": 2}
    names = np.array([0, 5, 2, -1, 99, 5, 1], np.int32)
    values = np.array([[2.0, 2, 2, 2, 2, 0, 2]])
    fired = rules.fired(values, names, index)
    assert fired.dtype == np.uint8
    assert fired.tolist() == [
        [1, 0, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]
    applies = [None, ("redeem", "participate"), ("redeem",), ("refund",)]
    assert list(rules.applies) == [None if names is None else frozenset(names) for names in applies]
    assert rules.name_index == {"participate": 0, "redeem": 1, "refund": 2}
    by_own_numbers = np.array(
        [rules.name_index.get(n, -1) for n in ("x", "redeem", "participate", "refund")], np.int32
    )
    assert rules.fired(np.full((1, 4), 2.0), by_own_numbers)[:, 1:].tolist() == [
        [0, 0, 0],
        [1, 1, 0],
        [1, 0, 0],
        [0, 0, 1],
    ]


def test_no_rules_and_no_rows_give_empty_answers() -> None:
    assert program("").fired(np.empty((0, 3)), np.zeros(3, np.int32), {}).shape == (3, 0)
    assert program("rules: {r: {when: users > 1}}").fired(
        np.empty((1, 0)), np.zeros(0, np.int32), {}
    ).shape == (0, 1)


def test_values_of_another_shape_are_refused() -> None:
    rules = program("rules: {r: {when: users > ips}}")
    for shape in ((1, 3), (3, 3), (2, 4)):
        with pytest.raises(ValueError, match=r"expected values of shape \(2, 3\)"):
            rules.fired(np.zeros(shape), np.zeros(3, np.int32), {})


def test_every_row_of_every_lane_is_judged() -> None:
    rules = program("rules: {odd: {when: users == 1}, even: {when: users == 0, applies_to: [x]}}")
    for rows in (1, LANE - 1, LANE, LANE + 1, 3 * LANE + 7):
        values = (np.arange(rows) % 2).astype(np.float64)[np.newaxis]
        fired = rules.fired(values, np.zeros(rows, np.int32))
        assert np.array_equal(fired[:, 0], np.arange(rows) % 2)
        assert np.array_equal(fired[:, 1], 1 - np.arange(rows) % 2)


def test_terms_are_the_comparisons_as_evidence_takes_them() -> None:
    rules = program("rules: {r: {when: not (users < 2 or dwell_ms >= 500)}, s: {when: ips > users}}")
    shown = [[(term.feature, term.operator, term.threshold) for term in rule.terms] for rule in rules.rules]
    assert shown == [[("users", ">=", 2.0), ("dwell_ms", "<", 500.0)], [("ips", ">", "users")]]
    values = np.array([[3.0], [250.0], [4.0]])
    fired = rules.fired(values, np.zeros(1, np.int32))
    writer = EvidenceWriter([(rule.name, rule.terms) for rule in rules.rules], [])
    written = json.loads(writer.build(fired, values, []).json_bytes.tobytes())
    assert [reason["reason"] for reason in written] == ["r", "s"]
    assert [term["value"] for term in written[0]["terms"]] == [3, 250]


def test_a_rule_says_why_in_both_languages_or_shows_its_condition() -> None:
    given, made = program("""rules:
  given: {when: users > 1, reason_zh: 多账号, reason_en: many accounts, weight: 0.9}
  made: {when: "(users)\\n > 1"}
""").rules
    assert (given.name, given.weight, given.reason_zh, given.reason_en) == (
        "given",
        0.9,
        "多账号",
        "many accounts",
    )
    assert (made.weight, made.when) == (0.5, "users > 1")
    assert "users > 1" in made.reason_zh
    assert "users > 1" in made.reason_en


def test_null_fires_nothing_and_infinity_is_a_number() -> None:
    rules = program("""rules:
  below: {when: users < 3}
  not_below: {when: not users < 3}
  unequal: {when: users != 3}
  ratio: {when: ips / users > 1}
  difference: {when: users - users == 0}
""")
    values = np.array([[math.nan, math.inf, -math.inf, 0.0, 2.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    fired = rules.fired(values, np.zeros(5, np.int32))
    assert fired.tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 0, 1],
        [1, 0, 1, 1, 1],
    ]

"""What each kind of comparison looks like as evidence, from the rule's text to the JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detectors.evidence import EvidenceWriter, terms_of
from detectors.evidence_layout import Term
from schemas.rule_grammar import parse_rule
from schemas.rule_tree import Input, inputs_of

FEATURES = ["device_other_users", "ip_other_users"]


def terms_and_inputs(text: str) -> tuple[tuple[Term, ...], list[Input]]:
    condition = parse_rule(text, FEATURES).condition
    inputs = list(dict.fromkeys(inputs_of(condition)))
    return terms_of(condition, inputs), inputs


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("dwell_ms < 900", [250.0], [("dwell_ms", 250, "<", 900)]),
        ("900 > dwell_ms", [250.0], [("dwell_ms", 250, "<", 900)]),
        ("not dwell_ms >= 0.5", [0.25], [("dwell_ms", 0.25, "<", 0.5)]),
        (
            "2 <= device_other_users < 9",
            [3.0],
            [("device_other_users", 3, ">=", 2), ("device_other_users", 3, "<", 9)],
        ),
        (
            "cost_minor > 4 * amount_minor",
            [450.0, 10.0],
            [("cost_minor", {"cost_minor": 450, "amount_minor": 10}, ">", "4 * amount_minor")],
        ),
        (
            "dwell_ms + lat >= 40",
            [3.0, 37.0],
            [("dwell_ms + lat", {"dwell_ms": 3, "lat": 37}, ">=", 40)],
        ),
        ("2 * dwell_ms == 6", [3.0], [("2 * dwell_ms", {"dwell_ms": 3}, "==", 6)]),
        ("attrs.age == 30", [30.0], [("attrs.age", 30, "==", 30)]),
        ("channel == 'qr'", [1.0], [("channel", "qr", "==", "qr")]),
        ("channel != 'qr'", [0.0], [("channel", {"not": "qr"}, "!=", "qr")]),
        (
            "channel == '二维码' or attrs.os == 'x'",
            [1.0, np.nan],
            [("channel", "二维码", "==", "二维码"), ("attrs.os", None, "==", "x")],
        ),
        (
            "dwell_ms < 9 or (dwell_ms < 9 and lat > 1)",
            [2.0, 0.5],
            [("dwell_ms", 2, "<", 9), ("lat", 0.5, ">", 1)],
        ),
    ],
)
def test_comparison_as_evidence(
    text: str, values: list[float], expected: list[tuple[str, object, str, object]]
) -> None:
    terms, inputs = terms_and_inputs(text)
    assert len(inputs) == len(values)
    writer = EvidenceWriter([("rule", terms)], [])
    evidence = writer.build(np.ones((1, 1), np.uint8), np.array(values)[:, None], [])
    (reason,) = json.loads(evidence.json_bytes.tobytes())
    assert reason["reason"] == "rule"
    assert [tuple(term.values()) for term in reason["terms"]] == expected
    assert all(list(term) == ["feature", "value", "op", "threshold"] for term in reason["terms"])


def test_rows_are_those_of_all_inputs() -> None:
    _, inputs = terms_and_inputs("lat > 0 and lon > 0 and dwell_ms > 0")
    (term,) = terms_of(parse_rule("lon > 3", FEATURES).condition, inputs)
    assert term == Term("lon", ">", 3.0, (("lon", 1),))


def test_long_words_fit_beside_short_digits() -> None:
    long = "x" * 500
    terms, _ = terms_and_inputs(f"channel != '{long}'")
    writer = EvidenceWriter([("rule", terms)], [])
    evidence = writer.build(np.ones((40, 1), np.uint8), np.zeros((1, 40)), [])
    for row in range(40):
        begin, end = evidence.json_offsets[row : row + 2]
        (reason,) = json.loads(evidence.json_bytes[begin:end].tobytes())
        assert reason["terms"][0]["value"] == {"not": long}

"""Against dictionaries and the standard library's JSON, row by row."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.evidence import Evidence, EvidenceWriter, ModelScores, Term

RULES = [
    ("quick", [Term("dwell_ms", "<", 900.0, (("dwell_ms", 2),))]),
    (
        "设备共用",
        [
            Term("device_other_users", ">=", 2.5, (("device_other_users", 0),)),
            Term('attrs."odd"', "!=", "2 * lat", (('attrs."odd"', 1), ("lat", 3))),
        ],
    ),
    ("always_said", []),
    ("same twice", [Term("lat", ">", -1e300, (("lat", 3),)), Term("lat", "<", 1e300, (("lat", 3),))]),
    ("scanned", [Term("channel", "!=", 'a "qr"', (("channel", 4),), is_text=True)]),
]
MODELS = [("anomaly", ["dwell_ms", "lat"]), ("other", ["device_other_users"])]
SPECIAL = [0.0, -0.0, 3.0, -7.0, 0.1, 1e-7, 2.0**53, -(2.0**53), 1e16, 123456.75, math.nan, 10.0, 100.0, 0.5]


def batch(rows: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float64], list[ModelScores]]:
    rng = np.random.default_rng(seed)
    fired = (rng.random((rows, len(RULES))) < 0.2).astype(np.uint8)
    values = rng.choice(SPECIAL, (5, rows))
    values[4] = rng.choice([0.0, 1.0, math.nan], rows)
    models = []
    for _, features in MODELS:
        strength = rng.choice([0.0, 0.0, 0.25, 1.0, math.nan], rows)
        models.append(ModelScores(rng.random(rows), strength, rng.choice(SPECIAL, (len(features), rows))))
    return fired, values, models


def shown(value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() and abs(value) <= 2**53 else value


def value_of(term: Term, values: NDArray[np.float64], row: int) -> object:
    named = {name: shown(float(values[index, row])) for name, index in term.inputs}
    if term.is_text:
        equals = named[term.feature]
        return None if equals is None else term.threshold if equals else {"not": term.threshold}
    return named[term.feature] if list(named) == [term.feature] else named


def expected_reasons(
    fired: NDArray[np.uint8], values: NDArray[np.float64], models: list[ModelScores], row: int
) -> list[dict[str, object]]:
    reasons: list[dict[str, object]] = []
    for rule, (name, terms) in enumerate(RULES):
        if fired[row, rule]:
            told = [
                {
                    "feature": term.feature,
                    "value": value_of(term, values, row),
                    "op": term.operator,
                    "threshold": term.threshold,
                }
                for term in terms
            ]
            reasons.append({"reason": name, "terms": told})
    for (name, features), model in zip(MODELS, models, strict=True):
        if model.strength[row] > 0:
            reasons.append(
                {
                    "reason": f"model:{name}",
                    "raw": float(model.raw[row]),
                    "strength": shown(float(model.strength[row])),
                    "inputs": dict(zip(features, map(shown, model.x[:, row].tolist()), strict=True)),
                }
            )
    return reasons


def text_of(evidence: Evidence, row: int) -> str:
    begin, end = evidence.json_offsets[row : row + 2]
    return evidence.json_bytes[begin:end].tobytes().decode()


def test_reasons_and_json_equal_plain_python() -> None:
    fired, values, models = batch(3000)
    writer = EvidenceWriter(RULES, MODELS)
    evidence = writer.build(fired, values, models)
    assert writer.reason_names == (
        "quick", "设备共用", "always_said", "same twice", "scanned", "model:anomaly", "model:other",
    )  # fmt: skip
    unflagged = 0
    for row in range(3000):
        expected = expected_reasons(fired, values, models, row)
        begin, end = evidence.reason_offsets[row : row + 2]
        names = [writer.reason_names[code] for code in evidence.reason_codes[begin:end]]
        assert names == [reason["reason"] for reason in expected]
        text = text_of(evidence, row)
        if expected:
            assert json.loads(text) == expected
        else:
            assert not text
            unflagged += 1
    assert 0 < unflagged < 3000
    assert evidence.json_offsets[-1] == evidence.json_bytes.size
    assert evidence.reason_offsets[-1] == evidence.reason_codes.size


def test_whole_numbers_have_no_point_and_null_is_null() -> None:
    terms = [("a", ">=", 2.0), ("b", "<", 0.5), ("c", "==", 7)]
    told = [Term(name, symbol, limit, ((name, row),)) for row, (name, symbol, limit) in enumerate(terms)]
    writer = EvidenceWriter([("r", told)], [])
    evidence = writer.build(np.ones((1, 1), np.uint8), np.array([[3.0], [math.nan], [-0.0]]), [])
    assert text_of(evidence, 0) == (
        '[{"reason":"r","terms":['
        '{"feature":"a","value":3,"op":">=","threshold":2},'
        '{"feature":"b","value":null,"op":"<","threshold":0.5},'
        '{"feature":"c","value":0,"op":"==","threshold":7}]}]'
    )


def test_any_cut_gives_the_same_text() -> None:
    fired, values, models = batch(200, seed=3)
    writer = EvidenceWriter(RULES, MODELS)
    whole = writer.build(fired, values, models)
    for row in range(200):
        one = slice(row, row + 1)
        alone = writer.build(
            fired[one],
            values[:, one].copy(),
            [ModelScores(m.raw[one].copy(), m.strength[one].copy(), m.x[:, one].copy()) for m in models],
        )
        assert text_of(alone, 0) == text_of(whole, row)


def test_nothing_flagged_and_no_rows() -> None:
    writer = EvidenceWriter(RULES, [])
    for rows in (0, 5):
        evidence = writer.build(np.zeros((rows, len(RULES)), np.uint8), np.zeros((5, rows)), [])
        assert evidence.reason_offsets.tolist() == evidence.json_offsets.tolist() == [0] * (rows + 1)
        assert evidence.reason_codes.size == evidence.json_bytes.size == 0


def test_no_rules_and_no_models() -> None:
    evidence = EvidenceWriter([], []).build(np.empty((3, 0), np.uint8), np.empty((0, 3)), [])
    assert evidence.reason_offsets.tolist() == [0, 0, 0, 0]


def test_arrays_that_do_not_fit_are_refused() -> None:
    fired, values, models = batch(5)
    writer = EvidenceWriter(RULES, MODELS)
    with pytest.raises(ValueError, match="expected fired of 5 lists and rules"):
        writer.build(fired[:, :2].copy(), values, models)
    with pytest.raises(ValueError, match="5 values a row"):
        writer.build(fired, values[:2].copy(), models)
    with pytest.raises(ValueError, match="expected models"):
        writer.build(fired, values, models[:1])

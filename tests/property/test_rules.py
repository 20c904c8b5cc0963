"""Random rules: the machine against Python's own arithmetic on its own syntax tree, and against its cut."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.rules import RuleProgram, compile_rules
from schemas.config import Config, Feature, Rule
from schemas.rule_grammar import parse_rule
from schemas.rule_logic import Range, always_holds, can_hold, holds_when_known
from schemas.rule_tree import Input, InputKind, inputs_of

FEATURES = ("a", "b", "c")
CONFIG_FEATURES = {name: Feature(entity="ip", count=name) for name in FEATURES}
EVENTS = ("click", "redeem", "signup")
TEXTS = ("x", "y")
Event = Mapping[str, float | str | None]

_names = st.sampled_from([*FEATURES, "dwell_ms", "attrs.n"])
_numbers = st.one_of(
    st.integers(-3, 3).map(str),
    st.sampled_from(["0.1", "1e300", "0.3", "5e-324"]),
    st.floats(0, 10).map(repr),
)


def _binary(symbols: list[str]) -> Callable[[st.SearchStrategy[str]], st.SearchStrategy[str]]:
    return lambda inner: st.tuples(inner, st.sampled_from(symbols), inner).map(" ".join).map("({})".format)


_quantities = st.recursive(
    _names | _numbers,
    lambda inner: _binary(["+", "-", "*", "/"])(inner) | inner.map("(-{})".format),
    max_leaves=4,
)
_symbols = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
_comparisons = st.one_of(
    st.tuples(_quantities, _symbols, _quantities).map(" ".join),
    st.tuples(_names, _symbols, _numbers).map(" ".join),
    st.tuples(_quantities, _symbols, _quantities, _symbols, _quantities).map(" ".join),
    st.tuples(_names, st.sampled_from(["in (1, 2)", "not in (0, -1, 0.3)"])).map(" ".join),
    st.sampled_from(
        [
            'channel == "x"',
            '"y" != channel',
            'channel in ("x", "y")',
            'attrs.t not in ("x",)',
            'attrs.t == "y"',
        ]
    ),
)
_conditions = st.recursive(
    _comparisons,
    lambda inner: _binary(["and", "or"])(inner) | inner.map("(not {})".format),
    max_leaves=6,
)
_values = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 2.0, -1.0, 0.1, 0.3, 1e300, 5e-324])
_text_values = st.sampled_from([None, "x", "y", "z"])
_events = st.fixed_dictionaries(
    {
        **dict.fromkeys([*FEATURES, "dwell_ms", "attrs.n"], _values),
        "channel": _text_values,
        "attrs.t": _text_values,
        "event": st.sampled_from(["click", "redeem", "signup", "other"]),
    }
)

_PYTHON = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
}  # fmt: skip


def oracle(node: ast.expr, event: Event, *, negated: bool = False) -> bool:
    """Whether a condition holds, told from Python's tree and not from ours."""
    if isinstance(node, ast.UnaryOp):
        return oracle(node.operand, event, negated=not negated)
    if isinstance(node, ast.BoolOp):
        results = [oracle(value, event, negated=negated) for value in node.values]
        return all(results) if isinstance(node.op, ast.And) is not negated else any(results)
    assert isinstance(node, ast.Compare)
    sides = [node.left, *node.comparators]
    results = [_literal(sides[i], op, sides[i + 1], event, negated=negated) for i, op in enumerate(node.ops)]
    return any(results) if negated else all(results)


def _literal(left: ast.expr, op: ast.cmpop, right: ast.expr, event: Event, *, negated: bool) -> bool:
    found = _value(left, event)
    if isinstance(op, ast.In | ast.NotIn):
        assert isinstance(right, ast.Tuple)
        known = not _is_null(found)
        return known and (found in [_value(choice, event) for choice in right.elts]) is (
            isinstance(op, ast.In) is not negated
        )
    against = _value(right, event)
    if _is_null(found) or _is_null(against):
        return False
    return bool(_PYTHON[type(op)](found, against)) is not negated


def _is_null(value: float | str | None) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _value(node: ast.expr, event: Event) -> float | str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name | ast.Attribute):
        return event[ast.unparse(node)]
    if isinstance(node, ast.UnaryOp):
        operand = _value(node.operand, event)
        assert isinstance(operand, float)
        return -operand
    assert isinstance(node, ast.BinOp)
    left, right = _value(node.left, event), _value(node.right, event)
    assert isinstance(left, float)
    assert isinstance(right, float)
    if isinstance(node.op, ast.Div):
        return math.nan if right == 0 else left / right
    return float(_PYTHON[type(node.op)](left, right))


def compiled(rules: list[tuple[str, tuple[str, ...] | None]]) -> RuleProgram:
    return compile_rules(
        Config(
            features=CONFIG_FEATURES,
            rules={f"r{i}": Rule(when=when, applies_to=applies) for i, (when, applies) in enumerate(rules)},
        )
    )


def read(used: Input, event: Event) -> float:
    value = event[used.name]
    if used.kind is InputKind.TEXT:
        return math.nan if value is None else float(value == used.literal)
    assert isinstance(value, float)
    return value


def columns(program: RuleProgram, events: list[Event]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([[read(used, event) for event in events] for used in program.inputs], np.float64)
    index = program.name_index
    names = np.array([index.get(str(event["event"]), -1) for event in events], np.int32)
    return values.reshape(len(program.inputs), len(events)), names


_applies = st.none() | st.lists(st.sampled_from(EVENTS), min_size=1, unique=True).map(tuple)
_rule_sets = st.lists(st.tuples(_conditions, _applies), min_size=1, max_size=6)


@settings(max_examples=300)
@given(_rule_sets, st.lists(_events, min_size=1, max_size=12))
def test_the_machine_agrees_with_python(
    rules: list[tuple[str, tuple[str, ...] | None]], events: list[Event]
) -> None:
    program = compiled(rules)
    fired = program.fired(*columns(program, events))
    for row, event in enumerate(events):
        for column, (when, applies) in enumerate(rules):
            applied = applies is None or event["event"] in applies
            expected = applied and oracle(ast.parse(when, mode="eval").body, event)
            assert fired[row, column] == expected, (when, event)


@settings(max_examples=50)
@given(_rule_sets, st.lists(_events, min_size=2, max_size=40), st.data())
def test_any_cut_and_any_neighbours_give_the_same(
    rules: list[tuple[str, tuple[str, ...] | None]], events: list[Event], data: st.DataObject
) -> None:
    program = compiled(rules)
    events *= data.draw(st.sampled_from([1, 20]))  # beyond one lane, too
    values, names = columns(program, events)
    whole = program.fired(values, names)
    cut = data.draw(st.integers(0, len(events)))
    parts = [program.fired(values[:, part].copy(), names[part]) for part in (slice(cut), slice(cut, None))]
    assert np.array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(cut).permutation(len(events))
    assert np.array_equal(program.fired(np.ascontiguousarray(values[:, order]), names[order]), whole[order])


@given(_conditions)
def test_the_text_of_a_rule_means_the_same_and_is_stable(when: str) -> None:
    parsed = parse_rule(when, FEATURES)
    again = parse_rule(parsed.text, FEATURES)
    # repr, because a NaN constant (1 / 0) is not equal to itself.
    assert repr(again.condition) == repr(parsed.condition)
    assert again.text == parsed.text


@settings(max_examples=300)
@given(_conditions, st.lists(_events, min_size=1, max_size=30))
def test_what_is_called_never_or_always_is_so(when: str, events: list[Event]) -> None:
    condition = parse_rule(when, FEATURES).condition
    held = [oracle(ast.parse(when, mode="eval").body, event) for event in events]
    if not can_hold(condition, {}):
        assert not any(held)
    if always_holds(condition):
        assert all(held)
    if holds_when_known(condition, {}):
        finite = [all(math.isfinite(read(used, event)) for used in inputs_of(condition)) for event in events]
        simple = not any(symbol in when for symbol in "+-*/")
        assert all(truth for truth, known in zip(held, finite, strict=True) if known and simple)


@given(st.lists(st.tuples(_symbols, st.integers(-3, 3)), min_size=1, max_size=5))
def test_a_chain_of_thresholds_is_seen_through_exactly(thresholds: list[tuple[str, int]]) -> None:
    when = " and ".join(f"a {symbol} {value}" for symbol, value in thresholds)
    tried = [value / 2 for value in range(-8, 9)]
    possible = any(oracle(ast.parse(when, mode="eval").body, {"a": value}) for value in tried)
    assert can_hold(parse_rule(when, FEATURES).condition, {}) is possible
    counts = {Input(InputKind.FEATURE, "a"): Range(low=0.0)}
    possible = any(oracle(ast.parse(when, mode="eval").body, {"a": value}) for value in tried if value >= 0)
    assert can_hold(parse_rule(when, FEATURES).condition, counts) is possible

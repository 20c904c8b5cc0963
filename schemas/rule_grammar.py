"""The language of a rule's ``when``: Python's expression syntax, of which a short list is let through.

Nothing is ever evaluated as Python. ``ast`` only splits the text into nodes; each node that is not on the
list is refused with its place, and the rest becomes a :mod:`schemas.rule_tree`. Allowed are names of features
and numeric fields, ``attrs.<name>``, numbers, ``+ - * /``, comparisons (also chained), ``in`` a list of
values, ``and``, ``or``, ``not`` and parentheses; a string field may be compared with strings by ``==``,
``!=``, ``in`` and ``not in``.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from schemas.config_blocks import NUMERIC_FIELDS, TEXT_FIELDS
from schemas.config_findings import one_of, show
from schemas.rule_tree import (
    MIRRORED,
    Arithmetic,
    Comparison,
    Condition,
    Every,
    Input,
    InputKind,
    Number,
    Quantity,
    Some,
    calculate,
    opposite,
)

MAX_LENGTH: Final = 2_000
MAX_DEPTH: Final = 50
ALLOWED: Final = (
    "features, numeric fields, attrs.<name>, numbers, + - * /, comparisons, and, or, not, parentheses, "
    "and string fields compared with texts"
)

_ARITHMETIC: Final = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS: Final = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in",
}  # fmt: skip
_MEMBERSHIP: Final = {"in": "==", "not in": "!="}


class RuleTextError(ValueError):
    """A condition is not in the language; says what was found, where, and what would do."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}; expected {expected}")
        self.found, self.expected = found, expected


@dataclass(frozen=True, slots=True)
class ParsedRule:
    """A condition that is in the language."""

    condition: Condition
    text: str
    """The condition on one line, without comments and needless parentheses."""


def parse_rule(text: str, features: Collection[str]) -> ParsedRule:
    """Parse a condition.

    Parameters
    ----------
    text
        The condition; it may span lines.
    features
        Names of the features there are.

    Raises
    ------
    RuleTextError
        At the first thing that is not in the language, or a name that does not exist.

    Examples
    --------
    >>> parse_rule("not (dwell_ms < 500 or attrs.age in (1, 2))", []).text
    'not (dwell_ms < 500 or attrs.age in (1, 2))'
    """
    if len(text) > MAX_LENGTH:
        raise RuleTextError(f"{len(text):,} characters", f"at most {MAX_LENGTH:,}")
    body = _parse_python(text)
    _refuse_depth(body)
    return ParsedRule(_Parser(features).condition(body), ast.unparse(body))


def _parse_python(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            # Python merely warns of `1and 2` and of unknown escapes; neither is meant to be what it is read
            # as.
            warnings.simplefilter("error")
            # The parentheses let it span lines; the line break keeps a comment from swallowing the closing
            # one.
            return ast.parse(f"({text}\n)", mode="eval").body
    except SyntaxError as error:
        line, column = error.lineno or 1, error.offset or 1
        place = f"line {line}, column {max(1, column - 1 if line == 1 else column)}"
        raise RuleTextError(f"{show(text)}, which is no expression at {place}", ALLOWED) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise RuleTextError(f"{show(text)}, which cannot be parsed", ALLOWED) from error


def _refuse_depth(body: ast.expr) -> None:
    """Look level by level, so that nothing here or below recurses deeper than MAX_DEPTH."""
    level: list[ast.AST] = [body]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise RuleTextError("deeper nesting", f"at most {MAX_DEPTH} levels")


class _Parser:
    """Turns nodes into a rule tree; recursion is bounded by the depth that was checked before."""

    def __init__(self, features: Collection[str]) -> None:
        self._features = features

    def condition(self, node: ast.expr) -> Condition:
        """Read what is true or false."""
        match node:
            case ast.BoolOp(op=operator, values=values):
                parts = tuple(self.condition(value) for value in values)
                return Every(parts) if isinstance(operator, ast.And) else Some(parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return opposite(self.condition(operand))
            case ast.Compare(left=left, ops=operators, comparators=comparators):
                sides = [left, *comparators]
                parts = tuple(
                    self._comparison(sides[i], operator, sides[i + 1]) for i, operator in enumerate(operators)
                )
                return parts[0] if len(parts) == 1 else Every(parts)
        raise _refused(node, "a comparison, such as dwell_ms < 500")

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Condition:
        symbol = _COMPARISONS.get(type(operator))
        if symbol is None:
            raise _refused(left, "one of < <= > >= == != in, not in")
        if symbol not in _MEMBERSHIP:
            return self._pair(left, symbol, right)
        choices = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else [right]
        if not choices or not all(_is_literal(choice) for choice in choices):
            raise _refused(right, 'a list of values, such as ("web", "app")')
        parts = tuple(self._pair(left, _MEMBERSHIP[symbol], choice) for choice in choices)
        if len(parts) == 1:
            return parts[0]
        return Some(parts) if symbol == "in" else Every(parts)

    def _pair(self, left: ast.expr, symbol: str, right: ast.expr) -> Comparison:
        if _is_text(left) and not _is_text(right):
            left, symbol, right = right, MIRRORED[symbol], left
        if _is_text(right):
            return self._text_pair(left, symbol, right)
        return Comparison(symbol, self.quantity(left), self.quantity(right))

    def _text_pair(self, field: ast.expr, symbol: str, literal: ast.expr) -> Comparison:
        name = _attribute(field) or (
            field.id if isinstance(field, ast.Name) and field.id in TEXT_FIELDS else None
        )
        if name is None:
            raise _refused(field, f"a string field beside a text: attrs.<name> or {one_of(TEXT_FIELDS)}")
        if symbol not in ("==", "!="):
            raise _refused(literal, f"a number beside {symbol}; texts are compared by ==, !=, in and not in")
        text = literal.value if isinstance(literal, ast.Constant) else None
        if not isinstance(text, str) or not text:
            raise _refused(
                literal, "a text that is not empty (an empty field is null, and null equals nothing)"
            )
        return Comparison(symbol, Input(InputKind.TEXT, name, text), Number(1.0))

    def quantity(self, node: ast.expr) -> Quantity:
        """Read what is a number or null."""
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return _number(node, value)
            case ast.Name(id=name):
                return self._named(node, name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _folded("*", Number(-1.0), self.quantity(operand))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
                return _folded(_ARITHMETIC[type(operator)], self.quantity(left), self.quantity(right))
        if attribute := _attribute(node):
            return Input(InputKind.ATTRIBUTE, attribute)
        raise _refused(node, ALLOWED)

    def _named(self, node: ast.expr, name: str) -> Input:
        if name in self._features:
            return Input(InputKind.FEATURE, name)
        if name in NUMERIC_FIELDS:
            return Input(InputKind.FIELD, name)
        if name in TEXT_FIELDS:
            raise _refused(node, f'a number here; {name} is a string field, compare it as in {name} == "x"')
        raise _refused(node, one_of([*self._features, *NUMERIC_FIELDS, "attrs.<name>"], found=name))


def _folded(operator: str, left: Quantity, right: Quantity) -> Quantity:
    if operator == "/" and right == Number(0.0):
        return Number(math.nan)
    if isinstance(left, Number) and isinstance(right, Number):
        return Number(calculate(operator, left.value, right.value))
    return Arithmetic(operator, left, right)


def _number(node: ast.expr, value: float) -> Number:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _refused(node, "a number that fits 64 bits")
    return Number(number)


def _attribute(node: ast.expr) -> str | None:
    match node:
        case ast.Attribute(value=ast.Name(id="attrs"), attr=name):
            return f"attrs.{name}"
    return None


def _is_text(node: ast.expr) -> bool:
    """Whether it is a text in quotes."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant)


def _refused(node: ast.expr, expected: str) -> RuleTextError:
    line, column = node.lineno, node.col_offset + (node.lineno > 1)
    return RuleTextError(f"{show(ast.unparse(node))} at line {line}, column {column}", expected)

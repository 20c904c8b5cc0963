"""Which conditions can hold at all."""

from __future__ import annotations

import pytest

from schemas.rule_grammar import parse_rule
from schemas.rule_logic import Range, always_holds, can_hold, holds_when_known
from schemas.rule_tree import Input, InputKind

RANGES = {Input(InputKind.FEATURE, "count"): Range(low=0.0)}


@pytest.mark.parametrize(
    "text",
    [
        "x < 1 and x > 2",
        "x < 1 and x > 1",
        "x < 1 and x >= 1",
        "x <= 1 and x >= 1 and x != 1",
        "x == 1 and x == 2",
        "1 > x > 2",
        "x > 1 and (y > 2 and (x < 0 and y < 5))",
        "x > 1 and (x < 1 or x == 0 or y > 1 and y < 1)",
        "count < 0",
        "count == -1",
        "count + 0 > 1 and 2 < 1",
        "not (1 < 2)",
        "x > 0 / 0",
        "not x > 0 / 0",
        "channel == 'a' and channel in ('b', 'c')",
        "channel == 'a' and channel != 'a'",
        "channel == 'a' and not channel in ('a', 'b')",
    ],
)
def test_never(text: str) -> None:
    assert not can_hold(parse_rule(text, ("x", "y", "count")).condition, RANGES)


@pytest.mark.parametrize(
    "text",
    [
        "x < 1 or x > 2",
        "x <= 1 and x >= 1",
        "x < 2 and y > 3",
        "x > 1 and (x < 1 or x == 5)",
        "count <= 0",
        "x < y and y < x",  # not seen through
        "channel == 'a' or channel == 'b'",
        "channel != 'a' and channel != 'b'",
        "channel == 'a' and page == 'b'",
        "x > 1 or 2 < 1",
        "x != 1 and x != 2",
    ],
)
def test_perhaps(text: str) -> None:
    condition = parse_rule(text, ("x", "y", "count")).condition
    assert can_hold(condition, RANGES)
    assert not always_holds(condition)


def test_what_holds_for_whatever_is_known() -> None:
    for text in (
        "count >= 0",
        "x < 1 or x >= 1",
        "not (x > 1 and x < 1)",
        "channel == 'a' or channel != 'a'",
    ):
        condition = parse_rule(text, ("x", "y", "count")).condition
        assert holds_when_known(condition, RANGES), text
        assert not always_holds(condition), text
    assert not holds_when_known(parse_rule("count > 0", ("count",)).condition, RANGES)
    assert always_holds(parse_rule("1 < 2 or count > 1", ("count",)).condition)

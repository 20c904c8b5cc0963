"""The language of rules: what is let through, what it becomes, and all that is refused."""

from __future__ import annotations

import math

import pytest

from schemas.rule_grammar import MAX_DEPTH, MAX_LENGTH, RuleTextError, parse_rule
from schemas.rule_tree import (
    Arithmetic,
    Comparison,
    Every,
    Input,
    InputKind,
    Number,
    Some,
    holds,
    inputs_of,
)

FEATURES = ("users", "ips")
USERS, DWELL = Input(InputKind.FEATURE, "users"), Input(InputKind.FIELD, "dwell_ms")
SPEED = Input(InputKind.ATTRIBUTE, "attrs.speed")


def is_text(name: str, literal: str, symbol: str = "==") -> Comparison:
    return Comparison(symbol, Input(InputKind.TEXT, name, literal), Number(1.0))


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("users >= 2", Comparison(">=", USERS, Number(2.0))),
        ("not users >= 2", Comparison("<", USERS, Number(2.0))),
        ("not not users >= 2", Comparison(">=", USERS, Number(2.0))),
        ("not users == 2", Comparison("!=", USERS, Number(2.0))),
        ("users > 24 * 60 - -1", Comparison(">", USERS, Number(1441.0))),
        ("users > 1 / 0", Comparison(">", USERS, Number(math.nan))),
        (
            "0 < users <= 5",
            Every((Comparison("<", Number(0.0), USERS), Comparison("<=", USERS, Number(5.0)))),
        ),
        (
            "not 0 < users <= 5",
            Some((Comparison(">=", Number(0.0), USERS), Comparison(">", USERS, Number(5.0)))),
        ),
        (
            "not (users < 1 or dwell_ms < 2 and attrs.speed < 3)",
            Every(
                (
                    Comparison(">=", USERS, Number(1.0)),
                    Some((Comparison(">=", DWELL, Number(2.0)), Comparison(">=", SPEED, Number(3.0)))),
                )
            ),
        ),
        ("-users < 1", Comparison("<", Arithmetic("*", Number(-1.0), USERS), Number(1.0))),
        (
            "users in (1, -2)",
            Some((Comparison("==", USERS, Number(1.0)), Comparison("==", USERS, Number(-2.0)))),
        ),
        ("users not in [1]", Comparison("!=", USERS, Number(1.0))),
        ("attrs.rooted == True", Comparison("==", Input(InputKind.ATTRIBUTE, "attrs.rooted"), Number(1.0))),
        ("channel == 'web'", is_text("channel", "web")),
        ('"web" != channel', is_text("channel", "web", "!=")),
        ("attrs.os == 'a b'", is_text("attrs.os", "a b")),
        ("channel in ('a', 'b')", Some((is_text("channel", "a"), is_text("channel", "b")))),
        ("channel in ('a')", is_text("channel", "a")),
        ("channel not in {'a', 'b'}", Every((is_text("channel", "a", "!="), is_text("channel", "b", "!=")))),
        ("not channel in ('a', 'b')", Every((is_text("channel", "a", "!="), is_text("channel", "b", "!=")))),
        ("page == '/#top' # the anchor", is_text("page", "/#top")),
        ("users >= 2 # a > b)", Comparison(">=", USERS, Number(2.0))),
        ("\n  users\n>=\n2\n", Comparison(">=", USERS, Number(2.0))),
    ],
)
def test_what_is_let_through_becomes_this(text: str, condition: object) -> None:
    # repr, because NaN is not equal to itself.
    assert repr(parse_rule(text, FEATURES).condition) == repr(condition)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x') > 1",
        "().__class__.__bases__[0] == 1",
        "users.__class__ == 1",
        "(lambda: 1)() > 0",
        "[x for x in (1, 2)] == users",
        "{'a': 1} == users",
        "users[0] > 1",
        "users ** 2 > 1",
        "users // 2 > 1",
        "users % 2 > 1",
        "users & 1 == 1",
        "~users > 1",
        "+users > 1",
        "users @ users > 1",
        "(users := 5) > 1",
        "users if users > 1 else 2",
        "f'{users}' == channel",
        "b'web' == channel",
        "users is 1",
        "users is not None",
        "None < users",
        "await users > 1",
        "(yield) > 1",
        "*users, 1",
        "users > 1j",
        "users > ...",
        "users > 1e999",
        f"users > 1{'0' * 400}",
        "users",
        "not users",
        "users > 1 and ips",
        "True",
        "(users > 1) + 1 > 1",
        "(users > 1) == 1",
        "channel",
        "channel > 'a'",
        "channel == campaign",
        "channel == 1",
        "channel == ''",
        "channel + 'a' == 'b'",
        "'a' == 'a'",
        "users == 'a'",
        "device_id == 'a'",
        "user_id == 'a'",
        "ts > 1",
        "label == 1",
        "nobody > 1",
        "attrs > 1",
        "attrs.a.b > 1",
        "attrs['a'] > 1",
        "other.a > 1",
        "channel in ()",
        "channel in campaign",
        "channel in ('a', users)",
        "users in (1, ips)",
        "channel in ('a', 1)",
        "users in ('a',)",
        "1and users > 1",
        "users > 0777",
        "channel == '\\d'",
        "users >",
        "users > 1; ips > 1",
        "users = 1",
        "",
        "   ",
        "# nothing",
        "users > <threshold>",
        "users > 1\x00",
        "users > 1) or (ips > \ud800",
        "(" * 900 + "users > 1" + ")" * 900,
        "not " * 400 + "users > 1",
        "-" * 1900 + "users > 1",
        "users > " + "1 + " * 400 + "1",
        "users > 1 " * 201,
    ],
)
def test_everything_else_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(RuleTextError) as refused:
        parse_rule(text, FEATURES)
    assert refused.value.found
    assert refused.value.expected
    assert len(refused.value.found) < 200


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("userz > 1", '"userz" at line 1, column 1'),
        ("users > 1 and userz > 1", '"userz" at line 1, column 15'),
        ("users > 1 and\n  userz > 1", '"userz" at line 2, column 3'),
        ("users > > 1", "line 1, column 9"),
    ],
)
def test_the_place_is_that_in_the_text(text: str, place: str) -> None:
    with pytest.raises(RuleTextError) as refused:
        parse_rule(text, FEATURES)
    assert place in refused.value.found


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(RuleTextError, match="did you mean users"):
        parse_rule("userz > 1", FEATURES)


def test_long_and_deep_is_refused_and_what_lies_just_within_is_not() -> None:
    wide = " or ".join(["users>1"] * 180)
    assert len(wide) <= MAX_LENGTH
    assert len(list(inputs_of(parse_rule(wide, FEATURES).condition))) == 180
    deep = "users > " + "1 + " * (MAX_DEPTH - 5) + "ips"
    assert parse_rule(deep, FEATURES).text == deep
    with pytest.raises(RuleTextError, match="2,000"):
        parse_rule("users > 1" + " " * MAX_LENGTH, FEATURES)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 3.0])
def test_nothing_holds_of_null_whether_negated_or_not(value: float) -> None:
    for text in (
        "users < 3",
        "users == 3",
        "users != 3",
        "users - users == 0",
        "users / 0 == 1",
        "users in (3, 4)",
    ):
        for written in (text, f"not ({text})"):
            held = holds(parse_rule(written, FEATURES).condition, lambda _: value)
            null = math.isnan(value) or "/ 0" in text or ("- users" in text and math.isinf(value))
            assert not (null and held), (written, value)
        if not null:
            both = [
                holds(parse_rule(t, FEATURES).condition, lambda _: value) for t in (text, f"not ({text})")
            ]
            assert sorted(both) == [False, True], (text, value)

"""Which definitions begin to count when the config changes."""

from __future__ import annotations

import pytest

from schemas.config import Config, parse_config
from streams.config_change import starting_empty

BEFORE = """
features:
  seen: {entity: user_id, count: view}
  age: {field: attrs.age}
rules: {many: {when: seen > 3, weight: 0.5}}
models: {odd: {kind: half_space_trees, trees: 5, features: [seen], weight: 0.2}}
funnels: {buy: {steps: [view, purchase], within: 1h}}
dau: {by: [channel]}
retention: {days: 7}
"""


def config_of(text: str) -> Config:
    return parse_config({"all.yaml": text.encode()})[0]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("weight: 0.5", "weight: 0.7", []),
        ("weight: 0.2", "weight: 0.3", []),
        ("seen > 3", "seen > 4", []),
        ("{field: attrs.age}", "{field: attrs.years}", []),
        ("{entity: user_id, count: view}", "{entity: device_id, count: view}", ["feature seen"]),
        ("{entity: user_id, count: view}", "{entity: user_id, count: view, window: 1h}", ["feature seen"]),
        ("trees: 5", "trees: 6", ["model odd"]),
        ("within: 1h", "within: 2h", ["funnel buy"]),
        ("by: [channel]", "by: [channel, platform]", ["dau by platform"]),
        ("dau: {by: [channel]}", "", []),
        ("days: 7", "days: 8", ["retention"]),
        ("retention: {days: 7}", "", []),
    ],
)
def test_what_is_defined_otherwise_starts_empty(old: str, new: str, named: list[str]) -> None:
    assert old in BEFORE
    assert starting_empty(config_of(BEFORE), config_of(BEFORE.replace(old, new))) == named


def test_a_feature_of_another_name_is_the_same_feature() -> None:
    renamed = config_of("features: {viewed: {entity: user_id, count: view}}")
    assert starting_empty(config_of(BEFORE), renamed) == []

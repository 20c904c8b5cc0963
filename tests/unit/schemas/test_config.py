"""A config that is right: what it decodes to, what its hash stands for, and that it can be kept."""

from __future__ import annotations

import msgspec
import pytest

from schemas.config import Config, Feature, HalfSpaceTrees, RiverModel, config_from_json, parse_config
from schemas.errors import StateError

# As CONTRACT section 4 has it, word for word.
DETECTORS = """\
features:
  device_other_users:     {entity: device_id, distinct: user_id, exclude: self}                # since first seen
  device_other_users_24h: {entity: device_id, distinct: user_id, exclude: self, window: 24h}
  ip_other_users:         {entity: ip, distinct: user_id, exclude: self}
  ip24_participations_1h: {entity: ip_prefix_24, count: participate, window: 1h}
  since_signup_s:         {entity: user_id, since: signup}                                     # seconds since
lists:                                                                         # CSV with header value,reason,...
  known_farms:   {kind: black, entity: device_id, file: lists/devices.csv}
  vpn_ranges:    {kind: grey,  entity: ip,        file: lists/cidr.csv, weight: 0.3}   # addresses and CIDR
  bad_segments:  {kind: black, entity: phone,     file: lists/phones.csv}      # prefixes, longest wins
rules:
  shared_device:
    when: device_other_users_24h >= 2
    applies_to: [participate, redeem]
    weight: 0.5
    reason_zh: 同一设备 24 小时内出现多个账号
    reason_en: several accounts on one device within 24 hours
  instant_participation:
    when: dwell_ms < 60000 and since_signup_s < 60
    weight: 0.6
models:
  anomaly:  {kind: half_space_trees, trees: 25, height: 8, features: [device_other_users, ip_other_users, dwell_ms],
             weight: 0.3}
  labelled: {kind: river, class: linear_model.LogisticRegression, scale: true,
             features: [device_other_users, ip_other_users, dwell_ms], learns: labels, weight: 0.6}
levels: {observe: 0.3, review: 0.6, block: 0.85}
"""
METRICS = """\
funnels:
  purchase: {steps: [product_view, add_to_cart, purchase], within: 24h, by: [channel, platform], windows: [all, 1d]}
dau: {by: [channel, platform]}      # `dau: {}` is the total alone
kpi_alerts:
  checkout_drop: {metric: "funnel.purchase.rate(2, 3)", window: 10m, below: 0.25, for: 3}
  odd_traffic:   {metric: events.click.count, by: channel, window: 5m, anomaly: true, sensitivity: 0.99}
"""


def read(text: str) -> Config:
    return parse_config({"a.yaml": text.encode()})[0]


@pytest.fixture(scope="module")
def sample() -> Config:
    return parse_config({"detectors.yaml": DETECTORS.encode(), "metrics.yaml": METRICS.encode()})[0]


def test_the_sample_of_the_contract_decodes_as_written(sample: Config) -> None:
    assert sample.feature_names == (
        "device_other_users",
        "device_other_users_24h",
        "ip_other_users",
        "ip24_participations_1h",
        "since_signup_s",
    )
    day = sample.features["device_other_users_24h"]
    assert (day.kind, day.entity, day.distinct, day.exclude_self, day.window_ms) == (
        "distinct", "device_id", "user_id", True, 86_400_000,
    )  # fmt: skip
    assert sample.features["ip24_participations_1h"].window_ms == 3_600_000
    assert sample.features["since_signup_s"].kind == "since"
    assert sample.lists["vpn_ranges"].weight == 0.3
    assert sample.rules["shared_device"].applies_to == ("participate", "redeem")
    assert sample.rules["shared_device"].reason_zh == "同一设备 24 小时内出现多个账号"
    assert sample.rules["instant_participation"].applies_to is None
    anomaly, labelled = sample.models["anomaly"], sample.models["labelled"]
    assert isinstance(anomaly, HalfSpaceTrees)
    assert (anomaly.trees, anomaly.height, anomaly.weight) == (25, 8, 0.3)
    assert isinstance(labelled, RiverModel)
    assert (labelled.class_, labelled.scale, labelled.learns) == (
        "linear_model.LogisticRegression",
        True,
        "labels",
    )
    purchase = sample.funnels["purchase"]
    assert (purchase.within_ms, purchase.windows, purchase.windows_ms) == (
        86_400_000,
        ("all", "1d"),
        (None, 86_400_000),
    )
    assert purchase.order == "strict"
    assert sample.dau.by == ("channel", "platform")
    drop = sample.kpi_alerts["checkout_drop"]
    assert (drop.window_ms, drop.below, drop.for_) == (600_000, 0.25, 3)


def test_the_sample_gives_only_notices_of_what_waits_or_is_unused() -> None:
    _, notices = parse_config({"detectors.yaml": DETECTORS.encode(), "metrics.yaml": METRICS.encode()})
    assert [(notice.file, notice.path) for notice in notices] == [
        ("detectors.yaml", "$.features.ip24_participations_1h"),
        ("metrics.yaml", "$.kpi_alerts.odd_traffic.anomaly"),
    ]
    assert str(notices[0]).startswith("detectors.yaml: $.features.ip24_participations_1h: used by no rule")


def test_nothing_at_all_is_a_config_of_defaults() -> None:
    for documents in ({}, {"a.yaml": b""}, {"a.yaml": b"rules:\nlevels:\n", "b.yaml": b"# only a comment"}):
        config, notices = parse_config(documents)
        assert config == Config()
        assert notices == []
    assert (config.levels.observe, config.levels.review, config.levels.block) == (0.3, 0.6, 0.85)
    assert (config.lateness_ms, config.restate_ms) == (3_600_000, 30 * 86_400_000)
    assert config.dau.by == ()
    assert config.topics.names()["deadletters"] == "deadletters"


def test_everything_that_can_be_left_out_has_the_default_of_the_contract() -> None:
    config = read("funnels: {f: {steps: [a, b]}}\nrules: {r: {when: dwell_ms < 5}}\ncampaigns: {春节: {}}")
    assert (config.funnels["f"].by, config.funnels["f"].windows, config.funnels["f"].within_ms) == (
        (),
        ("all",),
        None,
    )
    assert config.rules["r"].weight == 0.5
    assert config.campaigns["春节"].timezone == "UTC"


def test_blocks_may_stand_in_any_file() -> None:
    whole = read(DETECTORS + METRICS)
    parts = (DETECTORS + METRICS).split("models:\n")
    split = parse_config({"z.yaml": parts[0].encode(), "a.yaml": b"models:\n" + parts[1].encode()})[0]
    assert split == whole
    assert split.hash == whole.hash


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\nrules: {r: {when: 'a >= 2', weight: 0.5}}\nfeatures: {a: {entity: ip, count: '*'}}",
        "features: {a: {count: '*', entity: ip}}\nrules:\n  r:\n    when: |\n      a\n      >= 2  # why\n",
        "features: {a: {entity: ip, count: '*', window: null}}\nrules: {r: {when: (a>=2)}}\nlevels: {}",
        "lateness: 60m\nfeatures: {a: {entity: ip, count: '*'}}\nrules: {r: {when: a >= 2}}\ndau: {by: []}",
    ],
)
def test_the_hash_is_that_of_the_meaning(same: str) -> None:
    meant = read("features: {a: {entity: ip, count: '*'}}\nrules: {r: {when: a >= 2}}")
    assert read(same).hash == meant.hash
    assert len(meant.hash) == 32
    int(meant.hash, 16)


@pytest.mark.parametrize(
    "other",
    [
        "features: {a: {field: lat}, b: {field: lon}}\nrules: {r: {when: a >= 3}}",
        "features: {b: {field: lon}, a: {field: lat}}\nrules: {r: {when: a >= 2}}",
        "features: {a: {field: lon}, b: {field: lat}}\nrules: {r: {when: a >= 2}}",
        "features: {a: {field: lat}, b: {field: lon}}\nrules: {r: {when: a >= 2}}\nlateness: 2h",
    ],
)
def test_another_meaning_has_another_hash(other: str) -> None:
    meant = read("features: {a: {field: lat}, b: {field: lon}}\nrules: {r: {when: a >= 2}}")
    assert read(other).hash != meant.hash


def test_a_config_is_kept_exactly(sample: Config) -> None:
    kept = config_from_json(sample.to_json())
    assert kept == sample
    assert kept.hash == sample.hash
    assert kept.feature_names == sample.feature_names
    assert kept.to_json() == sample.to_json()


@pytest.mark.parametrize("raw", [b"", b"{", b'{"rulez": {}}', b'{"levels": {"observe": 7}}', b"[]"])
def test_what_is_no_kept_config_is_a_state_error(raw: bytes) -> None:
    with pytest.raises(StateError, match="kept config"):
        config_from_json(raw)


def test_a_config_cannot_be_changed(sample: Config) -> None:
    with pytest.raises(AttributeError):
        sample.lateness_ms = 5  # type: ignore[misc]
    assert msgspec.structs.replace(sample, lateness_ms=5).hash != sample.hash


def test_names_used_are_gathered_from_every_corner() -> None:
    config = read("""
features:
  a: {entity: attrs.cookie, distinct: attrs.browser}
  b: {field: attrs.age}
  c: {entity: ip, count: view}
  d: {entity: ip, since: signup}
  e: {entity: ip, count: "*"}
rules:
  r:
    when: attrs.speed > 3 and attrs.os == "x" and event != "bot" or a + b + c + d + e > 1
    applies_to: [redeem, view]
models: {m: {kind: half_space_trees, features: [attrs.depth, a]}}
funnels: {f: {steps: [view, buy], by: [attrs.arm]}}
dau: {by: [attrs.region, channel]}
events: {click: {topic: participations}, strict: true}
""")
    assert config.attributes_used == ("cookie", "browser", "age", "speed", "os", "depth", "arm", "region")
    assert config.event_names_used == ("view", "signup", "redeem", "bot", "buy", "click")
    assert config.known_event_names >= {"view", "buy", "click", "refund"}
    assert "other" not in config.known_event_names


def test_topics_of_events_are_the_configs_or_those_of_the_contract() -> None:
    config = read("events: {click: {topic: participations}, purchase: {topic: clicks}, redeem: {role: use}}")
    assert config.topic_of("click") == "participations"
    assert config.topic_of("purchase") == "clicks"
    assert config.topic_of("redeem") == "participations"
    assert config.topic_of("anything") == "clicks"
    assert not config.events.strict
    assert read("events: {strict: true}").events.strict


def test_a_definition_is_the_meaning_and_not_the_name() -> None:
    config = read("""
features:
  a: {entity: ip, count: "*", window: 24h}
  b: {window: 1d, entity: ip, count: "*"}
  c: {entity: ip, count: x, window: 24h}
  d: {entity: ip, count: "*"}
  e: {entity: ip, since: x}
  f: {entity: ip, distinct: user_id}
  g: {entity: ip, distinct: user_id, exclude: self}
  h: {field: dwell_ms}
""")
    definitions = {name: feature.definition() for name, feature in config.features.items()}
    assert definitions["a"] == definitions["b"]
    assert len(set(definitions.values())) == len(definitions) - 1


def test_a_definition_never_changes_its_spelling() -> None:
    # State is stored under it: another spelling would forget what was counted.
    feature = Feature(entity="device_id", distinct="user_id", exclude="self", window_ms=86_400_000)
    assert feature.definition() == '["distinct","device_id","user_id","self",86400000]'

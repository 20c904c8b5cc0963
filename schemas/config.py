"""The risk team's config: read, checked and frozen, and kept by its hash.

``parse_config`` is pure: it takes the bytes of the files and says all that is wrong with them at once.
Reading the folder is :mod:`streams.config_files`' business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from schemas.config_blocks import (
    ATTRIBUTE_PREFIX,
    AlertChannel,
    Alerts,
    Block,
    Campaign,
    Dau,
    EventName,
    Events,
    Feature,
    Funnel,
    HalfSpaceTrees,
    KpiAlert,
    Levels,
    ListSource,
    Memory,
    Model,
    Retention,
    RiverModel,
    Rule,
    Topics,
)
from schemas.config_checks import check_feature, check_names, check_rules, notice_what_waits
from schemas.config_decode import check_codes, decode_block, decode_duration, mapping_at
from schemas.config_findings import ConfigNotice, Findings, one_of, show
from schemas.config_yaml import load_blocks
from schemas.durations import UNITS_MS
from schemas.errors import ConfigError, StateError
from schemas.events import PARTICIPATION_EVENTS, default_topic
from schemas.kpi_metric import KpiMetric, parse_kpi_metric
from schemas.rule_grammar import ParsedRule, parse_rule
from schemas.rule_tree import inputs_of

__all__ = [
    "AlertChannel",
    "Alerts",
    "Campaign",
    "Config",
    "ConfigNotice",
    "Dau",
    "EventName",
    "Events",
    "Feature",
    "Funnel",
    "HalfSpaceTrees",
    "KpiAlert",
    "Levels",
    "ListSource",
    "Memory",
    "Model",
    "Retention",
    "RiverModel",
    "Rule",
    "Topics",
    "config_from_json",
    "parse_config",
]

BlockType = TypeVar("BlockType", bound=Block)

_MODELS: Mapping[str, type[HalfSpaceTrees | RiverModel]] = {
    "half_space_trees": HalfSpaceTrees,
    "river": RiverModel,
}
_DURATIONS = ("lateness", "restate", "label_horizon")
_CODED = ("features", "lists", "rules", "models", "funnels", "kpi_alerts")
"""Blocks whose names become columns and codes."""


class Config(
    Block,
    frozen=True,
    rename={"lateness_ms": "lateness", "restate_ms": "restate", "label_horizon_ms": "label_horizon"},
):
    """The whole config; every block has a default, and entries keep the order of their file.

    Examples
    --------
    >>> config, _ = parse_config({"a.yaml": b"lateness: 2h"})
    >>> config.lateness_ms, config.restate_ms, config.levels.block
    (7200000, 2592000000, 0.85)
    """

    features: Mapping[str, Feature] = msgspec.field(default_factory=dict)
    lists: Mapping[str, ListSource] = msgspec.field(default_factory=dict)
    rules: Mapping[str, Rule] = msgspec.field(default_factory=dict)
    models: Mapping[str, Model] = msgspec.field(default_factory=dict)
    levels: Levels = Levels()
    funnels: Mapping[str, Funnel] = msgspec.field(default_factory=dict)
    dau: Dau = Dau()
    retention: Retention | None = None
    kpi_alerts: Mapping[str, KpiAlert] = msgspec.field(default_factory=dict)
    alerts: Alerts = Alerts()
    events: Events = Events()
    fields: Mapping[str, str] = msgspec.field(default_factory=dict)
    topics: Topics = Topics()
    campaigns: Mapping[str, Campaign] = msgspec.field(default_factory=dict)
    memory: Memory = Memory()
    lateness_ms: int = UNITS_MS["h"]
    restate_ms: int = 30 * UNITS_MS["d"]
    label_horizon_ms: int = 30 * UNITS_MS["d"]

    @property
    def hash(self) -> str:
        """32 hex digits that are equal for equal meaning: comments, files and ways of writing do not matter.

        The order of entries does, since scores are products taken in that order. Computed at each call.
        """
        return hashlib.sha256(self.to_json()).hexdigest()[:32]

    def to_json(self) -> bytes:
        """Write the config exactly, defaults included; :func:`config_from_json` gives it back."""
        return msgspec.json.encode(self)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Features in the order of their columns."""
        return tuple(self.features)

    @property
    def event_names_used(self) -> tuple[str, ...]:
        """Event names that anything in the config speaks of, in order of appearance."""
        features = self.features.values()
        return tuple(
            dict.fromkeys(
                [
                    *(name for f in features for name in (f.count, f.since) if name not in (None, "*")),
                    *(name for rule in self.rules.values() for name in rule.applies_to or ()),
                    *(name for rule in self.rules.values() for name in _compared_events(self.parsed(rule))),
                    *(name for funnel in self.funnels.values() for name in funnel.steps),
                    *(name for alert in self.kpi_alerts.values() for name in self.measured(alert).events),
                    *self.events.names,
                ]
            )
        )

    @property
    def attributes_used(self) -> tuple[str, ...]:
        """Names below ``attrs.`` that anything reads, in order of appearance: others need not be kept."""
        features = self.features.values()
        names = [
            *(name for f in features for name in (f.entity, f.distinct, f.field) if name is not None),
            *(source.entity for source in self.lists.values()),
            *(used.name for rule in self.rules.values() for used in inputs_of(self.parsed(rule).condition)),
            *(name for model in self.models.values() for name in model.features),
            *(name for funnel in self.funnels.values() for name in funnel.by),
            *self.dau.by,
            *(alert.by for alert in self.kpi_alerts.values() if alert.by is not None),
        ]
        prefix = ATTRIBUTE_PREFIX
        return tuple(dict.fromkeys(name.removeprefix(prefix) for name in names if name.startswith(prefix)))

    def parsed(self, rule: Rule) -> ParsedRule:
        """One of the rules, parsed; some 100 us."""
        return parse_rule(rule.when, self.features)

    def measured(self, alert: KpiAlert) -> KpiMetric:
        """What one of the KPI alerts measures."""
        return parse_kpi_metric(alert.metric, self.funnels)

    def topic_of(self, event: str) -> str:
        """``clicks`` or ``participations``: where events of this name belong (a role, not Kafka's name)."""
        named = self.events.names.get(event)
        return named.topic if named is not None and named.topic is not None else default_topic(event)

    @property
    def known_event_names(self) -> frozenset[str]:
        """Names listed anywhere; another is reported once, and rejected only if ``events.strict``."""
        return PARTICIPATION_EVENTS.union(self.event_names_used)


def _compared_events(parsed: ParsedRule) -> list[str]:
    return [
        used.literal
        for used in inputs_of(parsed.condition)
        if used.name == "event" and used.literal is not None
    ]


def parse_config(documents: Mapping[str, bytes]) -> tuple[Config, list[ConfigNotice]]:
    """Read and check a config.

    Parameters
    ----------
    documents
        The bytes of each YAML file by its name, at most 1 MiB each.

    Returns
    -------
    config, notices
        The frozen config, and what is worth knowing though it refuses nothing.

    Raises
    ------
    ConfigError
        With every problem found.
    """
    findings = Findings()
    trees = load_blocks(documents, [field.encode_name for field in msgspec.structs.fields(Config)], findings)
    config, declared = _decode(trees, findings)
    for name, feature in config.features.items():
        check_feature(name, feature, findings)
    sound = not any(problem.path.startswith("$.features") for problem in findings.problems)
    rules = check_rules(config.rules, config.features if sound else {}, declared, findings)
    check_names(config, declared, findings)
    if findings.problems:
        raise ConfigError.of_all(findings.problems)
    config = msgspec.structs.replace(config, rules=rules)
    notice_what_waits(config, findings)
    return config, findings.notices


_decoder = msgspec.json.Decoder(Config)


def config_from_json(raw: bytes) -> Config:
    """Take up a config that :meth:`Config.to_json` wrote, exactly.

    Raises
    ------
    StateError
        If these are no such bytes, or those of a version that knew other blocks.
    """
    try:
        return _decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise StateError(f"a kept config cannot be read by this version: {error}") from error


def _decode(
    trees: Mapping[str, object], findings: Findings
) -> tuple[Config, dict[str, Mapping[str, object]]]:
    """Decode all blocks but for what is wrong; also the names in each block, wrong entries included."""
    declared = {
        block: mapping_at(trees.get(block), f"$.{block}", findings) for block in (*_CODED, "campaigns")
    }
    for block in _CODED:
        check_codes(declared[block], f"$.{block}", findings)
    durations = {
        f"{block}_ms": decode_duration(trees[block], f"$.{block}", findings)
        for block in _DURATIONS
        if trees.get(block) is not None
    }
    config = Config(
        features=_entries(declared, "features", Feature, findings),
        lists=_entries(declared, "lists", ListSource, findings),
        rules=_entries(declared, "rules", Rule, findings),
        models=_decode_models(declared["models"], findings),
        levels=_single(trees, "levels", Levels, findings) or Levels(),
        funnels=_entries(declared, "funnels", Funnel, findings),
        dau=_single(trees, "dau", Dau, findings) or Dau(),
        retention=_single(trees, "retention", Retention, findings),
        kpi_alerts=_entries(declared, "kpi_alerts", KpiAlert, findings),
        alerts=_decode_alerts(trees.get("alerts"), findings),
        events=_decode_events(trees.get("events"), findings),
        fields=_decode_fields(trees.get("fields"), findings),
        topics=_single(trees, "topics", Topics, findings) or Topics(),
        campaigns=_entries(declared, "campaigns", Campaign, findings),
        memory=_single(trees, "memory", Memory, findings) or Memory(),
        **durations,
    )
    return config, declared


def _single(
    trees: Mapping[str, object], block: str, of: type[BlockType], findings: Findings
) -> BlockType | None:
    tree = trees.get(block)
    return None if tree is None else decode_block(tree, of, f"$.{block}", findings)


def _entries(
    declared: Mapping[str, Mapping[str, object]], block: str, of: type[BlockType], findings: Findings
) -> dict[str, BlockType]:
    decoded = {
        name: decode_block(tree, of, f"$.{block}.{name}", findings) for name, tree in declared[block].items()
    }
    return {name: entry for name, entry in decoded.items() if entry is not None}


def _decode_models(trees: Mapping[str, object], findings: Findings) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for name, tree in trees.items():
        path = f"$.models.{name}"
        kind = tree.get("kind") if isinstance(tree, dict) else "half_space_trees"
        of = _MODELS.get(kind) if isinstance(kind, str) else None
        if of is None:
            findings.refuse(f"{path}.kind", found=show(kind), expected=one_of(_MODELS, found=kind))
        elif (model := decode_block(tree, of, path, findings)) is not None:
            models[name] = model
    return models


def _decode_alerts(tree: object, findings: Findings) -> Alerts:
    """Decode the block of alerts, in which the channels are blocks of their own."""
    if not isinstance(tree, dict):
        return Alerts() if tree is None else decode_block(tree, Alerts, "$.alerts", findings) or Alerts()
    own = {key: value for key, value in tree.items() if key != "channels"}
    alerts = decode_block(own, Alerts, "$.alerts", findings) or Alerts()
    path = "$.alerts.channels"
    channels = mapping_at(tree.get("channels"), path, findings)
    check_codes(channels, path, findings)
    decoded = {
        name: decode_block(channel, AlertChannel, f"{path}.{name}", findings)
        for name, channel in channels.items()
    }
    return msgspec.structs.replace(
        alerts, channels={name: channel for name, channel in decoded.items() if channel is not None}
    )


def _decode_events(tree: object, findings: Findings) -> Events:
    """Decode the block of event names, in which ``strict`` is the one key that is no event."""
    named = dict(mapping_at(tree, "$.events", findings))
    strict = named.pop("strict", False)
    if not isinstance(strict, bool):
        findings.refuse(
            "$.events.strict", found=show(strict), expected="true or false (strict is no event's name)"
        )
    names = {
        name: decode_block(entry, EventName, f"$.events.{name}", findings) for name, entry in named.items()
    }
    return Events(
        strict=strict is True, names={name: event for name, event in names.items() if event is not None}
    )


def _decode_fields(tree: object, findings: Findings) -> dict[str, str]:
    fields = mapping_at(tree, "$.fields", findings)
    for field, source in fields.items():
        if not isinstance(source, str) or not source:
            findings.refuse(
                f"$.fields.{field}", found=show(source), expected="the name of a field that comes in"
            )
    return {field: source for field, source in fields.items() if isinstance(source, str)}

"""What types cannot say: that names exist, that parts fit together, that a rule can fire at all."""

from __future__ import annotations

import keyword
import zoneinfo
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from schemas.config_blocks import (
    ATTRIBUTE_PREFIX,
    DERIVED_ENTITIES,
    ENTITIES,
    LARGEST_MASS,
    NUMERIC_FIELDS,
    TEXT_FIELDS,
    WHOLE_CAMPAIGN,
    Feature,
    HalfSpaceTrees,
    RiverModel,
    Rule,
)
from schemas.config_findings import Findings, one_of, show
from schemas.durations import EXPECTED as EXPECTED_DURATION
from schemas.durations import parse_duration
from schemas.events import KNOWN_FIELDS, STRING_FIELDS
from schemas.kpi_metric import KpiMetricError, parse_kpi_metric
from schemas.river_classes import classifier_of
from schemas.rule_grammar import ParsedRule, RuleTextError, parse_rule
from schemas.rule_logic import Range, always_holds, can_hold, holds_when_known
from schemas.rule_tree import Input, InputKind, inputs_of

if TYPE_CHECKING:
    from schemas.config import Config

Declared = Mapping[str, Collection[str]]
"""Names in each block, those of broken entries included: a rule that uses such a one is not wrong, too."""

RESERVED = frozenset(
    (*KNOWN_FIELDS, *DERIVED_ENTITIES, "attrs", "true", "false", "null", "nan", *keyword.kwlist)
)
"""What a rule would not read as the name of a feature."""

_RANGES_OF_FIELDS = {
    "dwell_ms": Range(0, 2.0**53),
    "amount_minor": Range(0, 2.0**53),
    "cost_minor": Range(0, 2.0**53),
    "lat": Range(-90, 90),
    "lon": Range(-180, 180),
}


def check_feature(name: str, feature: Feature, findings: Findings) -> None:
    """Refuse a feature that counts nothing, or several things at once."""
    path = f"$.features.{name}"
    if name.casefold() in RESERVED:
        findings.refuse(
            path, found=f"the name {name}", expected="a name that is no field and no word of rules"
        )
    given = [kind for kind in Feature.KINDS if getattr(feature, kind) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        findings.refuse(path, found=found, expected=f"exactly one of {', '.join(Feature.KINDS)}")
        return
    kind = given[0]
    takes = {
        "distinct": {"entity", "exclude", "window_ms"},
        "count": {"entity", "window_ms"},
        "since": {"entity"},
    }
    for key in ("entity", "exclude", "window_ms"):
        if getattr(feature, key) is not None and key not in takes.get(kind, ()):
            written = key.removesuffix("_ms")
            findings.refuse(
                f"{path}.{written}", found=f"{written} beside {kind}", expected=f"no {written} there"
            )
    if kind == "field":
        _check_name(feature.field, NUMERIC_FIELDS, f"{path}.field", findings)
        return
    if feature.entity is None:
        findings.refuse(f"{path}.entity", found="nothing", expected="an entity, such as device_id")
    _check_name(feature.entity, ENTITIES, f"{path}.entity", findings)
    _check_name(feature.distinct, ENTITIES, f"{path}.distinct", findings)
    if kind == "distinct" and feature.distinct == feature.entity:
        findings.notice(
            path, f"counts {feature.entity} within {feature.entity}, which is never more than one"
        )


def check_rules(
    rules: Mapping[str, Rule], features: Mapping[str, Feature], declared: Declared, findings: Findings
) -> dict[str, Rule]:
    """Check each condition; returns the rules with their conditions in one way of writing."""
    checked = {}
    for name, rule in rules.items():
        path = f"$.rules.{name}.when"
        try:
            parsed = parse_rule(rule.when, declared["features"])
        except RuleTextError as error:
            if findings.complete:
                findings.refuse(path, found=error.found, expected=error.expected)
            continue
        _check_sense(parsed, features, path, findings)
        checked[name] = msgspec.structs.replace(rule, when=parsed.text)
    return checked


def _check_sense(parsed: ParsedRule, features: Mapping[str, Feature], path: str, findings: Findings) -> None:
    ranges = {name: _range_of(name, features) for name in inputs_of(parsed.condition)}
    if not can_hold(parsed.condition, ranges):
        findings.refuse(
            path, found=f"{parsed.text}, which is never true", expected="a condition that can hold"
        )
    elif always_holds(parsed.condition):
        findings.refuse(
            path, found=f"{parsed.text}, which is always true", expected="a condition that can fail"
        )
    elif holds_when_known(parsed.condition, ranges):
        known = ", ".join(dict.fromkeys(name.name for name in ranges))
        findings.notice(path, f"holds for every event that has {known}")


def _range_of(name: Input, features: Mapping[str, Feature]) -> Range:
    """Where an input lies by its meaning."""
    if name.kind is InputKind.TEXT:
        return Range(0, 1)
    feature = features.get(name.name)
    if feature is None:
        return _RANGES_OF_FIELDS.get(name.name, Range())
    if feature.kind in ("distinct", "count"):
        return Range(low=0)
    return _RANGES_OF_FIELDS.get(feature.field or "", Range())


def check_names(config: Config, declared: Declared, findings: Findings) -> None:
    """Check every name that one block uses of another, and what belongs together."""
    _check_reason_codes(declared, findings)
    _check_levels(config, findings)
    for name, source in config.lists.items():
        _check_name(source.entity, ENTITIES, f"$.lists.{name}.entity", findings)
        file = PurePosixPath(source.file)
        if file.is_absolute() or ".." in file.parts or "\\" in source.file:
            findings.refuse(
                f"$.lists.{name}.file", found=show(source.file), expected="a path inside the config folder"
            )
    for name, model in config.models.items():
        for index, used in enumerate(model.features):
            path = f"$.models.{name}.features[{index}]"
            _check_name(used, (*declared["features"], *NUMERIC_FIELDS), path, findings)
        _check_once(model.features, f"$.models.{name}.features", findings)
        if isinstance(model, HalfSpaceTrees):
            _check_forest(model, f"$.models.{name}", findings)
        if isinstance(model, RiverModel):
            _check_river(model, f"$.models.{name}", findings)
    for name, funnel in config.funnels.items():
        _check_dimensions(funnel.by, f"$.funnels.{name}.by", findings)
        _check_windows(funnel.windows, f"$.funnels.{name}.windows", findings)
    _check_dimensions(config.dau.by, "$.dau.by", findings)
    _check_kpi_alerts(config, declared, findings)
    _check_alert_channels(config, findings)
    _check_topics(config, findings)
    _check_fields(config.fields, findings)
    for name, campaign in config.campaigns.items():
        _check_timezone(campaign.timezone, f"$.campaigns.{name}.timezone", findings)


def notice_what_waits(config: Config, findings: Findings) -> None:
    """Say what is unused, and what this version reads and checks but does not run."""
    used = {name.name for rule in config.rules.values() for name in inputs_of(config.parsed(rule).condition)}
    used |= {name for model in config.models.values() for name in model.features}
    for name in config.features:
        if name not in used:
            findings.notice(f"$.features.{name}", "used by no rule and no model; verdicts still show it")
    for name, alert in config.kpi_alerts.items():
        if alert.anomaly:
            findings.notice(
                f"$.kpi_alerts.{name}.anomaly",
                "anomaly is checked, but this version judges by below and above alone",
            )
    for name, event in config.events.names.items():
        if event.role is not None:
            findings.notice(f"$.events.{name}.role", "roles are kept, but this version does not use them yet")


def _check_name(name: str | None, choices: Collection[str], path: str, findings: Findings) -> None:
    if name is None or name in choices or (name.startswith(ATTRIBUTE_PREFIX) and name != ATTRIBUTE_PREFIX):
        return
    if findings.complete:
        findings.refuse(path, found=show(name), expected=one_of([*choices, "attrs.<name>"], found=name))


def _check_once(names: Iterable[str], path: str, findings: Findings) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            findings.refuse(f"{path}[{index}]", found=f"{show(name)} again", expected="each name once")
        seen.add(name)


def _check_reason_codes(declared: Declared, findings: Findings) -> None:
    """Rules and lists share the column of reasons; a model's reason begins with ``model:``."""
    owners: dict[str, str] = {}
    for block in ("rules", "lists"):
        for name in declared[block]:
            owner = owners.setdefault(name.casefold(), block)
            if owner != block:
                findings.refuse(
                    f"$.{block}.{name}",
                    found=f"a name that stands in {owner}, too",
                    expected="names that differ between rules and lists: they are the reason codes",
                )


def _check_levels(config: Config, findings: Findings) -> None:
    levels = config.levels
    if not levels.observe < levels.review < levels.block:
        findings.refuse(
            "$.levels",
            found=f"observe {levels.observe}, review {levels.review}, block {levels.block}",
            expected="ascending: observe below review below block",
        )


def _check_forest(model: HalfSpaceTrees, path: str, findings: Findings) -> None:
    if model.largest_mass > LARGEST_MASS:
        most = LARGEST_MASS // (model.largest_mass // model.trees)
        findings.refuse(
            path,
            found=f"{model.trees} trees of height {model.height}, whose scores take more than 1 GiB to rank",
            expected=f"at most {most} trees of that height, or lower ones: each step of height counts double",
        )


def _check_dimensions(by: tuple[str, ...], path: str, findings: Findings) -> None:
    for index, name in enumerate(by):
        if name in STRING_FIELDS and name not in TEXT_FIELDS:
            expected = one_of([*TEXT_FIELDS, "attrs.<name>"])
            findings.refuse(
                f"{path}[{index}]", found=f"{show(name)}, which names persons or visits", expected=expected
            )
        else:
            _check_name(name, TEXT_FIELDS, f"{path}[{index}]", findings)
    _check_once(by, path, findings)


def _check_river(model: RiverModel, path: str, findings: Findings) -> None:
    if model.learns != "labels":
        findings.refuse(
            f"{path}.learns",
            found=model.learns,
            expected="labels; of models that learn from clean events there is half_space_trees",
        )
    try:
        classifier_of(model.class_)
    except ValueError as error:
        expected = "a classifier of River with probabilities, such as linear_model.LogisticRegression"
        findings.refuse(f"{path}.class", found=f"{model.class_}, {error}", expected=expected)


def _check_windows(windows: tuple[str, ...], path: str, findings: Findings) -> None:
    lengths: dict[int | None, str] = {}
    for index, text in enumerate(windows):
        try:
            length = None if text == WHOLE_CAMPAIGN else parse_duration(text)
        except ValueError:
            findings.refuse(f"{path}[{index}]", found=show(text), expected=f"all, or {EXPECTED_DURATION}")
            continue
        if length in lengths:
            findings.refuse(
                f"{path}[{index}]", found=f"{text} after {lengths[length]}", expected="each length once"
            )
        lengths[length] = text


def _check_kpi_alerts(config: Config, declared: Declared, findings: Findings) -> None:
    for name, alert in config.kpi_alerts.items():
        path = f"$.kpi_alerts.{name}"
        if alert.below is None and alert.above is None and not alert.anomaly:
            findings.refuse(path, found="no bound", expected="below, above or anomaly: true")
        elif alert.below is not None and alert.above is not None and alert.below > alert.above:
            findings.refuse(
                path,
                found=f"below {alert.below:g}, above {alert.above:g}",
                expected="below no larger than above",
            )
        try:
            parse_kpi_metric(alert.metric, config.funnels)
        except KpiMetricError as error:
            if findings.complete and config.funnels.keys() == set(declared["funnels"]):
                findings.refuse(f"{path}.metric", found=error.found, expected=error.expected)
        if alert.by is not None:
            _check_dimensions((alert.by,), f"{path}.by", findings)


def _check_alert_channels(config: Config, findings: Findings) -> None:
    for name, channel in config.alerts.channels.items():
        if (channel.url_env is None) == (channel.url_file is None):
            found = "neither" if channel.url_env is None else "both"
            findings.refuse(
                f"$.alerts.channels.{name}", found=found, expected="exactly one of url_env, url_file"
            )


def _check_topics(config: Config, findings: Findings) -> None:
    flows: dict[str, str] = {}
    for flow, topic in config.topics.names().items():
        if topic in (".", ".."):
            findings.refuse(f"$.topics.{flow}", found=show(topic), expected="a name that Kafka takes")
        elif (other := flows.setdefault(topic, flow)) != flow:
            findings.refuse(
                f"$.topics.{flow}", found=f"{show(topic)}, as for {other}", expected="a topic for each"
            )


def _check_fields(fields: Mapping[str, str], findings: Findings) -> None:
    sources: dict[str, str] = {}
    for field, source in fields.items():
        if field not in KNOWN_FIELDS:
            findings.refuse(
                f"$.fields.{field}", found=show(field), expected=one_of(KNOWN_FIELDS, found=field)
            )
        elif (other := sources.setdefault(source, field)) != field:
            findings.refuse(
                f"$.fields.{field}", found=f"{show(source)}, as for {other}", expected="a source for each"
            )


def _check_timezone(name: str, path: str, findings: Findings) -> None:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        findings.refuse(path, found=show(name), expected="an IANA time zone, such as Asia/Shanghai")

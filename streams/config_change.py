"""What a changed config means for the state: which definitions have none yet and begin to count now."""

from __future__ import annotations

import msgspec

from metrics.definitions import make_metric_plan
from metrics.kpi_plan import make_kpi_plans
from schemas.config import Config
from schemas.partials import DAU


def starting_empty(before: Config, after: Config) -> list[str]:
    """Everything in ``after`` that counts or learns and that ``before`` did not define alike, by name.

    Renaming is no change for a feature: its state belongs to its definition. To a model belongs what it learned from,
    to a funnel its steps, to a KPI alert what it measures in which windows. Weights, rules, levels and bounds are no
    state.

    Examples
    --------
    >>> from schemas.config import parse_config
    >>> before, _ = parse_config({"a.yaml": b"features: {seen: {entity: user_id, count: view}}"})
    >>> after, _ = parse_config({"a.yaml": b"features: {sold: {entity: user_id, count: purchase}}"})
    >>> starting_empty(before, after), starting_empty(before, before)
    (['feature sold'], [])
    """
    known = set(_definitions(before).values())
    return [name for name, definition in _definitions(after).items() if definition not in known]


def needing_restart(before: Config, after: Config) -> list[str]:
    """What differs though it holds as long as a worker runs: topics, what bounds state, the channels of alerts."""
    fixed = {"topics": "topics", "memory": "memory", "lateness_ms": "lateness"}
    differ = [block for field, block in fixed.items() if getattr(before, field) != getattr(after, field)]
    for field, name in {"channels": "alerts.channels", "give_up_ms": "alerts.give_up"}.items():
        if getattr(before.alerts, field) != getattr(after.alerts, field):
            differ.append(name)
    return differ


def _definitions(config: Config) -> dict[str, tuple[str, ...]]:
    metrics = make_metric_plan(config)
    features = {
        f"feature {name}": ("feature", feature.definition())
        for name, feature in config.features.items()
        if feature.entity is not None
    }
    models = {
        f"model {name}": ("model", name, repr(msgspec.structs.replace(model, weight=0.0)))
        for name, model in config.models.items()
    }
    funnels = {f"funnel {funnel.name}": ("funnel", funnel.identity) for funnel in metrics.funnels}
    dau = {f"dau by {one.dim}": ("dau", one.identity) for one in metrics.definitions if one.metric == DAU}
    retention = {} if config.retention is None else {"retention": ("retention", str(config.retention.days))}
    kpis = {f"kpi {plan.name}": ("kpi", plan.name, plan.identity) for plan in make_kpi_plans(config)}
    return {**features, **models, **funnels, **dau, **retention, **kpis}

"""What a config asks to be counted, as a flat list: one definition for each metric, window and dimension.

State is kept under a definition's identity, so that whatever a new config leaves as it was goes on counting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.config import Config, Funnel
from schemas.partials import ALL_CAMPAIGNS, DAU, FUNNEL, ONE_CAMPAIGN, TOTAL

DAY_MS = 86_400_000
ENDLESS_MS = 1 << 62
"""End of the window ``all``; also how long a funnel without ``within`` may take."""
CAMPAIGN_FIELD, EVENT_FIELD, CHANNEL_FIELD = "campaign", "event", "channel"

DEFINITION = np.dtype(
    [
        ("hold_ms", "i8"),
        ("window_ms", "i8"),
        ("group", "i4"),
        ("width", "i4"),
        ("column", "i4"),
        ("level", "i4"),
    ],
    align=True,
)
"""What kernels know of a definition: how long behind its end a window can change, its length (0: endless),
whose blocks it writes into, keys side by side (one for each step), the column of its dimension in a cell (-1: none),
and the level at which new keys begin (:mod:`metrics.sampling`)."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric in one window length by one dimension; ``field`` None: the dimension is a total."""

    metric: str
    name: str
    window: str
    window_ms: int
    scope: str
    dim: str
    field: str | None
    steps: tuple[str, ...] = ()
    within_ms: int = 0
    order: str = ""

    @property
    def identity(self) -> str:
        """Equal for equal meaning."""
        parts = (
            self.metric,
            self.name,
            self.window,
            self.scope,
            self.dim,
            self.steps,
            self.within_ms,
            self.order,
        )
        return msgspec.json.encode(parts).decode()

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Definitions of one group share their blocks."""
        return self.metric, self.name, self.window, self.scope


def is_campaign_date(identity: str) -> bool:
    """Whether a definition of this identity counts by the date on a campaign's clock."""
    metric, _, _, scope, *_ = msgspec.json.decode(identity)
    return bool(metric == DAU and scope == ONE_CAMPAIGN)


@dataclass(frozen=True, slots=True)
class FunnelPlan:
    """One funnel; ``first`` is its first definition, the others follow by window, then dimension."""

    name: str
    steps: tuple[str, ...]
    within_ms: int
    ties_allowed: bool
    windows_ms: tuple[int, ...]
    dims: int
    first: int

    @property
    def identity(self) -> str:
        """Equal for funnels whose chains are the same, whatever they are counted by."""
        return msgspec.json.encode((self.name, self.steps, self.within_ms, self.ties_allowed)).decode()


@dataclass(frozen=True, slots=True)
class MetricPlan:
    """All that is counted.

    The definitions of DAU come first: the product's total, a campaign's, then ``dau.by``.

    Parameters
    ----------
    definitions, funnels
        In the order of the config.
    groups
        Definition.group by number.
    fields
        Whose values are numbered: campaign, event, channel and all dimensions, those of KPI alerts included.
    dims
        Fields that split any definition; a cell holds the campaign and then these.
    retention_days
        Up to which day cohorts are followed; None: they are not.
    """

    definitions: tuple[Definition, ...]
    funnels: tuple[FunnelPlan, ...]
    groups: tuple[tuple[str, str, str, str], ...]
    fields: tuple[str, ...]
    dims: tuple[str, ...]
    dau_definitions: int
    restate_ms: int
    lateness_ms: int
    retention_days: int | None

    def definition_table(self) -> NDArray[np.void]:
        """DEFINITION[definitions]."""
        table = np.zeros(len(self.definitions), DEFINITION)
        for row, definition in zip(table, self.definitions, strict=True):
            row["hold_ms"] = max(self.restate_ms, definition.within_ms)
            row["window_ms"] = definition.window_ms
            row["group"] = self.groups.index(definition.group)
            row["width"] = max(1, len(definition.steps))
            row["column"] = -1 if definition.field is None else 1 + self.dims.index(definition.field)
        return table


def make_metric_plan(config: Config) -> MetricPlan:
    """List what a config counts."""
    definitions = list(_dau_definitions(config))
    dau_definitions = len(definitions)
    funnels = []
    for name, funnel in config.funnels.items():
        funnels.append(_funnel_plan(name, funnel, len(definitions)))
        definitions.extend(_funnel_definitions(name, funnel))
    dims = tuple(dict.fromkeys(d.field for d in definitions if d.field is not None))
    kpi_dims = [alert.by for alert in config.kpi_alerts.values() if alert.by is not None]
    return MetricPlan(
        definitions=tuple(definitions),
        funnels=tuple(funnels),
        groups=tuple(dict.fromkeys(definition.group for definition in definitions)),
        fields=tuple(dict.fromkeys((CAMPAIGN_FIELD, EVENT_FIELD, CHANNEL_FIELD, *dims, *kpi_dims))),
        dims=dims,
        dau_definitions=dau_definitions,
        restate_ms=config.restate_ms,
        lateness_ms=config.lateness_ms,
        retention_days=None if config.retention is None else config.retention.days,
    )


def _dau_definitions(config: Config) -> Iterator[Definition]:
    yield Definition(DAU, "", "1d", DAY_MS, ALL_CAMPAIGNS, ALL_CAMPAIGNS, None)
    yield Definition(DAU, "", "1d", DAY_MS, ONE_CAMPAIGN, TOTAL, None)
    for field in dict.fromkeys(config.dau.by):
        yield Definition(DAU, "", "1d", DAY_MS, ONE_CAMPAIGN, field, field)


def _funnel_plan(name: str, funnel: Funnel, first: int) -> FunnelPlan:
    return FunnelPlan(
        name=name,
        steps=funnel.steps,
        within_ms=_within_ms(funnel),
        ties_allowed=funnel.order == "ties_allowed",
        windows_ms=tuple(_windows(funnel).values()),
        dims=1 + len(set(funnel.by)),
        first=first,
    )


def _funnel_definitions(name: str, funnel: Funnel) -> Iterator[Definition]:
    for window, window_ms in _windows(funnel).items():
        for field in (None, *dict.fromkeys(funnel.by)):
            yield Definition(
                metric=FUNNEL,
                name=name,
                window=window,
                window_ms=window_ms,
                scope=ONE_CAMPAIGN,
                dim=TOTAL if field is None else field,
                field=field,
                steps=funnel.steps,
                within_ms=_within_ms(funnel),
                order=funnel.order,
            )


def _windows(funnel: Funnel) -> dict[str, int]:
    lengths_ms = (length_ms or 0 for length_ms in funnel.windows_ms)
    return dict(zip(funnel.windows, lengths_ms, strict=True))


def _within_ms(funnel: Funnel) -> int:
    return ENDLESS_MS >> 1 if funnel.within_ms is None else funnel.within_ms

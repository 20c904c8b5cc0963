"""One series of a KPI alert: window after window, when is it an incident, and when is it over."""

from __future__ import annotations

from enum import Enum

import msgspec
import numpy as np

from metrics.kpi_plan import KpiPlan
from metrics.quantiles import bucket_middles
from schemas.alerts import Alert
from schemas.kpi_metric import DWELL, RATE

MOST_SHOWN = 10
"""Windows of an incident's begin that its evidence shows."""

Counts = tuple[dict[int, int], dict[int, int]]
"""Gross and suspect counts by place, as in :class:`schemas.partials.KpiRows`."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """The value of one window; ``base`` is what stands behind it: users at the earlier step, events, ..."""

    start_ms: int
    value: float
    base: int


class Turn(Enum):
    """What a window changed."""

    NOTHING = 0
    OPENED = 1
    RESOLVED = 2


class Series(msgspec.Struct):
    """Where a series stands.

    Parameters
    ----------
    breaches, good
        Windows in a row that were out of bounds, or within; neither grows beyond what the alert asks for.
    first
        The first windows of the run out of bounds.
    established
        Whether it was once within ``below``: a series of counts can only fall from where it has been.
    opened
        The alert, while it is open.
    """

    breaches: int = 0
    good: int = 0
    first: list[Seen] = msgspec.field(default_factory=list)
    established: bool = False
    opened: Alert | None = None

    def step(self, plan: KpiPlan, seen: Seen | None) -> Turn:
        """Take the next window; None: it says nothing, and is neither a breach nor a recovery."""
        breach = None if seen is None else self._is_breach(plan, seen)
        if seen is None or breach is None:
            return Turn.NOTHING
        if not breach:
            self.breaches, self.first = 0, []
            self.good = min(self.good + 1, plan.alert.for_)
            return Turn.RESOLVED if self.opened and self.good >= plan.alert.for_ else Turn.NOTHING
        self.good = 0
        self.breaches = min(self.breaches + 1, plan.alert.for_)
        if len(self.first) < MOST_SHOWN:
            self.first.append(seen)
        return Turn.OPENED if not self.opened and self.breaches >= plan.alert.for_ else Turn.NOTHING

    def is_forgettable(self, plan: KpiPlan) -> bool:
        """Whether a series that is new would do the same from here."""
        falls = self.established and plan.alert.below is not None and plan.metric.zero_without_events
        return self.opened is None and not self.breaches and not falls

    def _is_breach(self, plan: KpiPlan, seen: Seen) -> bool | None:
        below, above = plan.alert.below, plan.alert.above
        if above is not None and seen.value > above:
            return True
        if below is not None and seen.value < below:
            return True if self.established or not plan.metric.zero_without_events else None
        self.established = True
        return False


def value_of(plan: KpiPlan, start_ms: int, counts: Counts) -> Seen | None:
    """Value of a window; None where too little stands behind it.

    Examples
    --------
    >>> from schemas.config_blocks import KpiAlert
    >>> from schemas.kpi_metric import KpiMetric
    >>> rate = KpiPlan("k", KpiAlert(metric="", below=0.2), KpiMetric(kind="rate", events=("cart", "pay")))
    >>> value_of(rate, 0, ({0: 40, 1: 10}, {0: 20}))
    Seen(start_ms=0, value=0.25, base=40)
    >>> value_of(rate, 0, ({0: 9, 1: 5}, {})) is None
    True
    """
    part = _part(counts, plan.metric.part)
    if plan.metric.kind == RATE:
        base = part.get(0, 0)
        value = part.get(1, 0) / base if base else 0.0
    elif plan.metric.kind == DWELL:
        base = sum(part.values())
        value = _quantile(part, base, plan.metric.percent) if base else 0.0
    else:
        base = part.get(0, 0)
        value = float(base)
    if base < plan.min_count or (base == 0 and not plan.metric.zero_without_events):
        return None
    return Seen(start_ms, value, base)


def _part(counts: Counts, part: str) -> dict[int, int]:
    gross, suspect = counts
    if part == "suspect":
        return suspect
    if part == "clean":
        return {place: count - suspect.get(place, 0) for place, count in gross.items()}
    return gross


def _quantile(buckets: dict[int, int], total: int, percent: int) -> float:
    """Nearest rank."""
    rank = -(-total * percent // 100)
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            return float(bucket_middles(np.array([bucket]))[0])
    raise ValueError("more was counted than the buckets hold")

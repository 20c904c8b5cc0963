"""What the KPI alerts of a config need counted, for those who count and those who judge."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from schemas.config import Config
from schemas.config_blocks import KpiAlert
from schemas.kpi_metric import DWELL, RATE, KpiMetric

_DELAY_SHARE = 10
_MOST_DELAY_MS = 60_000
_FEW = 10


@dataclass(frozen=True, slots=True)
class KpiPlan:
    """One KPI alert with its metric understood."""

    name: str
    alert: KpiAlert
    metric: KpiMetric

    @property
    def window_ms(self) -> int:
        """Length of the windows."""
        return self.alert.window_ms

    @property
    def by(self) -> str | None:
        """The dimension, or None for the total."""
        return self.alert.by

    @property
    def identity(self) -> str:
        """What is counted, by which values and windows; bounds do not matter. Equal for equal meaning."""
        metric = self.metric
        parts = (metric.kind, metric.events, metric.field, self.by, self.window_ms)
        return msgspec.json.encode(parts).decode()

    @property
    def delay_ms(self) -> int:
        """How much later than its end a window is judged."""
        if self.alert.delay_ms is not None:
            return self.alert.delay_ms
        return min(self.window_ms // _DELAY_SHARE, _MOST_DELAY_MS)

    @property
    def min_count(self) -> int:
        """With less behind its number a window says nothing."""
        if self.alert.min_count is not None:
            return self.alert.min_count
        return _FEW if self.metric.kind in (RATE, DWELL) else 0


def make_kpi_plans(config: Config) -> tuple[KpiPlan, ...]:
    """Understand the KPI alerts of a checked config, in its order."""
    return tuple(
        KpiPlan(name, alert, config.measured(alert))
        for name, alert in config.kpi_alerts.items()
        if alert.below is not None or alert.above is not None
    )

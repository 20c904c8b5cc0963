"""A second method for late and duplicate events: one dictionary, purged only where the rule asks for it."""

from __future__ import annotations

from detectors.dedupe import DUPLICATE, FRESH, LATE, SKIPPED


class DedupeOracle:
    """Row by row, as the rule says it."""

    def __init__(self, lateness_ms: int) -> None:
        self.lateness_ms = lateness_ms
        self.max_ts_ms: dict[int, int] = {}
        self.times: dict[int, int] = {}

    def screen(self, topic: int, key: int, ts_ms: int, eligible: int) -> int:
        """Outcome of one row."""
        if not eligible:
            return SKIPPED
        if topic in self.max_ts_ms and ts_ms < self.max_ts_ms[topic] - self.lateness_ms:
            return LATE
        horizon = min((largest - self.lateness_ms for largest in self.max_ts_ms.values()), default=ts_ms)
        if topic not in self.max_ts_ms and self.max_ts_ms:
            # The lowest watermark is about to fall: what is dead must not come back to life.
            self.times = {known: time for known, time in self.times.items() if time >= horizon}
        if self.times.get(key, horizon - 1) >= horizon:
            return DUPLICATE
        self.times[key] = ts_ms
        self.max_ts_ms[topic] = max(ts_ms, self.max_ts_ms.get(topic, ts_ms))
        return FRESH

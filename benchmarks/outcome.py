"""What every contender of ``live`` reports."""

from __future__ import annotations

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One contender's run over the topics; times are ``time.time``.

    Parameters
    ----------
    events
        How many were consumed.
    first_s
        When the first was consumed, or a moment before.
    last_s
        When all the work was done and visible.
    cpu_s
        CPU time of the contender's processes between the two.
    peak_mb
        The most memory that they had.
    stages_s
        Named moments before ``last_s``.
    turns
        Batches that it made of them; 0: it does not say.
    broker_cpu_s, redis_cpu_s
        CPU time of the services meanwhile.
    """

    events: int
    first_s: float
    last_s: float
    cpu_s: float
    peak_mb: float
    stages_s: dict[str, float] = {}
    turns: int = 0
    broker_cpu_s: float = 0.0
    redis_cpu_s: float = 0.0

    @property
    def events_per_s(self) -> float:
        """Over the whole run."""
        return self.events / (self.last_s - self.first_s)

    def rate_until(self, stage: str) -> float:
        """Events a second until a named moment."""
        return self.events / (self.stages_s[stage] - self.first_s)

    @property
    def cpu_s_per_million(self) -> float:
        """CPU seconds of its processes a million events."""
        return self.cpu_s / self.events * 1e6

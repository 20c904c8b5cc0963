"""KPI alerts against plain Python over all events: any cut, any number of sources, any kill."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics.kpi import KpiAlerts
from metrics.partition_metrics import PartitionMetrics
from metrics.quantiles import BOUNDARIES, bucket_middles
from schemas.alerts import Alert
from schemas.config import Config, KpiAlert, parse_config
from schemas.partials import KPI_METRICS, Block
from tests.unit.metrics.batches import RING, make_batch, user_keys

MINUTE_MS = 60_000
BEGIN_MS = 1_711_836_000_000
DELAY_MS = 5 * MINUTE_MS
LATENESS_MS = 60 * MINUTE_MS

CONFIG = parse_config(
    {
        "metrics.yaml": b"""
funnels: {f: {steps: [a, b, c]}}
kpi_alerts:
  rate:    {metric: "funnel.f.rate(1, 2)", by: channel, window: 10m, below: 0.5, for: 2, min_count: 2, delay: 5m}
  honest:  {metric: "funnel.f.rate(1, 3).clean", window: 15m, below: 0.4, min_count: 1, delay: 5m}
  buyers:  {metric: "funnel.f.users(2)", window: 10m, above: 2, below: 1, delay: 5m}
  active:  {metric: users.suspect, by: platform, window: 20m, above: 1, delay: 5m}
  looks:   {metric: events.a.count, by: channel, window: 5m, below: 2, above: 6, for: 3, delay: 5m}
  bad:     {metric: events.b.count.suspect, window: 10m, above: 0, for: 2, delay: 5m}
  given:   {metric: events.b.cost_minor, window: 10m, above: 100, delay: 5m}
  slow:    {metric: events.a.dwell_p90, by: channel, window: 10m, above: 5000, min_count: 2, delay: 5m}
"""
    }
)[0]


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events in the order in which they come, none more than the delay behind; moods change now and then."""
    random_ = random.Random(draw(st.integers(0, 2**32)))
    events: list[dict[str, Any]] = []
    now_ms, mood = BEGIN_MS, "aab"
    for _ in range(draw(st.integers(1, 300))):
        now_ms += random_.choice((0, 1, MINUTE_MS // 2, MINUTE_MS, 2 * MINUTE_MS))
        if random_.random() < 0.03:
            now_ms += random_.choice((20, 100, 600)) * MINUTE_MS
        if random_.random() < 0.1:
            mood = random_.choice(("aab", "abc", "a", "bbc", "aaaaaabbccd"))
        events.append(
            {
                "event": random_.choice(mood),
                "user_id": f"u{random_.randrange(8)}",
                "channel": random_.choice((None, "x", "x")),
                "platform": random_.choice(("ios", "web")),
                "ts": now_ms - random_.choice((0, 0, 1, MINUTE_MS, DELAY_MS)),
                "level": random_.choice((0, 0, 0, 1, 2)),
                "dwell_ms": random_.choice((None, 10, 4000, 6000)),
                "cost_minor": random_.choice((None, 0, 30, 2**53)),
            }
        )
    return events


# -- the product: judges, a table that survives, a rollup that is killed ------------------------------------------


class Life:
    """Sources, the table of the rollup, and every alert that was told, by its key."""

    def __init__(self, config: Config, sources: int, draw: random.Random) -> None:
        self._draw, self._config, self._sources = draw, config, sources
        self._metrics = [PartitionMetrics(config, RING, source=source) for source in range(sources)]
        self._table: dict[bytes, bytes] = {}
        self.told: dict[str, Alert] = {}
        self._restart()

    def take(self, source: int, events: Sequence[dict[str, Any]]) -> None:
        metrics = self._metrics[source]
        known = [ms for ms in metrics.kpis.progress_ms if ms is not None]
        metrics.update(
            make_batch(events),
            np.arange(len(events)),
            user_keys(events),
            np.array([event["level"] for event in events], np.uint8),
            turn=metrics.turn + 1,
            watermark_ms=max(known + [event["ts"] for event in events]) - LATENESS_MS,
        )
        if self._draw.random() < 0.2:
            self._publish(source, idle=(1,))
            fresh = PartitionMetrics(self._config, RING, source=source)
            fresh.restore(metrics.snapshot())
            self._metrics[source] = fresh
        if self._draw.random() < 0.5:
            self._publish(source, idle=(1,))
            self._flush()

    def end(self) -> None:
        for source in range(self._sources):
            self._publish(source, idle=(0, 1))
        self._flush()
        self._flush()

    def _publish(self, source: int, idle: tuple[int, ...]) -> None:
        metrics = self._metrics[source]
        for block in metrics.changed_blocks(metrics.turn, idle=idle):
            if block.key.metric in KPI_METRICS and self._kpis.put(block):
                self._table[_packed((block.key, block.source))] = _packed(block)

    def _flush(self) -> None:
        self._kpis.advance()
        for key, block in self._kpis.changes():
            if block is None:
                self._table.pop(_packed(key), None)
            else:
                self._table[_packed(key)] = _packed(block)
        if self._draw.random() < 0.2:
            self._restart()
        for alert in self._kpis.untold:
            assert self.told.setdefault(alert.key, alert) == alert
        if self._draw.random() < 0.2:
            self._restart()
        self._kpis.told()

    def _restart(self) -> None:
        self._kpis = KpiAlerts(self._config, sources=self._sources)
        blocks = [msgspec.msgpack.decode(raw, type=Block) for raw in self._table.values()]
        self._draw.shuffle(blocks)
        for block in blocks:
            self._kpis.take_up(block)


def _packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def lived(events: Sequence[dict[str, Any]], *, sources: int, seed: int) -> Life:
    draw = random.Random(seed)
    life = Life(CONFIG, sources, draw)
    waiting: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        source = int(event["user_id"][1:]) % sources
        waiting[source].append(event)
        if draw.random() < 0.3:
            life.take(source, waiting.pop(source))
    for source, left in waiting.items():
        life.take(source, left)
    life.end()
    return life


# -- the oracle ---------------------------------------------------------------------------------------------------


def expected(events: Sequence[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """(name, dim value, state, since, ts) of every alert."""
    last = max(event["ts"] for event in events)
    found: set[tuple[Any, ...]] = set()
    for name, alert in CONFIG.kpi_alerts.items():
        window = alert.window_ms
        first = min(event["ts"] for event in events) // window
        values = {event[alert.by] if alert.by else None for event in events}
        for value in values:
            mine = [event for event in events if alert.by is None or event[alert.by] == value]
            numbers = [
                (start * window, number_of(alert, mine, events, start * window))
                for start in range(first, last // window)
            ]
            found |= {(name, value, *told) for told in incidents(alert, numbers)}
    return found


def number_of(
    alert: KpiAlert, mine: list[dict[str, Any]], events: Sequence[dict[str, Any]], start: int
) -> float | None:
    end, few = start + alert.window_ms, alert.min_count or 0
    suspects = {e["user_id"] for e in events if e["level"] >= 2 and e["ts"] < end}
    inside = [e for e in mine if start <= e["ts"] < end]

    def users(name: str) -> set[str]:
        return {e["user_id"] for e in inside if e["event"] == name}

    def rate(top: set[str], bottom: set[str]) -> float | None:
        return len(top) / len(bottom) if bottom and len(bottom) >= few else None

    numbers = {
        "funnel.f.rate(1, 2)": lambda: rate(users("b"), users("a")),
        "funnel.f.rate(1, 3).clean": lambda: rate(users("c") - suspects, users("a") - suspects),
        "funnel.f.users(2)": lambda: len(users("b")),
        "users.suspect": lambda: len({e["user_id"] for e in inside} & suspects),
        "events.a.count": lambda: sum(e["event"] == "a" for e in inside),
        "events.b.count.suspect": lambda: sum(e["event"] == "b" and e["level"] >= 2 for e in inside),
        "events.b.cost_minor": lambda: sum(e["cost_minor"] or 0 for e in inside if e["event"] == "b"),
        "events.a.dwell_p90": lambda: p90([e["dwell_ms"] for e in inside if e["event"] == "a"], few),
    }
    value: float | None = numbers[alert.metric]()  # type: ignore[no-untyped-call]  # lambdas have no types
    return value


def p90(times: list[int | None], few: int) -> float | None:
    known = sorted(time for time in times if time is not None)
    if len(known) < few or not known:
        return None
    chosen = known[math.ceil(len(known) * 0.9) - 1]
    bucket = max(b for b in range(len(BOUNDARIES) - 1) if BOUNDARIES[b] <= chosen)
    return float(bucket_middles(np.array([bucket]))[0])


def incidents(alert: KpiAlert, numbers: list[tuple[int, float | None]]) -> Iterator[tuple[str, int, int]]:
    """Walk the windows by hand; drops count only where the number had been high enough before."""
    counted = ".rate" not in alert.metric and "dwell" not in alert.metric
    out: list[int] = []
    back = 0
    since: int | None = None
    was_inside = False
    for start, number in numbers:
        if number is None:
            continue
        low = alert.below is not None and number < alert.below
        high = alert.above is not None and number > alert.above
        if low and counted and not was_inside:
            continue
        if low or high:
            out.append(start)
            back = 0
            if since is None and len(out) == alert.for_:
                since = out[0]
                yield "open", since, start + alert.window_ms
            continue
        was_inside = True
        out = []
        back += 1
        if since is not None and back >= alert.for_:
            yield "resolved", since, start + alert.window_ms
            since = None


@given(histories(), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_alerts_are_those_of_the_windows_whatever_the_cut_the_sources_and_the_kills(
    events: list[dict[str, Any]], seed: int
) -> None:
    want = expected(events)
    for sources in (1, 4):
        life = lived(events, sources=sources, seed=seed)
        got = {
            (alert.name, alert.dim_value, alert.state, alert.since_ms, alert.ts_ms)
            for alert in life.told.values()
        }
        assert got == want
        again = lived(events, sources=sources, seed=seed + 1)
        assert again.told == life.told

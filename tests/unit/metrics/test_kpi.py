"""KPI alerts by hand-made blocks: who is waited for, what is kept, what people read."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from metrics import kpi
from metrics.kpi import KpiAlerts
from metrics.kpi_counts import progress_key
from metrics.kpi_plan import make_kpi_plans
from schemas.alerts import Alert
from schemas.config import Config, parse_config
from schemas.partials import KPI, Block, BlockKey, KpiProgress, KpiRows, encode_rows
from streams.outputs import rollup_partition

MINUTE_MS = 60_000
WINDOW_MS = 10 * MINUTE_MS
BEGIN_MS = 1_767_225_600_000
RATE = 'kpi_alerts: {drop: {metric: "funnel.f.rate(1, 2)", by: channel, window: 10m, below: 0.25, for: 2}}'
COUNT = "kpi_alerts: {quiet: {metric: events.a.count, window: 10m, below: 5, for: 3}}"


def config_of(text: str) -> Config:
    return parse_config({"a.yaml": f"funnels: {{f: {{steps: [look, buy]}}}}\n{text}".encode()})[0]


def window(
    config: Config, number: int, counts: Mapping[str | None, tuple[int, ...]], *, source: int = 0
) -> Block:
    """Gross counts by value in the window of that number."""
    (plan,) = make_kpi_plans(config)
    key = BlockKey(KPI, plan.name, "", BEGIN_MS + number * WINDOW_MS, plan.identity, None)
    nobody: dict[int, int] = {}
    rows = [(value, dict(enumerate(numbers)), nobody) for value, numbers in counts.items()]
    return Block(key, source, number, encode_rows(KpiRows(rows)))


def progress(
    config: Config, minutes: float | None, *, idle: bool = False, source: int = 0, turn: int = 0
) -> Block:
    (plan,) = make_kpi_plans(config)
    ms = None if minutes is None else int(BEGIN_MS + minutes * MINUTE_MS)
    return Block(progress_key(plan), source, turn, encode_rows(KpiProgress([(ms, idle), (None, True)])))


def feed(alerts: KpiAlerts, *blocks: Block) -> list[Alert]:
    """What is told after these blocks."""
    for block in blocks:
        alerts.put(block)
    alerts.advance()
    told = alerts.untold
    alerts.told()
    return told


def kept(alerts: KpiAlerts, table: dict[bytes, Block]) -> None:
    """Apply the changes to a table."""
    for (key, source), block in alerts.changes():
        place = repr((key, source)).encode()
        if block is None:
            table.pop(place, None)
        else:
            table[place] = block


def opened(config: Config) -> tuple[KpiAlerts, list[Alert]]:
    alerts = KpiAlerts(config, sources=1)
    blocks = [window(config, number, {"ads": (20, 1), "web": (20, 15)}) for number in range(2)]
    return alerts, feed(alerts, *blocks, progress(config, 25))


def test_people_read_what_where_since_when_and_by_how_much() -> None:
    _, (alert,) = opened(config_of(RATE))
    assert (alert.name, alert.dim, alert.dim_value, alert.state) == ("drop", "channel", "ads", "open")
    assert (alert.since_ms, alert.ts_ms) == (BEGIN_MS, BEGIN_MS + 2 * WINDOW_MS)
    assert alert.title_en == "drop: the rate from look to buy in channel ads is 5.0%, below 25.0%"
    assert alert.title_zh == "drop：channel ads 的 look → buy 转化率 5.0%，低于 25.0%"
    assert alert.text_en.startswith("Since 2026-01-01 00:00:00 UTC out of bounds for 2 windows of 10 min:")
    assert [seen["base"] for seen in alert.evidence["windows"]] == [20, 20]


def test_a_value_from_outside_is_cut_and_cannot_steer_a_terminal() -> None:
    config = config_of(RATE)
    bad = "\x1b[2J" + "x" * 5_000
    alerts = KpiAlerts(config, sources=1)
    blocks = [window(config, number, {bad: (20, 0)}) for number in range(2)]
    (alert,) = feed(alerts, *blocks, progress(config, 25))
    assert "\x1b" not in alert.title_en + alert.text_zh
    assert len(alert.title_en) < 300


def test_a_window_waits_for_every_source_that_is_not_idle() -> None:
    config = config_of(RATE)
    alerts = KpiAlerts(config, sources=3)
    blocks = [window(config, number, {"ads": (20, 0)}) for number in range(2)]
    assert feed(alerts, *blocks, progress(config, 25), progress(config, 40, source=1)) == []
    assert feed(alerts, progress(config, None, source=2)) == []
    assert feed(alerts, progress(config, 20.5, source=2, turn=1)) == []  # within the delay of a minute
    assert len(feed(alerts, progress(config, 20.5, idle=True, source=2, turn=1))) == 1


def test_when_all_are_idle_everything_was_read() -> None:
    config = config_of(RATE)
    alerts = KpiAlerts(config, sources=1)
    blocks = [window(config, number, {"ads": (20, 0)}) for number in range(2)]
    assert feed(alerts, *blocks, progress(config, 20)) == []
    assert len(feed(alerts, progress(config, 20, idle=True))) == 1


def test_a_window_is_judged_once_and_then_dropped() -> None:
    config = config_of(RATE)
    alerts, told = opened(config)
    assert len(told) == 1
    assert not alerts.put(window(config, 1, {"ads": (20, 20)}, source=3))
    dropped = [key.start_ms for (key, _), block in alerts.changes() if block is None]
    assert dropped == [BEGIN_MS, BEGIN_MS + WINDOW_MS]


def test_silence_is_a_fall_only_from_where_the_number_has_been() -> None:
    config = config_of(COUNT)
    alerts = KpiAlerts(config, sources=1)
    assert feed(alerts, window(config, 0, {None: (3,)}), progress(config, 1_000)) == []
    later = [window(config, 200, {None: (9,)}), progress(config, 20_000, turn=1)]
    (alert,) = feed(alerts, *later)
    assert alert.since_ms == BEGIN_MS + 201 * WINDOW_MS
    assert alert.ts_ms == BEGIN_MS + 204 * WINDOW_MS


def test_an_incident_of_a_former_config_is_closed_once_even_if_that_crashes() -> None:
    before, after = config_of(RATE), config_of(RATE.replace("10m", "20m"))
    alerts, (alert,) = opened(before)
    table: dict[bytes, Block] = {}
    kept(alerts, table)
    closed = []
    for crashes in (True, False):
        alerts = KpiAlerts(after, sources=1)
        for block in table.values():
            alerts.take_up(block)
        kept(alerts, table)
        closed.append(alerts.untold)
        if not crashes:
            alerts.told()
            kept(alerts, table)
    assert closed[0] == closed[1]
    assert [(one.id, one.state, one.since_ms) for one in closed[0]] == [(alert.id, "resolved", BEGIN_MS)]
    assert "no longer watched" in closed[0][0].title_en
    assert table == {}


def test_under_the_same_name_another_metric_has_incidents_of_its_own() -> None:
    other = parse_config({"a.yaml": f"funnels: {{f: {{steps: [look, pay]}}}}\n{RATE}".encode()})[0]
    (before,), (after,) = (opened(config)[1] for config in (config_of(RATE), other))
    assert (before.name, before.since_ms, before.dim_value) == (after.name, after.since_ms, after.dim_value)
    assert before.id != after.id


def test_another_bound_goes_on_from_what_was_decided() -> None:
    """The open incident is over when it is within the new bound for as long as the alert asks, under the same id."""
    before, after = config_of(RATE), config_of(RATE.replace("below: 0.25", "below: 0.05"))
    alerts, (alert,) = opened(before)
    table: dict[bytes, Block] = {}
    kept(alerts, table)
    alerts = KpiAlerts(after, sources=1)
    for block in table.values():
        alerts.take_up(block)
    assert alerts.untold == []
    blocks = [window(after, number, {"ads": (20, 2)}) for number in (2, 3)]
    assert feed(alerts, blocks[0], progress(after, 35)) == []
    (ended,) = feed(alerts, blocks[1], progress(after, 45, turn=1))
    assert (ended.id, ended.state, ended.config_hash) == (alert.id, "resolved", after.hash)
    assert ended.ts_ms == BEGIN_MS + 4 * WINDOW_MS


def test_values_beyond_the_bound_are_ignored_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpi, "MOST_SERIES", 2)
    config = config_of(RATE)
    alerts = KpiAlerts(config, sources=1)
    counts: dict[str | None, tuple[int, ...]] = dict.fromkeys("abc", (20, 0))
    told = feed(alerts, window(config, 0, counts), window(config, 1, counts), progress(config, 25))
    assert [alert.dim_value for alert in told] == ["a", "b"]
    assert alerts.ignored == 2


def test_everything_of_one_alert_meets_in_one_partition() -> None:
    config = config_of(RATE)
    blocks = [window(config, number, {"ads": (1, 1)}, source=number) for number in range(40)]
    assert len({rollup_partition(block, 16) for block in [*blocks, progress(config, 1)]}) == 1

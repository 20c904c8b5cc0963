"""What people read of a KPI alert, in Chinese and in English."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from metrics.kpi_plan import KpiPlan
from metrics.kpi_series import Seen
from schemas.alerts import KPI, OPEN, RESOLVED, Alert, alert_id
from schemas.kpi_metric import COUNT, DWELL, RATE, USERS

_PARTS = {"gross": ("", ""), "suspect": ("（可疑部分）", " (suspect)"), "clean": ("（去除可疑）", " (clean)")}
_MINUTE_MS, _SECOND_MS = 60_000, 1_000
_MOST_TEXT = 80
"""Characters of a dimension's value that a text repeats: it came in from outside."""


def opened(plan: KpiPlan, value: str | None, windows: list[Seen], config_hash: str) -> Alert:
    """The alert of an incident; ``windows`` are those that opened it, the first and the last among them."""
    first, last = windows[0], windows[-1]
    end_ms = last.start_ms + plan.window_ms
    what_zh, what_en = _what(plan)
    where_zh, where_en = _where(plan, value)
    bound_zh, bound_en = _bound(plan, last)
    shown = _number(plan, last.value)
    since = _moment(first.start_ms)
    values = [_number(plan, seen.value) for seen in windows]
    return Alert(
        id=_id(plan, value, first.start_ms),
        kind=KPI,
        name=plan.name,
        state=OPEN,
        severity="review",
        campaign=value if plan.by == "campaign" else None,
        dim=plan.by or "all",
        dim_value=value,
        since_ms=first.start_ms,
        ts_ms=end_ms,
        title_zh=f"{plan.name}：{where_zh}{what_zh} {shown}，{bound_zh}",
        title_en=f"{plan.name}: {what_en}{where_en} is {shown}, {bound_en}",
        text_zh=f"自 {since} 起连续 {plan.alert.for_} 个窗口（每个 {_length(plan.window_ms)}）越界："
        f"{where_zh}{what_zh} {'，'.join(values)}；最近一个窗口的样本量 {last.base:,}。",
        text_en=f"Since {since} out of bounds for {plan.alert.for_} windows of {_length(plan.window_ms)}: "
        f"{what_en}{where_en} {', '.join(values)}; {last.base:,} behind the last one.",
        evidence=_evidence(plan, windows),
        config_hash=config_hash,
    )


def resolved(plan: KpiPlan, alert: Alert, last: Seen, config_hash: str) -> Alert:
    """The notice that an incident is over; the same id, the numbers that ended it."""
    what_zh, what_en = _what(plan)
    where_zh, where_en = _where(plan, alert.dim_value)
    shown, since = _number(plan, last.value), _moment(alert.since_ms)
    end_ms = last.start_ms + plan.window_ms
    return _ended(
        alert,
        ts_ms=end_ms,
        titles=(
            f"{plan.name}：{where_zh}{what_zh}已恢复，{shown}",
            f"{plan.name}: {what_en}{where_en} is back within bounds, {shown}",
        ),
        texts=(
            f"自 {since} 起的异常已结束：连续 {plan.alert.for_} 个窗口恢复正常，截至 {_moment(end_ms)}。",
            f"Out of bounds since {since}; within them again for {plan.alert.for_} windows up to {_moment(end_ms)}.",
        ),
        evidence=_evidence(plan, [last]),
        config_hash=config_hash,
    )


def unwatched(alert: Alert, ts_ms: int, config_hash: str) -> Alert:
    """The notice that nobody looks after an incident any more, because the config dropped or changed its alert."""
    return _ended(
        alert,
        ts_ms=max(ts_ms, alert.ts_ms),
        titles=(f"{alert.name}：不再监控", f"{alert.name}: no longer watched"),
        texts=(
            f"配置已改，{alert.name} 不再这样计算；自 {_moment(alert.since_ms)} 起的异常就此关闭。",
            f"The config counts {alert.name} otherwise now; what began at {_moment(alert.since_ms)} is closed.",
        ),
        evidence={},
        config_hash=config_hash,
    )


def _ended(
    alert: Alert,
    *,
    ts_ms: int,
    titles: tuple[str, str],
    texts: tuple[str, str],
    evidence: dict[str, Any],
    config_hash: str,
) -> Alert:
    return Alert(
        id=alert.id,
        kind=KPI,
        name=alert.name,
        state=RESOLVED,
        severity=alert.severity,
        campaign=alert.campaign,
        dim=alert.dim,
        dim_value=alert.dim_value,
        since_ms=alert.since_ms,
        ts_ms=ts_ms,
        title_zh=titles[0],
        title_en=titles[1],
        text_zh=texts[0],
        text_en=texts[1],
        evidence=evidence,
        config_hash=config_hash,
    )


def _id(plan: KpiPlan, value: str | None, since_ms: int) -> str:
    return alert_id(
        KPI,
        plan.name,
        campaign=value if plan.by == "campaign" else None,
        dim=plan.by or "all",
        dim_value=value,
        # Under the same name another metric has incidents of its own.
        incident=(since_ms, plan.identity),
    )


def _what(plan: KpiPlan) -> tuple[str, str]:
    metric = plan.metric
    zh, en = _PARTS[metric.part]
    events = metric.events
    if metric.kind == RATE:
        return f"{events[0]} → {events[1]} 转化率{zh}", f"the rate from {events[0]} to {events[1]}{en}"
    if metric.kind == USERS and not events:
        return f"活跃用户数{zh}", f"the number of active users{en}"
    if metric.kind == USERS:
        return f"{events[0]} 用户数{zh}", f"the number of users at {events[0]}{en}"
    if metric.kind == COUNT:
        return f"{events[0]} 事件数{zh}", f"the number of {events[0]} events{en}"
    if metric.kind == DWELL:
        quantile = f"p{metric.percent}"
        return f"{events[0]} 停留时间 {quantile}{zh}", f"the {quantile} of dwell times at {events[0]}{en}"
    return f"{events[0]} 的 {metric.field} 合计{zh}", f"the sum of {metric.field} of {events[0]}{en}"


def _where(plan: KpiPlan, value: str | None) -> tuple[str, str]:
    if plan.by is None:
        return "", ""
    shown = "-" if value is None else value if len(value) <= _MOST_TEXT else f"{value[:_MOST_TEXT]}…"
    shown = "".join(c if c.isprintable() else "·" for c in shown)
    return f"{plan.by} {shown} 的 ", f" in {plan.by} {shown}"


def _bound(plan: KpiPlan, seen: Seen) -> tuple[str, str]:
    alert = plan.alert
    if alert.above is not None and seen.value > alert.above:
        return f"高于 {_number(plan, alert.above)}", f"above {_number(plan, alert.above)}"
    bound = _number(plan, alert.below or 0.0)
    return f"低于 {bound}", f"below {bound}"


def _number(plan: KpiPlan, value: float) -> str:
    if plan.metric.kind == RATE:
        return f"{100 * value:.1f}%"
    shown = f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return f"{shown} ms" if plan.metric.kind == DWELL else shown


def _length(length_ms: int) -> str:
    if length_ms % _MINUTE_MS == 0:
        return f"{length_ms // _MINUTE_MS} min"
    return f"{length_ms / _SECOND_MS:g} s"


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // _SECOND_MS, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _evidence(plan: KpiPlan, windows: list[Seen]) -> dict[str, Any]:
    alert = plan.alert
    return {
        "metric": alert.metric,
        "window_ms": plan.window_ms,
        "below": alert.below,
        "above": alert.above,
        "for": alert.for_,
        "windows": [{"start_ms": seen.start_ms, "value": seen.value, "base": seen.base} for seen in windows],
    }

"""What people read of an incident, in Chinese and English."""

from __future__ import annotations

from typing import NamedTuple

from schemas.config import Config
from schemas.incidents import REST, UNTIED, Incident, IncidentCounts

_PLACES = {
    "device_id": ("一台设备", "one device"),
    "ip": ("一个 IP 地址", "one IP address"),
    "ip_prefix_24": ("一个 /24 网段", "one /24 network"),
    "ip_prefix_48": ("一个 /48 网段", "one /48 network"),
    "phone": ("一个手机号", "one phone number"),
    "phone_segment": ("一个手机号段", "one phone segment"),
    "gps_cell": ("一处位置", "one place"),
    "inviter_id": ("一个邀请人", "one inviter"),
    UNTIED: ("", ""),
    REST: ("许多来源", "many sources"),
}
_SECOND_MS, _MINUTE_MS, _HOUR_MS = 1000, 60_000, 3_600_000


class Texts(NamedTuple):
    """Titles and texts as :class:`schemas.alerts.Alert` has them."""

    title_zh: str
    title_en: str
    text_zh: str
    text_en: str


def texts_of(incident: Incident, counts: IncidentCounts, config: Config, *, most_users: int) -> Texts:
    """Say how many accounts did what, where, for how long, and at which cost.

    Parameters
    ----------
    incident, counts
        What is told.
    config
        For the sentences of the rule; one that is gone is told by its code.
    most_users
        From how many accounts on the number means "or more".
    """
    reason_zh, reason_en = _reasons(incident.name, config)
    place_zh, place_en = _PLACES.get(incident.dim, (f"同一 {incident.dim}", f"one {incident.dim}"))
    known = f"{incident.dim_value[:8]}…" if incident.dim_value is not None else ""
    more = "+" if counts.users >= most_users else ""
    span_ms = counts.last_ms - counts.first_ms
    where_zh = f"{place_zh}（代号 {known}）" if known else place_zh
    where_en = f"{place_en} (pseudonym {known})" if known else place_en
    campaign_zh = f"活动 {incident.campaign}，" if incident.campaign is not None else ""
    campaign_en = f"Campaign {incident.campaign}: " if incident.campaign is not None else ""
    users = f"{counts.users}{more}"
    cost_zh = f"其中 {counts.costing} 次领取，成本合计 {counts.cost_minor}（最小货币单位）。"
    cost_en = f"{counts.costing} of them took something, worth {counts.cost_minor} minor units together."
    on_en = f" on {where_en}" if where_en else ""
    return Texts(
        title_zh=f"疑似羊毛党：{reason_zh}" + (f"（{incident.campaign}）" if incident.campaign else ""),
        title_en=f"Suspected wool party: {reason_en}"
        + (f" ({incident.campaign})" if incident.campaign else ""),
        text_zh=f"{campaign_zh}{where_zh + '上的 ' if where_zh else ''}{users} 个账号在{_span_zh(span_ms)}内有 "
        f"{counts.events} 次可疑行为（拦截 {counts.block}，待审 {counts.review}）"
        + (f"，{cost_zh}" if counts.costing else "。"),
        text_en=f"{campaign_en}{users} {_plural(counts.users, 'account')}{on_en} within {_span_en(span_ms)}: "
        f"{counts.events} suspicious {_plural(counts.events, 'event')} "
        f"({counts.block} to block, {counts.review} to review)" + (f"; {cost_en}" if counts.costing else "."),
    )


def _reasons(name: str, config: Config) -> tuple[str, str]:
    if name in config.lists:
        return f"名单 {name}", f"list {name}"
    rule = config.rules.get(name)
    return (rule and rule.reason_zh) or name, (rule and rule.reason_en) or name


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _span_en(span_ms: int) -> str:
    count, unit = _span(span_ms)
    return f"{count} {_plural(count, ('second', 'minute', 'hour')[unit])}"


def _span_zh(span_ms: int) -> str:
    count, unit = _span(span_ms)
    return f" {count} {('秒', '分钟', '小时')[unit]}"


def _span(span_ms: int) -> tuple[int, int]:
    """A length in the largest unit of which it holds at least two, rounded up: (count, 0 second .. 2 hour)."""
    for unit, unit_ms in ((2, _HOUR_MS), (1, _MINUTE_MS)):
        if span_ms > 2 * unit_ms:
            return -(-span_ms // unit_ms), unit
    return max(1, -(-span_ms // _SECOND_MS)), 0

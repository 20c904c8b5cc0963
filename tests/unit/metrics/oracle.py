"""What the metrics must be, counted the slow way: all events at once, sets, and every chain tried."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from metrics.quantiles import BOUNDARIES
from schemas.config import Config, Funnel
from schemas.partials import Block, BlockKey, DauRows, EventRows, FunnelRows, RetentionRows, decode_rows
from schemas.verdicts import REVIEW

DAY_MS = 86_400_000
Event = Mapping[str, Any]
Counts = dict[tuple[BlockKey, str, str | None, int], tuple[int, int]]
"""(gross, suspect) by block, dim, value and step (1 for DAU, the day for retention)."""
Minutes = dict[tuple[str | None, str | None, str, int], dict[str, Any]]


def read_users(blocks: Sequence[Block]) -> Counts:
    """Funnel, DAU and retention blocks in the oracle's form; what counts nobody is left out."""
    found: Counts = {}
    for block in blocks:
        rows = decode_rows(block)
        if isinstance(rows, DauRows):
            for dim, value, gross, suspect in rows.rows:
                found[block.key, dim, value, 1] = (gross, suspect)
        elif isinstance(rows, FunnelRows):
            for dim, value, gross_by_step, suspect_by_step in rows.rows:
                assert len(gross_by_step) == len(suspect_by_step) == len(rows.steps)
                for step, users in enumerate(zip(gross_by_step, suspect_by_step, strict=True), start=1):
                    found[block.key, dim, value, step] = users
        elif isinstance(rows, RetentionRows):
            for day, users in enumerate(zip(rows.gross, rows.suspect, strict=True)):
                found[block.key, "", None, day] = users
    return {place: users for place, users in found.items() if users != (0, 0)}


def read_minutes(blocks: Sequence[Block]) -> Minutes:
    """Event blocks in the oracle's form."""
    found: Minutes = {}
    for block in blocks:
        rows = decode_rows(block)
        if not isinstance(rows, EventRows):
            continue
        channels = np.frombuffer(rows.channel, "<u2")
        numbers = np.frombuffer(rows.numbers, "<i8").reshape(-1, 5)
        for i, minute in enumerate(rows.minute):
            ts_ms = (block.key.start_ms or 0) + minute * 60_000
            place = (block.key.campaign, rows.channels[channels[i]], block.key.name, ts_ms)
            found[place] = {"numbers": tuple(int(n) for n in numbers[i]), "dwell": {}}
            mine = np.frombuffer(rows.histogram_row, "<u4") == i
            buckets, counts = np.frombuffer(rows.bucket, "<u2"), np.frombuffer(rows.bucket_count, "<i8")
            found[place]["dwell"] = dict(zip(buckets[mine].tolist(), counts[mine].tolist(), strict=True))
    return found


def count_users(events: Sequence[Event], config: Config) -> Counts:
    """Funnels, DAU and retention of a config over events."""
    members: dict[tuple[BlockKey, str, str | None, int], set[str]] = defaultdict(set)
    ends_ms: dict[tuple[BlockKey, str, str | None, int], float] = {}
    counted = (_days, _funnels, _cohorts)
    for key, end_ms, dim, value, step, user in [row for count in counted for row in count(events, config)]:
        members[key, dim, value, step].add(user)
        ends_ms[key, dim, value, step] = end_ms
    first_bad_ms: dict[str, float] = defaultdict(lambda: math.inf)
    for event in events:
        if event.get("level", 0) >= REVIEW:
            first_bad_ms[event["user_id"]] = min(first_bad_ms[event["user_id"]], event["ts"])
    return {
        place: (
            len(users),
            sum(first_bad_ms[user] < ends_ms[place] + config.restate_ms for user in users),
        )
        for place, users in members.items()
    }


def count_minutes(events: Sequence[Event]) -> Minutes:
    """Events per minute."""
    found: Minutes = {}
    for event in events:
        place = (event.get("campaign"), event.get("channel"), event["event"], event["ts"] // 60_000 * 60_000)
        row = found.setdefault(place, {"numbers": (0, 0, 0, 0, 0), "dwell": {}})
        amount, cost, dwell = event.get("amount_minor"), event.get("cost_minor"), event.get("dwell_ms")
        added = (1, amount or 0, int(amount is not None), cost or 0, int(cost is not None))
        row["numbers"] = tuple(min(a + b, 2**63 - 1) for a, b in zip(row["numbers"], added, strict=True))
        if dwell is not None:
            bucket = max(i for i, low in enumerate(BOUNDARIES.tolist()) if low <= dwell)
            row["dwell"][bucket] = row["dwell"].get(bucket, 0) + 1
    return found


_Member = tuple[BlockKey, float, str, str | None, int, str]


def _days(events: Sequence[Event], config: Config) -> Iterator[_Member]:
    for event in events:
        user: str = event["user_id"]
        campaign: Any = event.get("campaign")
        day = event["ts"] // DAY_MS
        total = BlockKey("dau", "", "1d", day * DAY_MS, "all_campaigns", None)
        yield total, (day + 1) * DAY_MS, "all_campaigns", None, 1, user
        zone = ZoneInfo(config.campaigns[campaign].timezone if campaign in config.campaigns else "UTC")
        local = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=event["ts"])).astimezone(zone).date()
        label_ms = (local.toordinal() - 719_163) * DAY_MS
        key = BlockKey("dau", "", "1d", label_ms, "campaign", campaign)
        following = local + timedelta(days=1)
        midnight = datetime(following.year, following.month, following.day, tzinfo=zone)
        for dim, value in (("all", None), *((dim, event.get(dim)) for dim in config.dau.by)):
            yield key, midnight.timestamp() * 1000, dim, value, 1, user


def _cohorts(events: Sequence[Event], config: Config) -> Iterator[_Member]:
    """Each (user, date) of DAU's totals, under the first such date of the user."""
    if config.retention is None:
        return
    dates = [row for row in _days(events, config) if row[2] in ("all", "all_campaigns")]
    first: dict[tuple[str, str | None, str], int] = {}
    for key, _, _, _, _, user in dates:
        place = (key.scope, key.campaign, user)
        first[place] = min(first.get(place, key.start_ms or 0), key.start_ms or 0)
    for key, end_ms, _, _, _, user in dates:
        begin_ms = first[key.scope, key.campaign, user]
        day = ((key.start_ms or 0) - begin_ms) // DAY_MS
        if day <= config.retention.days:
            cohort = BlockKey("retention", "", "1d", begin_ms, key.scope, key.campaign)
            yield cohort, end_ms, "", None, day, user


def _funnels(events: Sequence[Event], config: Config) -> Iterator[_Member]:
    for name, funnel in config.funnels.items():
        by_user: dict[tuple[str, str | None], list[Event]] = defaultdict(list)
        for event in events:
            if event["event"] in funnel.steps:
                by_user[event["user_id"], event.get("campaign")].append(event)
        for (user, campaign), mine in by_user.items():
            for start in mine:
                reached = longest_chain(start, mine, funnel)
                for window, length_ms in zip(funnel.windows, funnel.windows_ms, strict=True):
                    begin_ms = None if length_ms is None else start["ts"] // length_ms * length_ms
                    end_ms = math.inf if begin_ms is None or length_ms is None else begin_ms + length_ms
                    key = BlockKey("funnel", name, window, begin_ms, "campaign", campaign)
                    for dim, value in (("all", None), *((dim, start.get(dim)) for dim in funnel.by)):
                        for step in range(1, reached + 1):
                            yield key, end_ms, dim, value, step, user


def longest_chain(start: Event, events: Sequence[Event], funnel: Funnel) -> int:
    """Steps of the longest chain that begins with ``start``, by trying every one."""

    def extended(chain: list[Event]) -> int:
        best = len(chain)
        if best == len(funnel.steps):
            return best
        for event in events:
            gap_ms = event["ts"] - chain[-1]["ts"]
            in_order = gap_ms >= 0 if funnel.order == "ties_allowed" else gap_ms > 0
            in_time = funnel.within_ms is None or event["ts"] - start["ts"] <= funnel.within_ms
            unused = all(event is not earlier for earlier in chain)
            if event["event"] == funnel.steps[len(chain)] and in_order and in_time and unused:
                best = max(best, extended([*chain, event]))
        return best

    return extended([start]) if start["event"] == funnel.steps[0] else 0

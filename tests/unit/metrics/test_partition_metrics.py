from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from metrics.event_tables import LARGEST
from metrics.funnel import MOST_EVENTS
from metrics.members import BLOCKS, LINKS
from metrics.partition_metrics import PartitionMetrics
from schemas.config import Config, parse_config
from schemas.errors import StateError
from schemas.partials import ALL_CAMPAIGNS, DAU, FUNNEL, RETENTION, BlockKey, DauRows, decode_rows
from tests.unit.metrics.batches import RING, feed, make_batch, user_keys
from tests.unit.metrics.oracle import count_minutes, count_users, read_minutes, read_users

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
BEGIN_MS = 1_704_067_200_000
FUNNELS = b"""
funnels:
  buy: {steps: [look, buy], within: 1h, by: [channel], windows: [all, 1d]}
"""


def config_of(text: bytes) -> Config:
    return parse_config({"metrics.yaml": text})[0]


def event(name: str, user: str, ts_ms: int, **more: object) -> dict[str, Any]:
    return {"event": name, "user_id": user, "ts": ts_ms, **more}


def started(config: Config, *, most_events: int = MOST_EVENTS) -> PartitionMetrics:
    return PartitionMetrics(config, RING, source=0, most_events=most_events)


def continued(before: PartitionMetrics, config: Config) -> PartitionMetrics:
    after = started(config)
    after.restore(before.snapshot())
    return after


def test_nothing_is_counted_from_no_rows() -> None:
    metrics = started(config_of(FUNNELS))
    nothing = np.zeros(0, np.int64)
    batch = make_batch([event("look", "u", BEGIN_MS)])
    metrics.update(
        batch, nothing, nothing.astype(np.uint64), nothing.astype(np.uint8), turn=0, watermark_ms=0
    )
    assert metrics.all_blocks() == metrics.changed_blocks(0) == []


def test_only_the_rows_named_are_counted() -> None:
    metrics = started(config_of(b"dau: {}"))
    events = [event("look", user, BEGIN_MS) for user in "abc"]
    chosen = [events[2], events[0]]
    metrics.update(
        make_batch(events),
        np.array([2, 0]),
        user_keys(chosen),
        np.array([3, 0], np.uint8),
        turn=0,
        watermark_ms=0,
    )
    total = next(block for block in metrics.all_blocks() if block.key.scope == ALL_CAMPAIGNS)
    assert decode_rows(total) == DauRows([(ALL_CAMPAIGNS, None, 2, 1)])


def test_blocks_are_handed_over_once_per_change_in_a_fixed_order() -> None:
    config = config_of(FUNNELS)
    metrics = started(config)
    events = [event("look", "u", BEGIN_MS, campaign=c) for c in ("z", "a", None)]
    feed(metrics, events, size=3, lateness_ms=0)
    blocks = metrics.changed_blocks(5)
    assert [block.turn for block in blocks] == [5] * len(blocks)
    assert [b.key.campaign for b in blocks if b.key.metric == DAU] == [None, None, "a", "z"]
    assert metrics.changed_blocks(6) == []
    again = [*events, event("look", "u", BEGIN_MS + 1, campaign="a")]
    feed(metrics, again, size=1, lateness_ms=0, first=3)
    assert [block.key.metric for block in metrics.changed_blocks(7)] == ["events"]


def test_a_late_verdict_makes_a_user_suspect_in_every_window_still_open() -> None:
    config = config_of(FUNNELS + b"restate: 3d\n")
    events = [event("look", "u", BEGIN_MS + day * DAY_MS) for day in range(6)]
    events.append(event("other", "u", BEGIN_MS + 5 * DAY_MS, level=2))
    metrics = started(config)
    feed(metrics, events, size=4, lateness_ms=DAY_MS)
    counts = read_users(metrics.all_blocks())
    assert counts == count_users(events, config)
    days = {k.start_ms: users for (k, *_), users in counts.items() if k.metric == FUNNEL and k.window == "1d"}
    suspects = [users[1] for _, users in sorted(days.items())]
    assert suspects == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("bad_at_ms", "suspects"), [(4 * DAY_MS - 1, 1), (4 * DAY_MS, 0)])
@pytest.mark.parametrize("bad_first", [True, False])
def test_a_verdict_at_the_end_of_restate_is_too_late(bad_at_ms: int, suspects: int, bad_first: bool) -> None:
    config = config_of(b"restate: 3d")
    seen, bad = event("look", "u", BEGIN_MS), event("look", "u", BEGIN_MS + bad_at_ms, level=3)
    metrics = started(config)
    feed(metrics, [bad, seen] if bad_first else [seen, bad], size=1, lateness_ms=9 * DAY_MS)
    first = {k.scope: n for (k, *_), n in read_users(metrics.all_blocks()).items() if k.start_ms == BEGIN_MS}
    assert first == {"all_campaigns": (1, suspects), "campaign": (1, suspects)}


def test_number_and_text_of_an_attribute_are_one_value() -> None:
    config = config_of(b"dau: {by: [attrs.tier]}")
    tiers: list[Any] = [5, 5.0, "5", 0.5, "gold", None, True]
    events = [event("look", f"u{i}", BEGIN_MS, **{"attrs.tier": tier}) for i, tier in enumerate(tiers)]
    metrics = started(config)
    feed(metrics, events, size=3, lateness_ms=0, attributes=("tier",))
    counts = read_users(metrics.all_blocks())
    by_tier = {value: users for (_, dim, value, _), users in counts.items() if dim == "attrs.tier"}
    assert by_tier == {None: (1, 0), "5": (3, 0), "0.5": (1, 0), "gold": (1, 0), "1": (1, 0)}


def test_sums_stop_at_the_largest_number() -> None:
    events = [event("pay", "u", BEGIN_MS, amount_minor=2**53, cost_minor=0) for _ in range(1_030)]
    metrics = started(config_of(b""))
    feed(metrics, events, size=500, lateness_ms=0)
    minutes = read_minutes(metrics.all_blocks())
    assert minutes == count_minutes(events)
    assert [row["numbers"] for row in minutes.values()] == [(1_030, LARGEST, 1_030, 0, 1_030)]


def test_definitions_that_stay_keep_their_counts() -> None:
    before = config_of(FUNNELS + b"dau: {by: [channel]}\n")
    after = config_of(
        b"""
funnels:
  buy: {steps: [look, buy], within: 1h, by: [platform, channel], windows: [all]}
  new: {steps: [look]}
dau: {by: [platform]}
"""
    )
    first = [event("look", "u", BEGIN_MS, channel="x", platform="ios")]
    second = [event("buy", "u", BEGIN_MS + 1, channel="y", platform="web"), event("look", "v", BEGIN_MS + 2)]
    metrics = started(before)
    feed(metrics, first, size=1, lateness_ms=HOUR_MS)
    metrics.changed_blocks(0)
    metrics = continued(metrics, after)
    feed(metrics, [*first, *second], size=1, lateness_ms=HOUR_MS, first=1)
    counts = {
        (k.name, k.metric, dim, value, step): n
        for (k, dim, value, step), n in read_users(metrics.all_blocks()).items()
    }
    kept = {
        (name, dim, value, step): n
        for (name, metric, dim, value, step), n in counts.items()
        if metric == FUNNEL
    }
    assert kept == {
        ("buy", "all", None, 1): (2, 0),
        ("buy", "all", None, 2): (1, 0),
        ("buy", "channel", "x", 1): (1, 0),
        ("buy", "channel", "x", 2): (1, 0),
        ("buy", "channel", None, 1): (1, 0),
        ("buy", "platform", None, 1): (1, 0),
        ("new", "all", None, 1): (1, 0),
    }
    assert counts["", DAU, "all", None, 1] == (2, 0)
    assert ("", DAU, "channel", "x", 1) not in counts
    assert counts["", DAU, "platform", "web", 1] == (1, 0)
    since = set(metrics.since_turn.values())
    assert since == {0, 1}


def test_a_chain_that_goes_on_counts_whole_in_new_windows_and_dimensions() -> None:
    metrics = started(
        config_of(b"funnels: {buy: {steps: [look, pay, buy], within: 1h}}\ndau: {by: [channel]}")
    )
    events = [
        event(name, "u", BEGIN_MS + i, channel="x") for i, name in enumerate(("look", "pay", "look", "buy"))
    ]
    feed(metrics, events[:2], size=2, lateness_ms=HOUR_MS)
    config = config_of(
        b"funnels: {buy: {steps: [look, pay, buy], within: 1h, by: [channel], windows: [all, 1d]}}\n"
        b"dau: {by: [channel]}"
    )
    metrics = continued(metrics, config)
    feed(metrics, events, size=1, lateness_ms=HOUR_MS, first=2)
    counts = read_users(metrics.all_blocks())
    reached = {(k.window, dim, step): n for (k, dim, _, step), n in counts.items() if k.metric == FUNNEL}
    everywhere = [(window, dim) for window in ("all", "1d") for dim in ("all", "channel")]
    assert reached == {(*place, step): (1, 0) for place in everywhere for step in (1, 2, 3)}


def test_blocks_of_definitions_that_are_gone_are_emptied_once() -> None:
    metrics = started(config_of(FUNNELS))
    feed(metrics, [event("look", "u", BEGIN_MS)], size=1, lateness_ms=HOUR_MS)
    metrics.changed_blocks(0)
    other = config_of(b"funnels: {buy: {steps: [look, pay], within: 1h}}")
    metrics = continued(continued(metrics, other), other)
    emptied = [block for block in metrics.changed_blocks(1) if block.key.metric == FUNNEL]
    assert [(block.key.window, read_users([block])) for block in emptied] == [("1d", {}), ("all", {})]
    assert [block for block in metrics.changed_blocks(2) if block.key.metric == FUNNEL] == []


def test_retention_begins_empty_and_is_emptied_once_when_it_ends() -> None:
    without, month, week = (config_of(text) for text in (b"", b"retention: {}", b"retention: {days: 7}"))
    events = [event("look", user, BEGIN_MS + day * DAY_MS) for day, user in ((0, "u"), (1, "u"), (2, "v"))]
    metrics = started(without)
    feed(metrics, events[:1], size=1, lateness_ms=HOUR_MS)
    metrics = continued(metrics, month)
    feed(metrics, events, size=1, lateness_ms=HOUR_MS, first=1)
    total = {
        (k.start_ms, day): users
        for (k, _, _, day), users in read_users(metrics.all_blocks()).items()
        if k.metric == RETENTION and k.scope == ALL_CAMPAIGNS
    }
    assert total == {(BEGIN_MS + day * DAY_MS, 0): (1, 0) for day in (1, 2)}
    assert max(metrics.since_turn.values()) == 1
    shown = {block.key for block in metrics.changed_blocks(3) if block.key.metric == RETENTION}
    for config in (week, without):
        emptied = [block for block in continued(metrics, config).changed_blocks(4) if block.key in shown]
        assert {block.key for block in emptied} == shown
        assert read_users(emptied) == {}
    twice = continued(continued(metrics, without), without)
    assert {block.key for block in twice.changed_blocks(4) if block.key.metric == RETENTION} == shown
    assert [block for block in twice.changed_blocks(5) if block.key.metric == RETENTION] == []


def test_who_was_seen_once_is_never_new_again() -> None:
    metrics = started(config_of(b"{restate: 1d, retention: {days: 2}}"))
    events = [event("look", f"u{i % 50}", BEGIN_MS + i * HOUR_MS) for i in range(24 * 200)]
    found: dict[Any, Any] = {}
    for at in range(0, len(events), 240):
        feed(metrics, events[: at + 240], size=240, lateness_ms=HOUR_MS, first=at)
        blocks = [block for block in metrics.changed_blocks(at) if block.key.metric == RETENTION]
        found |= {block.key: block for block in blocks}
        assert metrics.retention is not None
        assert len(metrics.retention.tables.cohorts) <= 64  # of 400
    config = config_of(b"{restate: 1d, retention: {days: 2}}")
    want = {place: n for place, n in count_users(events, config).items() if place[0].metric == RETENTION}
    assert read_users(list(found.values())) == want
    assert sum(n[0] for place, n in want.items() if place[3] == 0) == 100


def test_a_campaign_on_another_clock_starts_its_dates_anew() -> None:
    metrics = started(config_of(b"retention: {}"))
    events = [event("look", "u", BEGIN_MS, campaign=c) for c in ("a", "b")]
    feed(metrics, events, size=2, lateness_ms=HOUR_MS)
    metrics.changed_blocks(0)
    moved = config_of(b"{retention: {}, campaigns: {a: {timezone: America/New_York}}}")
    metrics = continued(metrics, moved)
    changed = metrics.changed_blocks(1)
    for metric in (DAU, RETENTION):
        blocks = {
            block.key.campaign: read_users([block])
            for block in changed
            if block.key.metric == metric and block.key.scope != ALL_CAMPAIGNS
        }
        assert blocks["a"] == {}
        assert [*blocks["b"].values()] == [(1, 0)]
    again = event("look", "u", BEGIN_MS + DAY_MS, campaign="a")
    feed(metrics, [*events, again], size=1, lateness_ms=HOUR_MS, first=2)
    found = {
        (k.scope, k.start_ms, day): n
        for (k, _, _, day), n in read_users(metrics.all_blocks()).items()
        if k.metric == RETENTION and k.campaign != "b"
    }
    assert found == {
        (ALL_CAMPAIGNS, BEGIN_MS, 0): (1, 0),
        (ALL_CAMPAIGNS, BEGIN_MS, 1): (1, 0),
        ("campaign", BEGIN_MS, 0): (1, 0),
    }


def test_a_longer_restate_counts_suspects_again() -> None:
    config = config_of(b"{restate: 1d, retention: {days: 1}}")
    events = [event("look", "u", BEGIN_MS), event("look", "u", BEGIN_MS + 3 * DAY_MS, level=2)]
    metrics = started(config)
    feed(metrics, events, size=2, lateness_ms=10 * DAY_MS)
    longer = config_of(b"{restate: 9d, retention: {days: 1}}")
    assert read_users(metrics.all_blocks()) == count_users(events, config)
    metrics = continued(metrics, longer)
    assert read_users(metrics.all_blocks()) == count_users(events, longer)


def test_what_is_over_and_published_is_forgotten() -> None:
    metrics = started(config_of(b"restate: 1d"))
    events = [event("look", f"u{i % 50}", BEGIN_MS + i * HOUR_MS, dwell_ms=i) for i in range(24 * 200)]
    sizes = []
    for at in range(0, len(events), 24):
        feed(metrics, events[: at + 24], size=24, lateness_ms=HOUR_MS, first=at)
        metrics.changed_blocks(at)
        sizes.append(
            (*metrics.users.members.used[[LINKS, BLOCKS]].tolist(), *metrics.counts.tables.used[:3].tolist())
        )
    assert np.max(sizes[100:], axis=0).tolist() <= (2 * np.max(sizes[:20], axis=0)).tolist()


def test_what_is_over_but_not_published_is_kept() -> None:
    config = config_of(b"restate: 1d")
    metrics = started(config)
    events = [event("look", f"u{i % 50}", BEGIN_MS + i * HOUR_MS, dwell_ms=i) for i in range(24 * 60)]
    feed(metrics, events, size=24, lateness_ms=HOUR_MS)
    assert metrics.users.members.used[LINKS] < len(events)
    metrics = continued(metrics, config)
    assert read_users(metrics.changed_blocks(0)) == count_users(events, config)
    assert read_minutes(metrics.all_blocks()) == count_minutes(events)


def test_a_million_looks_do_not_hide_a_purchase_and_cost_little() -> None:
    metrics = started(config_of(FUNNELS), most_events=64)
    looks = [event("look", "u", BEGIN_MS + i) for i in range(20_000)]
    feed(metrics, [*looks, event("buy", "u", BEGIN_MS + 20_000)], size=1_000, lateness_ms=HOUR_MS)
    counts = read_users(metrics.all_blocks())
    assert {step: n for (k, dim, _, step), n in counts.items() if k.window == "all" and dim == "all"} == {
        1: (1, 0),
        2: (1, 0),
    }
    assert metrics.ignored_step_events == 20_000 - 64
    slabs, arena = metrics.funnels[0].slabs.used[:2].tolist()
    assert slabs == 1
    assert arena <= 4 * 64


def test_an_event_below_the_promise_is_said_to_be_missing() -> None:
    metrics = started(config_of(b""))
    events = [event("look", "u", BEGIN_MS + 5 * HOUR_MS), event("look", "u", BEGIN_MS)]
    feed(metrics, events, size=1, lateness_ms=HOUR_MS)
    assert metrics.outdated_events == 1
    assert len(read_minutes(metrics.all_blocks())) == 1


@pytest.mark.parametrize("damage", [b"", msgspec.msgpack.encode({"version": 0})])
def test_a_foreign_snapshot_is_refused(damage: bytes) -> None:
    state = started(config_of(b"")).snapshot()
    with pytest.raises(StateError, match="cannot be read"):
        started(config_of(b"")).restore({**state, "meta": damage})


def test_another_version_is_refused() -> None:
    state = started(config_of(b"")).snapshot()
    meta = {**msgspec.msgpack.decode(bytes(state["meta"])), "version": 99}
    with pytest.raises(StateError, match="version 99"):
        started(config_of(b"")).restore({**state, "meta": msgspec.msgpack.encode(meta)})


def test_keys_of_blocks_say_what_is_counted() -> None:
    metrics = started(config_of(FUNNELS))
    feed(metrics, [event("look", "u", BEGIN_MS + HOUR_MS, campaign="c")], size=1, lateness_ms=0)
    assert {block.key for block in metrics.all_blocks()} == {
        BlockKey("dau", "", "1d", BEGIN_MS, "all_campaigns", None),
        BlockKey("dau", "", "1d", BEGIN_MS, "campaign", "c"),
        BlockKey("events", "look", "5m", BEGIN_MS + HOUR_MS, "campaign", "c"),
        BlockKey("funnel", "buy", "all", None, "campaign", "c"),
        BlockKey("funnel", "buy", "1d", BEGIN_MS, "campaign", "c"),
    }


@pytest.mark.parametrize("restart", [False, True])
def test_kpi_windows_are_forgotten_when_they_are_over_and_published(restart: bool) -> None:
    config = config_of(b"kpi_alerts: {quiet: {metric: events.look.count, window: 10m, below: 5}}")
    events = [event("look", "u", BEGIN_MS + i * HOUR_MS) for i in range(200)]
    metrics = started(config)
    feed(metrics, events[:100], size=10, lateness_ms=HOUR_MS)
    unpublished = len(metrics.snapshot()["kpi.meta"])
    assert len(metrics.kpi_blocks(99)) == 101
    if restart:
        metrics = continued(metrics, config)
    feed(metrics, events, size=10, lateness_ms=HOUR_MS, first=100)
    metrics.kpi_blocks(199)
    feed(metrics, [*events, event("look", "u", BEGIN_MS + 300 * HOUR_MS)], size=1, lateness_ms=0, first=200)
    assert 10 * len(metrics.snapshot()["kpi.meta"]) < unpublished

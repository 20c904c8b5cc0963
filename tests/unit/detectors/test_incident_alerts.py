"""One alert for one incident: when it opens, when it is over, whatever comes twice or late."""

from __future__ import annotations

import random

import msgspec
import pytest

from detectors.incident_alerts import TOLD, IncidentAlerts
from schemas.alerts import Alert
from schemas.config import Config, parse_config
from schemas.incidents import Incident, IncidentCounts, added, incident_block
from schemas.partials import Block

DAY_MS = 86_400_000
CONFIG, _ = parse_config(
    {
        "a.yaml": """
features: {others: {entity: device_id, distinct: user_id, exclude: self}}
rules: {shared_device: {when: others >= 2, reason_zh: 同一设备多个账号, reason_en: several accounts on one device}}
alerts: {min_users: 4, min_events: 5}
""".encode()
    }
)
RING = Incident(
    "shared_device", "device_id", "60303ae22b998861bce3b28f33eec1be", "spring", 20_000 * DAY_MS, DAY_MS
)


def counts_of(
    *, users: int, events: int, over: bool = False, block: int = 0, cost: int = 0, at: int = 0
) -> IncidentCounts:
    return IncidentCounts(
        events=events,
        users=users,
        review=events - block,
        block=block,
        costing=min(1, cost),
        cost_minor=cost,
        first_ms=RING.start_ms + at,
        last_ms=RING.start_ms + at + 1000,
        raised_ms=None,
        accounts=tuple(f"{at}-{i}" for i in range(users)),
        reasons=(("shared_device", events),),
        config_hash="c" * 32,
        over=over,
    )


def block(counts: IncidentCounts, *, source: int = 0, turn: int = 0) -> Block:
    return incident_block(RING, counts, source=source, turn=turn)


def tell(alerts: IncidentAlerts) -> list[Alert]:
    due = alerts.due()
    for _, note in due:
        alerts.told(note)
    return [alert for alert, _ in due]


def test_partitions_are_added_up_and_it_opens_once() -> None:
    alerts = IncidentAlerts(CONFIG)
    alerts.put(block(counts_of(users=3, events=9)))
    assert tell(alerts) == []
    alerts.put(block(counts_of(users=1, events=2, at=5000, block=1), source=1))
    (alert,) = tell(alerts)
    assert (alert.state, alert.severity, alert.evidence["users"]) == ("open", "block", 4)
    assert alert.evidence["events"] == 11
    assert (alert.since_ms, alert.ts_ms) == (RING.start_ms, RING.start_ms + 6000)
    alerts.put(block(counts_of(users=3, events=12), turn=1))
    assert tell(alerts) == []


@pytest.mark.parametrize(("users", "events"), [(3, 99), (99, 4)])
def test_both_thresholds_count(users: int, events: int) -> None:
    alerts = IncidentAlerts(CONFIG)
    alerts.put(block(counts_of(users=users, events=events, over=True)))
    assert tell(alerts) == []


def test_it_is_over_when_everybody_says_so() -> None:
    alerts = IncidentAlerts(CONFIG)
    alerts.put(block(counts_of(users=4, events=9)))
    alerts.put(block(counts_of(users=2, events=9, over=True), source=1))
    assert [alert.state for alert in tell(alerts)] == ["open"]
    alerts.put(block(counts_of(users=5, events=10, over=True), turn=1))
    (alert,) = tell(alerts)
    assert (alert.state, alert.ts_ms, alert.evidence["users"]) == ("resolved", RING.end_ms, 7)
    alerts.put(block(counts_of(users=6, events=11, over=True), turn=2))
    assert tell(alerts) == []


def test_what_was_not_told_is_told_again_and_what_was_told_is_not() -> None:
    alerts = IncidentAlerts(CONFIG)
    over = block(counts_of(users=4, events=9, over=True))
    alerts.put(over)
    first = alerts.due()
    assert [alert.state for alert, _ in first] == ["open", "resolved"]
    assert alerts.due() == first
    anew = IncidentAlerts(CONFIG)
    for known in (first[0][1], over):  # as a table gives them: the first was told
        anew.put(known)
    assert [alert for alert, _ in anew.due()] == [first[1][0]]
    done = IncidentAlerts(CONFIG)
    for known in (over, first[1][1]):
        done.put(known)
    assert done.due() == []


def test_older_blocks_are_refused() -> None:
    alerts = IncidentAlerts(CONFIG)
    assert alerts.put(block(counts_of(users=9, events=9), turn=5))
    assert not alerts.put(block(counts_of(users=1, events=1), turn=4))
    assert [alert.evidence["users"] for alert in tell(alerts)] == [9]


def test_ids_and_states_hang_on_no_order_and_no_repeat() -> None:
    draw = random.Random(4)
    rings = [msgspec.structs.replace(RING, dim_value=f"{i:032x}") for i in range(30)]
    blocks = [
        incident_block(
            ring, counts_of(users=turn + i % 4, events=9, over=turn == 3), source=source, turn=turn
        )
        for i, ring in enumerate(rings)
        for source in (0, 1)
        for turn in range(4)
    ]
    found = []
    for _ in range(4):
        alerts, told = IncidentAlerts(CONFIG), []
        shuffled = [*blocks, *draw.sample(blocks, 40)]
        draw.shuffle(shuffled)
        for each in shuffled:
            alerts.put(each)
            if draw.random() < 0.3:
                told += tell(alerts)
        told += tell(alerts)
        assert len({alert.key for alert in told}) == len(told)
        found.append({alert.key for alert in told})
    assert found[0] == found[1] == found[2] == found[3]
    assert len(found[0]) == 60


def test_only_what_is_over_is_forgotten() -> None:
    alerts = IncidentAlerts(CONFIG)
    alerts.put(block(counts_of(users=4, events=9, over=True)))
    tell(alerts)
    other = incident_block(
        msgspec.structs.replace(RING, name="other"), counts_of(users=4, events=9), source=0, turn=0
    )
    alerts.put(other)
    tell(alerts)
    gone = alerts.forget(keep=0)
    assert sorted(source for _, source in gone) == [TOLD, 0]
    assert {key for key, _ in gone} == {block(counts_of(users=1, events=1)).key}
    assert alerts.forget(keep=0) == []


def test_texts_say_who_where_how_long_and_what_it_cost() -> None:
    alerts = IncidentAlerts(CONFIG)
    alerts.put(block(counts_of(users=12, events=34, block=30, cost=3600)))
    (alert,) = tell(alerts)
    assert alert.title_en == "Suspected wool party: several accounts on one device (spring)"
    assert alert.title_zh == "疑似羊毛党：同一设备多个账号（spring）"
    assert alert.text_en == (
        "Campaign spring: 12 accounts on one device (pseudonym 60303ae2…) within 1 second: 34 suspicious events "
        "(30 to block, 4 to review); 1 of them took something, worth 3600 minor units together."
    )
    assert alert.text_zh == (
        "活动 spring，一台设备（代号 60303ae2…）上的 12 个账号在 1 秒内有 34 次可疑行为（拦截 30，待审 4），"
        "其中 1 次领取，成本合计 3600（最小货币单位）。"
    )


def test_a_rule_that_is_gone_is_told_by_its_code() -> None:
    alerts = IncidentAlerts(Config())
    alerts.put(block(counts_of(users=4, events=9)))
    assert [alert.title_en for alert in tell(alerts)] == ["Suspected wool party: shared_device (spring)"]


def test_counts_add_up() -> None:
    parts = [counts_of(users=3, events=9, at=50), counts_of(users=7, events=1, over=True)]
    whole = added(parts)
    assert (whole.users, whole.events, whole.over, whole.first_ms) == (10, 10, False, RING.start_ms)
    assert len(whole.accounts) == 8
    assert whole.reasons == (("shared_device", 10),)

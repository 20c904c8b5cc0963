"""The campaign: the same from the same seed, in order, in bounded memory, and events that the engine takes."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from schemas.decode import decode_json
from schemas.tabular import decode_table
from simulation.campaign import Campaign
from simulation.rendering import TRUTH_COLUMNS
from tests.unit.simulation.campaigns import BREAK, CAMPAIGN, DAY_MS, EVENTS, START_MS, ask, events_of


def test_the_same_seed_gives_the_same_events_and_another_gives_others() -> None:
    again = pa.concat_tables(CAMPAIGN.batches())
    assert again.num_rows == EVENTS
    assert again.equals(events_of(CAMPAIGN))
    other = next(iter(replace(CAMPAIGN, seed=6).batches()))
    assert not set(other["user_id"].to_pylist()) & set(again["user_id"].to_pylist())


@pytest.mark.parametrize("events", [1, 37, 1_000, 40_000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_there_are_exactly_as_many_events_as_asked_for(events: int, seed: int) -> None:
    campaign = Campaign(seed=seed, events=events, start_ms=START_MS, duration_ms=DAY_MS)
    assert sum(table.num_rows for table in campaign.batches()) == events


def test_time_ascends_from_the_start_to_about_the_end() -> None:
    ts = events_of(CAMPAIGN)["ts"].to_numpy()
    assert (np.diff(ts) >= 0).all()
    assert START_MS <= ts[0] < START_MS + 600_000
    assert START_MS + 1.85 * DAY_MS < ts[-1] < START_MS + 2.1 * DAY_MS


def test_ids_are_unique_and_say_nothing() -> None:
    [(events, ids)] = ask("SELECT count(*), count(DISTINCT event_id) FROM events")
    assert events == ids
    shapes = ask("""
        SELECT DISTINCT label, regexp_replace(user_id, '[0-9a-f]{16}$', ''), length(user_id),
            regexp_replace(device_id, '[0-9a-f]{16}$', ''), regexp_replace(session_id, '[0-9a-f]{16}$', '')
        FROM events""")
    assert sorted(shapes) == [(0, "u", 17, "d", "s"), (1, "u", 17, "d", "s")]


def test_memory_does_not_grow_with_the_campaign() -> None:
    def peak_bytes(days: int) -> int:
        campaign = Campaign(seed=1, events=40_000 * days, start_ms=START_MS, duration_ms=days * DAY_MS)
        tracemalloc.start()
        for _ in campaign.batches():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(12) < 1.3 * peak_bytes(3)


def test_the_engine_takes_every_event_as_table_and_as_json() -> None:
    table = events_of(CAMPAIGN).slice(0, 16_384).drop_columns(list(TRUTH_COLUMNS))
    place: dict[str, Any] = {
        "topic": "recording",
        "partition": 0,
        "start": 0,
        "next": len(table),
        "offsets": np.arange(len(table)),
    }
    from_table = decode_table(table, **place).batch
    rows = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    from_json = decode_json([orjson.dumps(row) for row in rows], **place)
    assert not from_table.rejections
    assert not from_json.rejections
    assert (from_table.integers == from_json.integers).all()
    assert np.array_equal(from_table.floats, from_json.floats, equal_nan=True)
    for row in range(0, len(table), 97):
        assert from_table.text("ip", row) == rows[row].get("ip")  # canonical as it is


def test_a_session_is_one_visit_of_one_user_on_one_device() -> None:
    [(users, devices, longest_ms)] = ask("""
        SELECT max(users), max(devices), max(lasts) FROM (
            SELECT count(DISTINCT user_id) AS users, count(DISTINCT device_id) AS devices, max(ts) - min(ts) AS lasts
            FROM events GROUP BY session_id)""")
    assert (users, devices) == (1, 1)
    assert 60_000 < longest_ms < 36 * 60_000  # nine acts of at most four minutes


def test_nobody_signs_up_twice_or_takes_part_before() -> None:
    assert ask("""
        SELECT count(*) FROM (
            SELECT user_id, count(*) FILTER (event = 'signup') signups,
                min(ts) FILTER (event = 'signup') signed, min(ts) FILTER (event IN ('participate', 'redeem')) took
            FROM events GROUP BY user_id)
        WHERE signups > 1 OR (took IS NOT NULL AND (signed IS NULL OR took < signed))""") == [(0,)]


def test_what_the_campaign_gives_and_gets_is_on_the_events() -> None:
    rows = ask(
        "SELECT event, count(cost_minor) / count(*), count(amount_minor) / count(*) FROM events GROUP BY event"
    )
    money = {event: (costs, amounts) for event, costs, amounts in rows}
    assert money["redeem"] == (1, 1)
    assert money["purchase"] == (0, 1)
    assert 0.1 < money["participate"][0] < 0.2
    assert money["exposure"] == money["click"] == (0, 0)
    assert set(money) == {
        "exposure", "click", "page_view", "signup", "participate", "redeem", "share", "purchase"
    }  # fmt: skip


def test_a_break_is_seen_in_its_channel_in_its_time_and_nowhere_else() -> None:
    broken = events_of(replace(CAMPAIGN, break_=BREAK))

    def rates(events: object) -> dict[tuple[str, bool], float]:
        """Of the sign-ups, how many take part in the same visit, by channel, in the break and outside."""
        return {
            (channel, inside): rate
            for channel, inside, rate in ask(
                f"""
                SELECT channel, signed BETWEEN {BREAK.from_ms} AND {BREAK.to_ms - 60_000} AS inside, avg(took::INT)
                FROM (SELECT session_id, any_value(channel) channel, min(ts) FILTER (event = 'signup') signed,
                    bool_or(event = 'participate') took FROM events GROUP BY session_id)
                WHERE signed IS NOT NULL GROUP BY channel, inside""",
                events,
            )
        }

    before, after = rates(events_of(CAMPAIGN)), rates(broken)
    assert after["ads", True] < 0.05
    assert before["ads", True] > 0.6
    for key in before.keys() - {("ads", True)}:
        assert after[key] == pytest.approx(before[key], abs=0.05), key
    lost = ask("SELECT count(*) FROM events WHERE event = 'participate' AND channel = 'ads' "
               f"AND ts >= {BREAK.from_ms} AND ts < {BREAK.to_ms}", broken)  # fmt: skip
    assert lost == [(0,)]


def test_most_people_do_little_and_variants_are_even() -> None:
    users = Counter(
        dict(ask("SELECT variant, count(DISTINCT user_id) FROM events WHERE label = 0 GROUP BY 1"))
    )
    assert users["a"] / users.total() == pytest.approx(0.5, abs=0.02)
    steps = dict(ask("SELECT event, count(DISTINCT user_id) FROM events WHERE label = 0 GROUP BY 1"))
    assert steps["exposure"] > steps["click"] > steps["signup"] > steps["participate"] > steps["redeem"] > 0

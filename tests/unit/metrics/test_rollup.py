from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from metrics.merged_rows import merge_users
from metrics.quantiles import BOUNDARIES, bucket_middles, bucket_of
from metrics.rollup import Part, Rollup
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.partials import (
    Block,
    BlockKey,
    DauRows,
    EventRows,
    FunnelRows,
    Rows,
    empty_rows,
    encode_rows,
)

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
BEGIN_MS = 1_704_067_200_000
DAY = BlockKey("dau", "", "1d", BEGIN_MS, "campaign", None)
TOTAL = BlockKey("dau", "", "1d", BEGIN_MS, "all_campaigns", None)
FUNNEL = BlockKey("funnel", "buy", "all", None, "campaign", "c")
SPAN = BlockKey("events", "look", "5m", BEGIN_MS, "campaign", "c")


def block(key: BlockKey, rows: Rows, *, source: int = 0, turn: int = 0) -> Block:
    return Block(key, source, turn, encode_rows(rows))


def event_rows(rows: Sequence[tuple[int, str | None, tuple[int, ...], dict[int, int]]]) -> EventRows:
    channels = sorted({row[1] for row in rows}, key=str)
    histogram = [(i, b, n) for i, row in enumerate(rows) for b, n in sorted(row[3].items())]
    at, buckets, counts = np.array(histogram).reshape(-1, 3).T
    return EventRows(
        channels=channels,
        minute=bytes(row[0] for row in rows),
        channel=np.array([channels.index(row[1]) for row in rows], "<u2").tobytes(),
        numbers=np.array([row[2] for row in rows], "<i8").tobytes(),
        histogram_row=at.astype("<u4").tobytes(),
        bucket=buckets.astype("<u2").tobytes(),
        bucket_count=counts.astype("<i8").tobytes(),
    )


def test_sources_are_added_in_whatever_order_they_come() -> None:
    blocks = [
        block(DAY, DauRows([("all", None, 5, 1), ("channel", "b", 5, 1)]), source=0, turn=9),
        block(DAY, DauRows([("all", None, 3, 3), ("channel", None, 1, 1), ("channel", "a", 2, 2)]), source=1),
        block(DAY, DauRows([("all", None, 4, 1)]), source=0, turn=2),
        block(TOTAL, DauRows([("all_campaigns", None, 8, 4)]), source=1),
    ]
    tables = []
    for order in itertools.permutations(blocks):
        rollup = Rollup()
        for one in order:
            rollup.put(one)
        tables.append(rollup.table("dau"))
    assert all(table.equals(tables[0]) for table in tables)
    same: dict[str, Any] = {"date": date(2024, 1, 1), "campaign": None, "error": 0.0}
    rows = [
        ("all_campaigns", None, 8, 4),
        ("all", None, 8, 4),
        ("channel", None, 1, 1),
        ("channel", "a", 2, 2),
        ("channel", "b", 5, 1),
    ]
    assert tables[0].to_pylist() == [
        same
        | {
            "dim": dim,
            "dim_value": value,
            "users_gross": gross,
            "users_suspect": bad,
            "users_clean": gross - bad,
        }
        for dim, value, gross, bad in rows
    ]


def test_an_older_turn_is_refused_and_an_equal_one_replaces() -> None:
    rollup = Rollup()
    assert rollup.put(block(DAY, DauRows([("all", None, 5, 1)]), turn=3))
    assert not rollup.put(block(DAY, DauRows([("all", None, 4, 0)]), turn=2))
    assert rollup.put(block(DAY, DauRows([("all", None, 6, 2)]), turn=3))
    assert rollup.put(block(DAY, DauRows([("all", None, 1, 1)]), turn=0, source=1))
    assert rollup.merged(DAY).column("users_gross").to_pylist() == [7]


def test_funnels_have_a_row_for_every_step() -> None:
    rollup = Rollup()
    steps = ("look", "buy")
    rollup.put(
        block(FUNNEL, FunnelRows(steps, [("all", None, [5, 2], [1, 0]), ("channel", "x", [5, 2], [1, 0])]))
    )
    rollup.put(block(FUNNEL, FunnelRows(steps, [("all", None, [1, 0], [1, 0])]), source=4))
    day = BlockKey("funnel", "buy", "1d", BEGIN_MS, "campaign", "c")
    rollup.put(block(day, FunnelRows(steps, [("all", None, [1, 0], [0, 0])])))
    table = rollup.table("funnel")
    assert table.schema == METRIC_SCHEMAS["funnel"]
    found = table.select(
        ["window", "window_start", "dim", "dim_value", "step", "step_name", "users_gross", "users_clean"]
    )
    start = datetime(2024, 1, 1, tzinfo=UTC)
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("1d", start, "all", None, 1, "look", 1, 1),
        ("1d", start, "all", None, 2, "buy", 0, 0),
        ("all", None, "all", None, 1, "look", 6, 4),
        ("all", None, "all", None, 2, "buy", 2, 2),
        ("all", None, "channel", "x", 1, "look", 5, 4),
        ("all", None, "channel", "x", 2, "buy", 2, 2),
    ]


def test_the_newest_turn_says_which_steps_a_funnel_has() -> None:
    rollup = Rollup()
    rollup.put(
        block(FUNNEL, FunnelRows(("look", "pay", "buy"), [("all", None, [9, 9, 9], [0, 0, 0])]), turn=4)
    )
    rollup.put(block(FUNNEL, FunnelRows(("look", "buy"), [("all", None, [2, 1], [0, 0])]), turn=5, source=1))
    assert rollup.merged(FUNNEL).column("step_name").to_pylist() == ["look", "buy"]


def test_minutes_are_added_and_quantiles_made_of_all_sources() -> None:
    dwell = {0: [10, 20, 30, 5_000], 1: [40, 7_000_000]}
    rollup = Rollup()
    for source, values in dwell.items():
        buckets: dict[int, int] = {}
        for value in values:
            bucket = bucket_of(BOUNDARIES, value)
            buckets[bucket] = buckets.get(bucket, 0) + 1
        rows = [(7, "x", (len(values), 100, 2, 3, 1), buckets), (59, None, (1, 0, 0, 0, 0), {})]
        rollup.put(block(SPAN, event_rows(rows), source=source))
    middles = [bucket_middles(np.array([bucket_of(BOUNDARIES, v)]))[0] for v in (30, 7_000_000)]
    same = {"campaign": "c", "event": "look"}
    at = datetime(2024, 1, 1, tzinfo=UTC)
    assert rollup.table("events").to_pylist() == [
        same
        | {"window_start": at.replace(minute=7), "channel": "x", "count": 6, "dwell_count": 6}
        | {"dwell_p50": middles[0], "dwell_p90": middles[1], "dwell_p99": middles[1]}
        | {"amount_minor_sum": 200, "cost_minor_sum": 6},
        same
        | {"window_start": at.replace(minute=59), "channel": None, "count": 2, "dwell_count": 0}
        | {"dwell_p50": None, "dwell_p90": None, "dwell_p99": None}
        | {"amount_minor_sum": 0, "cost_minor_sum": 0},
    ]


def test_sums_of_sources_stop_at_the_largest_number() -> None:
    rollup = Rollup()
    for source in range(3):
        rollup.put(block(SPAN, event_rows([(0, None, (1, 2**62, 1, 2**63 - 1, 1), {})]), source=source))
    row = rollup.merged(SPAN).to_pylist()[0]
    assert (row["count"], row["amount_minor_sum"], row["cost_minor_sum"]) == (3, 2**63 - 1, 2**63 - 1)


def test_changed_keys_are_reported_once_with_the_rows_that_went() -> None:
    rollup = Rollup()
    rollup.put(block(DAY, DauRows([("all", None, 5, 1), ("channel", "x", 5, 1)])))
    rollup.put(block(FUNNEL, FunnelRows(("look",), [("all", None, [5], [1])])))
    assert rollup.changed_keys() == [DAY, FUNNEL]
    assert [rollup.merged(key).num_rows for key in (DAY, FUNNEL)] == [2, 1]
    assert rollup.changed_keys() == []
    rollup.put(block(DAY, DauRows([("all", None, 5, 1), ("channel", "x", 5, 1)]), turn=1))
    assert rollup.changed_keys() == [], "nothing but the turn is new"
    rollup.put(block(DAY, DauRows([("all", None, 6, 1)]), turn=2))
    rollup.put(Block(FUNNEL, 0, 2, empty_rows("funnel")))
    assert rollup.changed_keys() == [DAY, FUNNEL]
    assert rollup.gone(DAY).select(["dim", "dim_value"]).to_pylist() == [{"dim": "channel", "dim_value": "x"}]
    assert rollup.gone(FUNNEL).num_rows == 1
    assert rollup.table("funnel").num_rows == 0


@pytest.mark.parametrize("name", ["funnel", "dau", "events", "retention"])
def test_a_table_without_rows_has_its_columns(name: str) -> None:
    assert Rollup().table(name).equals(METRIC_SCHEMAS[name].empty_table())


def test_emptied_spans_are_no_rows() -> None:
    rollup = Rollup()
    rollup.put(Block(SPAN, 0, 0, empty_rows("events")))
    rollup.changed_keys()
    assert rollup.table("events").num_rows == rollup.merged(SPAN).num_rows == rollup.gone(SPAN).num_rows == 0


def test_a_table_made_after_each_block_equals_one_made_at_the_end() -> None:
    gradually, at_once = Rollup(), Rollup()
    for i in range(60):
        key = BlockKey("dau", "", "1d", BEGIN_MS + i % 20 * DAY_MS, "campaign", f"c{i % 3}")
        one = block(key, DauRows([("all", None, i, 0)]), source=i % 2, turn=i)
        gradually.put(one)
        gradually.table("dau")
        at_once.put(one)
    assert gradually.table("dau").equals(at_once.table("dau"))
    assert at_once.table("dau").num_rows == 60


def test_events_of_many_keys_and_sources_equal_a_plain_sum() -> None:
    draw = random.Random(4)
    expected: dict[tuple[Any, ...], list[int]] = {}
    gradually, at_once = Rollup(), Rollup()
    for source, event, campaign, span in itertools.product(range(3), ("buy", "look"), (None, "c"), range(80)):
        start_ms = BEGIN_MS + span * HOUR_MS // 3
        channels = draw.sample([None, "x", "y", "z"], 2)
        places = sorted(itertools.product(range(0, 5, draw.randint(1, 4)), channels), key=str)
        rows = []
        for minute, channel in places:
            numbers = tuple(draw.randint(0, 99) for _ in range(5))
            rows.append((minute, channel, numbers, {draw.randint(0, 99): numbers[0] + 1}))
            sums = expected.setdefault((event, campaign, start_ms + minute * 60_000, channel), [0] * 4)
            for i, added in enumerate((numbers[0], numbers[1], numbers[3], numbers[0] + 1)):
                sums[i] += added
        one = block(
            BlockKey("events", event, "5m", start_ms, "campaign", campaign), event_rows(rows), source=source
        )
        at_once.put(one)
        gradually.put(one)
        if draw.random() < 0.02:
            gradually.table("events")
    table = at_once.table("events")
    assert gradually.table("events").combine_chunks().equals(table.combine_chunks())
    columns = ["event", "campaign", "window_start", "channel", "count", "amount_minor_sum", "cost_minor_sum"]
    found = [tuple(row.values()) for row in table.select([*columns, "dwell_count"]).to_pylist()]
    assert {(e, c, int(at.timestamp() * 1_000), ch): n for e, c, at, ch, *n in found} == expected
    assert found == sorted(found, key=lambda row: (row[0], row[1] or "", row[2], row[3] or ""))


def test_a_day_that_was_forgotten_is_as_before_when_its_blocks_come_again() -> None:
    rollup = Rollup()
    first_day = BEGIN_MS // DAY_MS
    days = [Part("events", first_day), Part("events", first_day + 1)]
    for hour in (0, 23, 24, 47):
        key = BlockKey("events", "look", "5m", BEGIN_MS + hour * HOUR_MS, "campaign", "c")
        rollup.put(block(key, event_rows([(0, None, (hour + 1, 0, 0, 0, 0), {})])))
    rollup.put(block(DAY, DauRows([("all", None, 5, 1)])))
    assert set(rollup.parts()) == rollup.changed_parts() == {*days, Part("dau")}
    whole, of_day = rollup.table("events"), [rollup.table_of(part) for part in days]
    assert [table["count"].to_pylist() for table in of_day] == [[1, 24], [25, 48]]
    assert whole["count"].to_pylist() == [1, 24, 25, 48]
    rollup.changed_keys()
    assert rollup.changed_parts() == set()

    blocks = rollup.blocks_of(days[0])
    rollup.forget(days[0])
    assert (rollup.blocks_of(days[0]), len(rollup.table_of(days[0]))) == ([], 0)
    assert rollup.table("events").equals(of_day[1])
    for one in blocks:
        assert rollup.put(one)
    assert rollup.changed_parts() == {days[0]}
    assert rollup.table("events").equals(whole)


def test_errors_of_sources_add_up_as_variances_do() -> None:
    rollup = Rollup()
    rollup.put(block(DAY, DauRows([("all", None, 600, 60), ("channel", "x", 10, 1)], [2_500, 0]), source=0))
    rollup.put(block(DAY, DauRows([("all", None, 400, 40)], [11_900]), source=1))
    rollup.put(block(DAY, DauRows([("all", None, 1_000, 0)]), source=2))
    rows = rollup.merged(DAY).to_pylist()
    assert [(row["users_gross"], row["users_suspect"], row["error"]) for row in rows] == [
        (2_000, 100, 0.06),
        (10, 1, 0),
    ]


def test_a_block_from_before_there_were_errors_is_exact() -> None:
    old = Block(DAY, 0, 1, msgspec.msgpack.encode([[("all", None, 5, 1)]]))
    assert [row[4:] for row in merge_users([old])] == [(5, 1, 0.0)]

"""Metrics of the recorded events against DuckDB, and the funnels that two independent methods agreed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from metrics.partition_metrics import PartitionMetrics
from metrics.rollup import Rollup
from schemas.config import parse_config
from tests.unit.metrics.batches import RING, make_batch, user_keys

LATENESS_MS = 3_600_000
FILES = {
    "rete_ecom": ("channel", "platform"),
    "rees46": ("channel",),
    "fraud_dev": ("channel", "attrs.browser"),
    "talkingdata": ("channel", "attrs.app"),
}


def recorded(path: Path) -> list[dict[str, Any]]:
    rows = duckdb.read_parquet(str(path))
    names = [f"attrs.{name}" if name in {"browser", "app"} else name for name in rows.columns]
    return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def counted(events: list[dict[str, Any]], config_text: str, attributes: tuple[str, ...]) -> Rollup:
    """Merged metrics of two partitions, users apart, fed in batches and published now and then."""
    config, _ = parse_config({"metrics.yaml": config_text.encode()})
    parts = [PartitionMetrics(config, RING, source=source) for source in range(2)]
    rollup = Rollup()
    largest_ms = 0
    for turn, at in enumerate(range(0, len(events), 997)):
        cut = events[at : at + 997]
        batch, keys = make_batch(cut, start=at, attributes=attributes), user_keys(cut)
        largest_ms = max(largest_ms, int(batch.integers[0].max()))
        for source, part in enumerate(parts):
            rows = np.flatnonzero(keys % np.uint64(2) == source)
            levels = np.array([2 * (cut[row].get("label") == 1) for row in rows], np.uint8)
            part.update(batch, rows, keys[rows], levels, turn=turn, watermark_ms=largest_ms - LATENESS_MS)
            if turn % 5 == 0:
                _put(rollup, part, turn)
    for part in parts:
        _put(rollup, part, 1 << 20)
    return rollup


def _put(rollup: Rollup, part: PartitionMetrics, turn: int) -> None:
    for block in part.changed_blocks(turn):
        assert rollup.put(block)


def daily_users(path: Path, column: str) -> list[tuple[Any, ...]]:
    """(day, value, gross, suspect) by a column, in UTC."""
    with duckdb.connect() as connection:
        connection.read_parquet(str(path)).project(f"*, {column}::varchar as dim_value").create_view("events")
        return connection.execute(
            """
            with bad as (select user_id, min(ts) as bad_ms from events where label = 1 group by 1)
            select epoch_ms(ts)::date as day, dim_value, count(distinct user_id) as gross,
                count(distinct user_id) filter (where bad_ms < epoch_ms(day + interval 31 day)) as suspect
            from events left join bad using (user_id) group by 1, 2
            """
        ).fetchall()


@pytest.mark.parametrize("name", FILES)
def test_daily_users_equal_a_count_by_duckdb(data_dir: Path, name: str) -> None:
    path, dims = data_dir / f"{name}.parquet", FILES[name]
    attributes = tuple(dim.removeprefix("attrs.") for dim in dims if dim.startswith("attrs."))
    rollup = counted(recorded(path), f"dau: {{by: [{', '.join(dims)}]}}", attributes)
    table = rollup.table("dau")
    found = {
        (row["date"], row["dim"], row["dim_value"]): (
            row["users_gross"],
            row["users_suspect"],
            row["users_clean"],
        )
        for row in table.to_pylist()
    }
    assert len(found) == table.num_rows
    expected: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for dim in ("all", "all_campaigns", *dims):
        column = "null" if dim.startswith("all") else dim.removeprefix("attrs.")
        for day, value, gross, suspect in daily_users(path, column):
            expected[day, dim, value] = (gross, suspect, gross - suspect)
    assert found == expected


@pytest.mark.parametrize(
    ("name", "steps", "order", "reached"),
    [
        ("rete_ecom", "product_view, add_to_cart, purchase", "strict", [598, 482, 207]),
        ("rete_ecom", "product_view, add_to_cart, purchase", "ties_allowed", [598, 482, 208]),
        ("rees46", "view, cart, purchase", "strict", [4_505, 111, 62]),
    ],
)
def test_funnels_of_recorded_events(
    data_dir: Path, name: str, steps: str, order: str, reached: list[int]
) -> None:
    config = f"funnels: {{buy: {{steps: [{steps}], within: 24h, order: {order}}}}}"
    rollup = counted(recorded(data_dir / f"{name}.parquet"), config, ())
    assert rollup.table("funnel").column("users_gross").to_pylist() == reached


@pytest.mark.parametrize("name", FILES)
def test_events_per_minute_equal_a_count_by_duckdb(data_dir: Path, name: str) -> None:
    path = data_dir / f"{name}.parquet"
    table = counted(recorded(path), "", ()).table("events")
    columns = ["window_start", "channel", "event", "count", "dwell_count"]
    found = {tuple(row.values()) for row in table.select(columns).to_pylist()}
    with duckdb.connect() as connection:
        connection.read_parquet(str(path)).create_view("events")
        rows = connection.execute(
            """
            select ts // 60000, channel::varchar, event, count(*), count(dwell_ms)
            from events group by 1, 2, 3
            """
        ).fetchall()
    assert {(int(start.timestamp()) // 60, *rest) for start, *rest in found} == set(rows)
    assert table.num_rows == len(rows)

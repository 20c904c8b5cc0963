"""One campaign for all tests of the simulation, and the same as a DuckDB view."""

from __future__ import annotations

from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from simulation.breaks import Break
from simulation.campaign import Campaign

START_MS = 1_772_380_800_000  # 2026-03-02, midnight in Shanghai
DAY_MS = 86_400_000
EVENTS = 60_000
CAMPAIGN = Campaign(seed=5, events=EVENTS, start_ms=START_MS, duration_ms=2 * DAY_MS)
BREAK = Break("ads", "participate", START_MS + 44 * 3_600_000, START_MS + 46 * 3_600_000)


@cache
def events_of(campaign: Campaign) -> Any:
    """All events as a pyarrow.Table."""
    return pa.concat_tables(campaign.batches())


def ask(question: str, events: Any = None) -> list[tuple[Any, ...]]:
    """What DuckDB answers about the table ``events``; without one, those of CAMPAIGN."""
    with duckdb.connect() as connection:
        connection.register("events", events_of(CAMPAIGN) if events is None else events)
        return connection.execute(question).fetchall()

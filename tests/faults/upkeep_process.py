"""What a process of the tests of compaction does: compact, and be killed where the test says."""

from __future__ import annotations

import os
from pathlib import Path

from sinks.compaction import plan_compaction
from sinks.faults import FAULT_VARIABLE
from sinks.local_store import LocalStore
from sinks.table_files import alone
from sinks.upkeep import carry_out, finish

DAYS = 4
"""Dates of the rows that these tests make."""


def compact_all(root: Path, fault: str) -> None:
    """Compact every closed date, and die at a step."""
    os.environ[FAULT_VARIABLE] = fault
    store = LocalStore(root)
    with alone(store):
        finish(store, lambda _: None)
        plan = plan_compaction(store, settle_ms=86_400_000, now_ms=2_000_000_000_000)
        carry_out(store, plan.steps, lambda _: None)

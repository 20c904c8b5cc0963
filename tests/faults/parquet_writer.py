"""What a process of the Parquet fault tests does: write made-up turns, and be killed where the test says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from multiprocessing.synchronize import Barrier

from sinks.faults import FAULT_VARIABLE
from sinks.parquet import ParquetSink
from streams.settings import open_store
from tests.unit.sinks.turns import Made, made_turn

PARTITION = 3
TURNS = 24


def fault_turn(number: int) -> Made:
    """One of the turns of the fault tests."""
    return made_turn(number, events=6, days=2, partition=PARTITION)


def write_turns(
    place: str,
    cut: int,
    fault: str = "",
    together: Barrier | None = None,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Open the sink, wait for the other writer if there is one, and commit ``cut`` turns at a time.

    Each commit also repeats the turn before it. ``variables`` lead to the store.
    """
    os.environ.update(variables or {})
    if fault:
        os.environ[FAULT_VARIABLE] = fault
    made = [fault_turn(number).turn for number in range(TURNS)]
    sink = ParquetSink(open_store(place), PARTITION, key_fingerprint="key")
    position = sink.open()
    if together is not None:
        together.wait()
    while position < TURNS:
        position = sink.write(made[max(0, position - 1) : position + cut])

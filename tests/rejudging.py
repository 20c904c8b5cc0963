"""Tables for tests of judging again: made by the core, looked at and changed row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.keys import KeyRing
from sinks.tables import verdict_table
from streams.config_files import ConfigFolder
from streams.list_books import ListBooks
from streams.replay import Core, batches

RING = KeyRing(b"a key for tests, of 32 bytes ....")


def judged_table(read: ConfigFolder, recording: Path, *, batch_size: int = 64) -> Any:
    """What the core makes of a recording under a config, late rows included, labels known at once."""
    lists = ListBooks(RING, read.lists.__getitem__).of(read.config)
    core = Core(read.config, RING, lists, label_delay_ms=0)
    verdicts = [core.judge(batch) for batch in batches([recording], read.config, RING, batch_size)]
    return pa.concat_tables(verdict_table(verdicts))


def with_cells(table: Any, column: str, values: Sequence[Any]) -> Any:
    """The table with another column of the same type."""
    place = table.schema.get_field_index(column)
    return table.set_column(
        place, table.schema.field(place), pa.array(values, table.schema.field(place).type)
    )


def with_cell(table: Any, column: str, row: int, value: Any) -> Any:
    """The table with one cell changed."""
    values = table[column].to_pylist()
    values[row] = value
    return with_cells(table, column, values)

"""Rows of a Parquet or CSV recording to the same columns as JSON records, without any JSON on the way.

Only a row that is not plainly an event is written as JSON, for the authority to judge; so a table and the
records it was made from give the same verdicts, and a rejected row has an original for its dead letter.
"""

# ruff: noqa: ANN401 - pyarrow has no types

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.arrow_columns import Numbers, Other, Text, join_texts, read_column
from schemas.decode import Columns, Judgement
from schemas.event_checks import check_utf8, find_names
from schemas.events import (
    FLOAT_FIELDS,
    MAX_ATTRIBUTES,
    MAX_EVENT_BYTES,
    MAX_INTEGER,
    STRING_FIELDS,
    TOPICS,
    EventBatch,
    RejectCode,
)
from schemas.json_authority import Fault, judge_record
from schemas.json_scanner import UNDECIDED
from schemas.layout import UNKNOWN, Layout, layout_of
from schemas.number_texts import read_numbers
from schemas.table_rows import row_as_json

MAX_TABLE_ROWS = 65_536
"""Rows of one call; a longer recording is decoded slice by slice."""

TOPIC_COLUMN = "topic"
NO_TOPIC = -1

_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class TableBatch:
    """Events of a slice of a recording, and where the recording says that they belong.

    Parameters
    ----------
    batch
        The events.
    topics
        int8[n]: index into schemas.events.TOPICS from the column ``topic``, NO_TOPIC where it says nothing.
    """

    batch: EventBatch
    topics: NDArray[np.int8]


def decode_table(
    table: Any,
    *,
    topic: str,
    partition: int,
    start: int,
    next: int,
    offsets: NDArray[np.int64],
    record_ts_ms: NDArray[np.int64] | None = None,
    attributes: tuple[str, ...] = (),
    fields: Mapping[str, str] | None = None,
    strict_names: frozenset[str] | None = None,
    csv: bool = False,
    row_bytes: int = MAX_EVENT_BYTES,
) -> TableBatch:
    """Decode a slice of a recording: n rows, a column a name. It never raises for what is in the cells.

    Null is absent, NaN too. Beyond what JSON allows, an integer field may be a float column of whole numbers
    (pandas' way with nullable integers), ``ts`` a timestamp or date of any unit, a string a dictionary. A
    column that is no field and not ``topic`` is an attribute; dates and timestamps there are numbers, epoch
    milliseconds.

    Parameters
    ----------
    table
        pyarrow.Table of at most MAX_TABLE_ROWS rows. Of columns of one name the last counts.
    topic, partition, start, next, offsets, record_ts_ms, attributes, fields, strict_names
        As in :func:`schemas.decode.decode_json`.
    csv
        All columns are text. Number fields are read by JSON's grammar; an attribute keeps its text and is a
        number as well where it reads as one.
    row_bytes
        A row whose texts are longer than this together is TOO_LARGE.

    Raises
    ------
    ValueError
        The texts of the rows have 2 GiB or more together, or there are too many rows.

    Notes
    -----
    About 0.3 us a row of 12 columns; 30 us for a row that only the authority can read.
    """
    if table.num_rows > MAX_TABLE_ROWS:
        raise ValueError(f"{table.num_rows} rows; expected at most {MAX_TABLE_ROWS}")
    reader = _Reader(table, layout_of(attributes, fields), csv=csv, row_bytes=row_bytes)
    columns = reader.columns
    columns.check(record_ts_ms, strict_names)

    def judge(row: int) -> Judgement:
        raw = row_as_json(reader.sources, row, columns.layout, csv=csv)
        if reader.too_large[row]:
            return raw, Fault(RejectCode.TOO_LARGE, "$", f"at most {row_bytes} bytes of text")
        record_ts = None if record_ts_ms is None else int(record_ts_ms[row])
        verdict = judge_record(
            raw, columns.layout, record_ts_ms=record_ts, strict_names=strict_names, most_bytes=_NO_LIMIT
        )
        if not isinstance(verdict, Fault) and reader.odd_topics[row]:
            verdict = Fault(RejectCode.OUT_OF_RANGE, f"$.{TOPIC_COLUMN}", " or ".join(TOPICS))
        return raw, verdict

    numbers = columns.floats[len(FLOAT_FIELDS) :].copy() if csv else None
    rejections = columns.settle(judge)
    if numbers is not None:
        # The authority saw only their texts.
        np.copyto(columns.floats[len(FLOAT_FIELDS) :], numbers, where=columns.status == RejectCode.OK)
    batch = columns.batch(
        rejections, topic=topic, partition=partition, start=start, next=next, offsets=offsets
    )
    return TableBatch(batch, reader.topics)


class _Reader:
    """Fills Columns from a table, and remembers what the judgement of single rows needs.

    Parameters
    ----------
    table, layout, csv, row_bytes
        As in :func:`decode_table`. After that ``columns`` are filled, ``sources`` are the Arrow columns by
        name, ``topics`` is int8[n], ``too_large`` and ``odd_topics`` are bool[n].
    """

    def __init__(self, table: Any, layout: Layout, *, csv: bool, row_bytes: int) -> None:
        rows = table.num_rows
        self.columns = Columns.absent(rows, layout)
        self.sources = dict(zip(table.column_names, table.columns, strict=True))
        self.topics = np.full(rows, NO_TOPIC, np.int8)
        self.odd_topics = np.zeros(rows, np.bool_)
        self._csv = csv
        cells = {name: read_column(source, most_bytes=row_bytes) for name, source in self.sources.items()}
        self.too_large = self._join(cells.values(), row_bytes)
        self._mark(self.too_large)
        if TOPIC_COLUMN not in layout.names and TOPIC_COLUMN in cells:
            self._take_topics(cells.pop(TOPIC_COLUMN))
            del self.sources[TOPIC_COLUMN]
        counts = np.zeros(rows, np.int64)
        for name, column in cells.items():
            slot = layout.names.get(name, UNKNOWN)
            if slot == UNKNOWN or len(STRING_FIELDS) <= slot < layout.first_integer:
                counts += column.present
            self._take(slot, column)
        self._mark(counts > MAX_ATTRIBUTES)

    def _mark(self, rows: NDArray[np.bool_]) -> None:
        self.columns.status[rows] = UNDECIDED

    def _join(self, cells: Collection[Text | Numbers | Other], row_bytes: int) -> NDArray[np.bool_]:
        """Bring all texts into one buffer, check their UTF-8, and say which rows are too large."""
        texts = [column for column in cells if isinstance(column, Text)]
        digits = [column.digits for column in cells if isinstance(column, Numbers) and column.digits]
        buffer = self.columns.buffer = join_texts([*texts, *digits])
        sizes = np.zeros(len(self.topics), np.int64)
        too_large = np.zeros(len(self.topics), np.bool_)
        has_high_bytes = buffer.max() >= 0x80
        for text in texts:
            sizes += text.lengths
            if text.too_long is not None:
                too_large |= text.too_long
            if has_high_bytes:
                check_utf8(buffer, text.starts, text.lengths, self.columns.status)
        return too_large | (sizes > row_bytes)

    def _take_topics(self, cells: Text | Numbers | Other) -> None:
        self.odd_topics = cells.present
        if isinstance(cells, Text):
            self.topics = find_names(TOPICS, cells.data, cells.starts, cells.lengths).astype(np.int8)
            self.odd_topics = cells.present & (self.topics == NO_TOPIC)
        self._mark(self.odd_topics)

    def _take(self, slot: int, cells: Text | Numbers | Other) -> None:
        """Put a column where it belongs and mark the rows in which it does not."""
        layout, columns = self.columns.layout, self.columns
        is_attribute = slot == UNKNOWN or len(STRING_FIELDS) <= slot < layout.first_integer
        if isinstance(cells, Other) or (
            isinstance(cells, Numbers) and slot >= 0 and slot < len(STRING_FIELDS)
        ):
            self._mark(cells.present)
        elif slot >= layout.first_integer:
            self._take_number_field(slot, cells)
        elif isinstance(cells, Numbers):
            if cells.values.dtype == np.float64:
                self._mark(np.isinf(cells.values))
            if slot != UNKNOWN:
                self._attribute_numbers(slot)[:] = np.where(cells.present, cells.values, np.nan)
                if cells.digits:
                    columns.starts[slot], columns.lengths[slot] = cells.digits.starts, cells.digits.lengths
        elif slot != UNKNOWN:
            columns.starts[slot], columns.lengths[slot] = cells.starts, cells.lengths
            if self._csv and is_attribute:
                self._attribute_numbers(slot)[:], _ = read_numbers(cells.data, cells.starts, cells.lengths)

    def _attribute_numbers(self, slot: int) -> NDArray[np.float64]:
        numbers: NDArray[np.float64] = self.columns.floats[len(FLOAT_FIELDS) + slot - len(STRING_FIELDS)]
        return numbers

    def _take_number_field(self, slot: int, cells: Text | Numbers) -> None:
        """Fill an integer field, a coordinate or the label."""
        layout, columns = self.columns.layout, self.columns
        if isinstance(cells, Text) and self._csv:
            values, sound = read_numbers(cells.data, cells.starts, cells.lengths)
            self._mark(~sound)
            cells = Numbers(values, ~np.isnan(values))
        if isinstance(cells, Text) or cells.is_boolean:
            self._mark(cells.present)
        elif layout.first_float <= slot < layout.label:
            columns.floats[slot - layout.first_float] = np.where(cells.present, cells.values, np.nan)
        else:
            most = 1 if slot == layout.label else MAX_INTEGER - 1
            whole = cells.present & (cells.values >= 0) & (cells.values <= most)
            whole &= np.floor(cells.values) == cells.values
            self._mark(cells.present & ~whole)
            target = columns.labels if slot == layout.label else columns.integers[slot - layout.first_integer]
            np.copyto(target, np.where(whole, cells.values, 0).astype(target.dtype), where=whole)

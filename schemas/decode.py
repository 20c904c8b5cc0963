"""Records in, columns out: the events of one topic-partition, broken ones apart with the reason.

The scanner reads what is plainly an event; every other record goes to the authority, which alone rejects. So
a broken record costs its own time and never its neighbours' (CONTRACT 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.event_checks import check_rows, find_names
from schemas.events import (
    ABSENT_INTEGER,
    BUFFER_PADDING,
    FLOAT_FIELDS,
    INTEGER_FIELDS,
    MAX_EVENT_BYTES,
    STRING_FIELDS,
    EventBatch,
    RejectCode,
    Rejection,
)
from schemas.json_authority import Fault, Value, judge_record
from schemas.json_scanner import DECIDED, SEPARATOR, UNDECIDED, scan_records
from schemas.layout import Layout, layout_of

_NO_TIMES = np.zeros(0, np.int64)
_MOST_JOINED_BYTES = (1 << 31) - 1
_EVENT = STRING_FIELDS.index("event")

Judgement = tuple[bytes, dict[int, Value] | Fault]
"""A record as it came, and what the authority says of it."""


def decode_json(
    values: Sequence[bytes | None],
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
) -> EventBatch:
    """Decode the values of n records. It never raises for what is in them.

    Where a name comes twice in a record, its last value counts.

    Parameters
    ----------
    values
        One JSON object each, UTF-8. None or empty (a tombstone) is rejected as NOT_JSON.
    topic, partition, start, next, offsets
        As in schemas.events.EventBatch.
    record_ts_ms
        int64[n]: the records' own timestamps, -1 where a record has none. None: no event is too far in the
        future.
    attributes
        Names of the attributes to keep.
    fields
        Field map, our name -> the records' name.
    strict_names
        The only event names that are accepted; None accepts any.

    Raises
    ------
    ValueError
        The records that are no larger than MAX_EVENT_BYTES have 2 GiB or more together.

    Notes
    -----
    About 0.4 us for an event of 270 bytes, 15 us for a record that only the authority can read.
    """
    layout = layout_of(attributes, fields)
    texts, sizes = _within_limit(values)
    columns = Columns.absent(len(values), layout)
    bounds = np.zeros(len(values) + 1, np.int64)
    np.cumsum(sizes + 1, out=bounds[1:])
    if bounds[-1] > _MOST_JOINED_BYTES - BUFFER_PADDING:
        raise ValueError(f"a batch of {bounds[-1]} bytes; expected less than 2 GiB")
    columns.buffer = np.frombuffer(bytearray(SEPARATOR).join((*texts, bytes(BUFFER_PADDING))), np.uint8)
    scan_records(
        columns.buffer,
        bounds,
        layout,
        starts=columns.starts,
        lengths=columns.lengths,
        integers=columns.integers,
        floats=columns.floats,
        labels=columns.labels,
        status=columns.status,
    )
    columns.check(record_ts_ms, strict_names)

    def judge(row: int) -> Judgement:
        raw = values[row] or b""
        record_ts = None if record_ts_ms is None else int(record_ts_ms[row])
        return raw, judge_record(raw, layout, record_ts_ms=record_ts, strict_names=strict_names)

    rejections = columns.settle(judge)
    return columns.batch(
        rejections, topic=topic, partition=partition, start=start, next=next, offsets=offsets
    )


def _within_limit(values: Sequence[bytes | None]) -> tuple[Sequence[bytes], NDArray[np.int64]]:
    """Put an empty text in the place of what is too large or absent, so that it costs nothing further."""
    try:
        sizes = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
    except TypeError:
        return _within_limit([value or b"" for value in values])
    if len(values) > 0 and sizes.max() > MAX_EVENT_BYTES:
        return _within_limit([b"" if len(value or b"") > MAX_EVENT_BYTES else value for value in values])
    return values, sizes  # type: ignore[return-value]


@dataclass(slots=True)
class Columns:
    """The columns of a batch while it is being read: those of schemas.events.EventBatch, and those below.

    Parameters
    ----------
    floats
        float64[2 + attributes, n]: FLOAT_FIELDS, then the attributes that are numbers.
    status
        uint8[n]: DECIDED or UNDECIDED, in the end the RejectCode.
    """

    layout: Layout
    buffer: NDArray[np.uint8]
    starts: NDArray[np.int32]
    lengths: NDArray[np.int32]
    integers: NDArray[np.int64]
    floats: NDArray[np.float64]
    labels: NDArray[np.int8]
    status: NDArray[np.uint8]

    @classmethod
    def absent(cls, rows: int, layout: Layout) -> Columns:
        """Columns of so many rows in which nothing is there."""
        return cls(
            layout=layout,
            buffer=np.zeros(BUFFER_PADDING, np.uint8),
            starts=np.zeros((layout.first_integer, rows), np.int32),
            lengths=np.zeros((layout.first_integer, rows), np.int32),
            integers=np.full((len(INTEGER_FIELDS), rows), ABSENT_INTEGER, np.int64),
            floats=np.full((len(FLOAT_FIELDS) + len(layout.attributes), rows), np.nan),
            labels=np.full(rows, ABSENT_INTEGER, np.int8),
            status=np.full(rows, DECIDED, np.uint8),
        )

    def check(self, record_ts_ms: NDArray[np.int64] | None, strict_names: frozenset[str] | None) -> None:
        """Mark the rows that are not plainly events."""
        times = _NO_TIMES if record_ts_ms is None else record_ts_ms
        check_rows(self.buffer, self.starts, self.lengths, self.integers, self.floats, times, self.status)
        if strict_names is not None:
            names = find_names(sorted(strict_names), self.buffer, self.starts[_EVENT], self.lengths[_EVENT])
            self.status[names < 0] = UNDECIDED

    def settle(self, judge: Callable[[int], Judgement]) -> tuple[Rejection, ...]:
        """Let the authority judge the marked rows: it fills their columns, or they are rejected."""
        rejections: list[Rejection] = []
        added: list[NDArray[np.uint8]] = []
        end = len(self.buffer) - BUFFER_PADDING
        for row in np.flatnonzero(self.status == UNDECIDED).tolist():
            raw, verdict = judge(row)
            self._clear(row)
            if isinstance(verdict, Fault):
                self.status[row] = verdict.code
                rejections.append(_rejection(row, verdict, raw))
            else:
                self.status[row] = RejectCode.OK
                end = self._place(row, verdict.items(), added, end)
        if added:
            added.append(np.zeros(BUFFER_PADDING, np.uint8))
            self.buffer = np.concatenate((self.buffer[:-BUFFER_PADDING], *added))
        return tuple(rejections)

    def batch(
        self,
        rejections: tuple[Rejection, ...],
        *,
        topic: str,
        partition: int,
        start: int,
        next: int,
        offsets: NDArray[np.int64],
    ) -> EventBatch:
        """Hand the columns over."""
        return EventBatch(
            topic=topic,
            partition=partition,
            start=start,
            next=next,
            offsets=offsets,
            buffer=self.buffer,
            starts=self.starts,
            lengths=self.lengths,
            integers=self.integers,
            floats=self.floats[: len(FLOAT_FIELDS)],
            attributes=self.layout.attributes,
            attribute_numbers=self.floats[len(FLOAT_FIELDS) :],
            labels=self.labels,
            rejected=self.status,
            rejections=rejections,
        )

    def _clear(self, row: int) -> None:
        self.starts[:, row] = 0
        self.lengths[:, row] = 0
        self.integers[:, row] = ABSENT_INTEGER
        self.floats[:, row] = np.nan
        self.labels[row] = ABSENT_INTEGER

    def _place(
        self, row: int, values: Iterable[tuple[int, Value]], added: list[NDArray[np.uint8]], end: int
    ) -> int:
        """Write a row's values; texts go behind the buffer's end, which is returned as it becomes."""
        layout = self.layout
        for slot, value in values:
            if slot >= layout.first_integer:
                self._place_number(row, slot, value)
                continue
            if not isinstance(value, str):
                self.floats[len(FLOAT_FIELDS) + slot - len(STRING_FIELDS), row] = value
            if not isinstance(value, float):
                text = np.frombuffer(str(value).encode(), np.uint8)
                self.starts[slot, row], self.lengths[slot, row] = end, len(text)
                added.append(text)
                end += len(text)
        return end

    def _place_number(self, row: int, slot: int, value: Value) -> None:
        layout = self.layout
        if slot == layout.label:
            self.labels[row] = value
        elif slot >= layout.first_float:
            self.floats[slot - layout.first_float, row] = value
        else:
            self.integers[slot - layout.first_integer, row] = value


def _rejection(row: int, fault: Fault, raw: bytes) -> Rejection:
    return Rejection(
        row=row,
        code=fault.code,
        path=fault.path,
        expected=fault.expected,
        raw=raw[:MAX_EVENT_BYTES],
        length=len(raw),
        sha256=hashlib.sha256(raw).digest(),
    )

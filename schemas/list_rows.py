"""A list of the risk team, as its CSV file has it: checked row by row, held as columns over the bytes of the file.

The header names the columns in any order: ``value``, and if wanted ``reason``, ``source`` and ``expires``. A value is
personal data, so no message repeats a cell: it tells the shape alone, digits as 9 and letters as a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from schemas.config_findings import MAX_SHOWN
from schemas.errors import ConfigProblem
from schemas.event_checks import check_utf8
from schemas.events import BUFFER_PADDING, EARLIEST_TS_MS
from schemas.keys import hash_spans, mix
from schemas.list_scanner import BAD_QUOTE, SOUND, split_rows

MAX_FILE_BYTES = 64 << 20
MAX_ROWS = 5_000_000
MAX_VALUE_BYTES = 1024
MAX_NOTE_BYTES = 500
MAX_PROBLEMS = 20
"""Bad rows of a file that are told one by one."""
COLUMNS = ("value", "reason", "source", "expires")
VALUE, REASON, SOURCE, EXPIRES = range(4)
NEVER_MS = 1 << 62
"""When an entry without ``expires`` ends."""

_LATEST_MS = 253_402_300_800_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOM = b"\xef\xbb\xbf"
_EXPECTED_HEADER = "the columns value, reason, source, expires (value at least), each once"
_EXPECTED_EXPIRES = (
    "nothing, or when the entry ends: a date such as 2026-12-31 (its first moment, UTC), "
    "2026-12-31T18:00:00+08:00, or epoch milliseconds"
)

ValueCheck = Callable[["ListRows"], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class ListRows:
    """The rows of a list's file.

    Parameters
    ----------
    buffer
        uint8[...], what the spans point into.
    starts, lengths
        int32[4, n]: spans in the order of COLUMNS.
    lines
        int32[n]: line of the file, from 2 on.
    expires_ms
        int64[n]: an entry holds for events before this time; NEVER_MS for ever.
    """

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int32]
    lengths: NDArray[np.int32]
    lines: NDArray[np.int32]
    expires_ms: NDArray[np.int64]

    def __len__(self) -> int:
        """Rows of the file, its header and empty lines left out."""
        return len(self.lines)

    def text(self, column: int, row: int) -> str:
        """One cell; for few rows only."""
        start = int(self.starts[column, row])
        return self.buffer[start : start + int(self.lengths[column, row])].tobytes().decode(errors="replace")

    def distinct(self, *columns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows whose cells in ``columns`` differ from one another, and for each row its number among them.

        Told apart by 64 bits of a hash.
        """
        keys = np.ones(len(self), np.uint64)
        for column in columns:
            cells = hash_spans(
                self.buffer, self.starts[column], self.lengths[column], np.uint64(column), np.uint64(0)
            )
            keys = mix(keys, np.maximum(cells, np.uint64(1)))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first, inverse


def read_list(
    raw: bytes, *, file: str, check_values: ValueCheck, expected_value: str
) -> tuple[ListRows, list[ConfigProblem]]:
    """Read a list's file; every row that is wrong is a problem with its line and column.

    Parameters
    ----------
    raw
        The whole file, UTF-8, at most MAX_FILE_BYTES; a byte order mark and both kinds of line ends are fine.
    file
        Its name, for problems.
    check_values
        Which rows have a value that the list's entity can not have: bool[n]. It is asked about all rows.
    expected_value
        What a value must be, for problems.

    Returns
    -------
    rows, problems
        All rows; they are of use only if there is no problem. Of more than MAX_PROBLEMS the last says how many.

    Notes
    -----
    About 0.1 us a row.
    """
    if len(raw) > MAX_FILE_BYTES:
        return _NO_ROWS, [ConfigProblem(file, "$", f"more than {MAX_FILE_BYTES >> 20} MiB", "a smaller file")]
    begin = len(_BOM) if raw.startswith(_BOM) else 0
    header_end = end if (end := raw.find(b"\n", begin)) >= 0 else len(raw)
    names = [name.strip(' "\r') for name in raw[begin:header_end].decode(errors="replace").split(",")]
    if len(set(names)) != len(names) or not {"value"} <= set(names) <= set(COLUMNS):
        found = ",".join(names)[:MAX_SHOWN]
        return _NO_ROWS, [ConfigProblem(file, "line 1", _shape(found), _EXPECTED_HEADER)]
    if raw.count(b"\n", header_end) > MAX_ROWS:
        return _NO_ROWS, [ConfigProblem(file, "$", f"more than {MAX_ROWS:,} lines", "fewer rows")]
    rows, faults = _split(raw, min(header_end + 1, len(raw)), names)
    problems = _Problems(file, rows)
    problems.add(
        faults == BAD_QUOTE, None, "a quote within the cell", "quotes around a whole cell of one line"
    )
    for count in np.unique(faults[faults > SOUND]).tolist():
        problems.add(faults == count, None, f"{count} cells", f"{len(names)} cells, as in the header")
    whole = faults == SOUND
    _check_cells(rows, whole, problems)
    rows.expires_ms[whole] = _expiries(rows)[whole]
    problems.add(rows.expires_ms < 0, EXPIRES, None, _EXPECTED_EXPIRES)
    problems.add(check_values(rows), VALUE, None, expected_value)
    return rows, problems.told()


def _split(raw: bytes, begin: int, names: list[str]) -> tuple[ListRows, NDArray[np.int32]]:
    """All rows, columns in the order of COLUMNS, and the fault of each row."""
    buffer = np.frombuffer(bytearray(raw + bytes(BUFFER_PADDING)), np.uint8)
    most = raw.count(b"\n", begin) + 1
    starts, lengths = np.zeros((len(names), most), np.int32), np.zeros((len(names), most), np.int32)
    lines, faults = np.zeros(most, np.int32), np.zeros(most, np.int32)
    count = split_rows(buffer, begin, len(raw), starts, lengths, lines, faults)
    ordered = np.zeros((2, len(COLUMNS), count), np.int32)
    for cell, name in enumerate(names):
        place = COLUMNS.index(name)
        ordered[0, place], ordered[1, place] = starts[cell, :count], lengths[cell, :count]
    ordered[:, :, faults[:count] != SOUND] = 0
    rows = ListRows(buffer, ordered[0], ordered[1], lines[:count], np.full(count, NEVER_MS))
    return rows, faults[:count]


def _check_cells(rows: ListRows, whole: NDArray[np.bool_], problems: _Problems) -> None:
    starts, lengths = rows.starts, rows.lengths
    for column, most in ((VALUE, MAX_VALUE_BYTES), (REASON, MAX_NOTE_BYTES), (SOURCE, MAX_NOTE_BYTES)):
        problems.add(lengths[column] > most, column, f"more than {most} bytes", "a shorter text")
        status = np.zeros(len(rows), np.uint8)
        check_utf8(rows.buffer, starts[column], lengths[column], status)
        problems.add(status != 0, column, "bytes that are no UTF-8", "a file in UTF-8")
    filled = lengths[VALUE] > 0
    problems.add(whole & ~filled, VALUE, "nothing", "a value")
    last = starts[VALUE] + np.maximum(lengths[VALUE] - 1, 0)
    ends = np.isin(rows.buffer[starts[VALUE]], (9, 32)) | np.isin(rows.buffer[last], (9, 32))
    problems.add(filled & ends, VALUE, "a space at one end", "the value alone")


def _expiries(rows: ListRows) -> NDArray[np.int64]:
    """int64[n]: when each row ends, -1 where that can not be read."""
    first, inverse = rows.distinct(EXPIRES)
    read = [
        expiry_of(rows.text(EXPIRES, row)) if rows.lengths[EXPIRES, row] < MAX_SHOWN else -1 for row in first
    ]
    return np.array(read, np.int64)[inverse]


def expiry_of(text: str) -> int:
    """Epoch milliseconds at which an entry ends; NEVER_MS for no text, -1 for what is no time since 2000.

    Examples
    --------
    >>> expiry_of("2026-12-31"), expiry_of("2026-12-31T08:00:00+08:00"), expiry_of("1798675200000")
    (1798675200000, 1798675200000, 1798675200000)
    >>> expiry_of("") == NEVER_MS, expiry_of("soon"), expiry_of("1798675200")
    (True, -1, -1)
    """
    if not text:
        return NEVER_MS
    try:
        ms = int(text) if text.isascii() and text.isdigit() else _ms_of(datetime.fromisoformat(text))
    except ValueError:
        return -1
    return ms if EARLIEST_TS_MS <= ms < _LATEST_MS else -1


def _ms_of(time: datetime) -> int:
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


class _Problems:
    """Collects bad rows, one problem a row, and tells the first of them."""

    def __init__(self, file: str, rows: ListRows) -> None:
        self._file, self._rows = file, rows
        self._bad = np.zeros(len(rows), np.bool_)
        self._told: list[tuple[int, ConfigProblem]] = []

    def add(self, bad: NDArray[np.bool_], column: int | None, found: str | None, expected: str) -> None:
        """Note rows that were good so far; without ``found`` the shape of the cell is told."""
        new = bad & ~self._bad
        self._bad |= new
        for row in np.flatnonzero(new)[:MAX_PROBLEMS].tolist():
            place = f"line {self._rows.lines[row]}" + (
                f", column {COLUMNS[column]}" if column is not None else ""
            )
            shown = found if found is not None else _shape(self._rows.text(column or VALUE, row))
            self._told.append((row, ConfigProblem(self._file, place, shown, expected)))

    def told(self) -> list[ConfigProblem]:
        """The first problems in the order of the file."""
        problems = [problem for _, problem in sorted(self._told)[:MAX_PROBLEMS]]
        more = int(np.count_nonzero(self._bad)) - len(problems)
        if more > 0:
            problems.append(ConfigProblem(self._file, "$", f"{more:,} more bad rows", "none"))
        return problems


def _shape(text: str) -> str:
    """What a cell looks like, without what it says."""
    return f'a text such as "{"".join(_shapes(text[:MAX_SHOWN]))}"' if text else "nothing"


def _shapes(text: str) -> Iterator[str]:
    for character in text:
        if character.isalnum():
            yield "9" if character.isdigit() else "a"
        else:
            yield character if character.isprintable() else "·"


_NO_SPANS = np.zeros((len(COLUMNS), 0), np.int32)
_NO_ROWS = ListRows(
    np.zeros(BUFFER_PADDING, np.uint8), _NO_SPANS, _NO_SPANS, np.zeros(0, np.int32), np.zeros(0, np.int64)
)

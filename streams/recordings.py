"""Recorded events as files: Parquet, JSONL (also .gz, .zst) and CSV, in the order of files and rows.

Two readers, both in bounded memory: :func:`raw_events` gives each row as the JSON that a producer would send,
:func:`tables` gives whole slices as columns without a detour through JSON.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from schemas.errors import RecordingError
from streams.routing import json_object

NO_FIELDS: Mapping[str, str] = MappingProxyType({})
"""All fields under our names."""
SLICE_ROWS = 16_384
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LINE_CAP = 64 * 1024 * 1024
"""Of a longer line the rest is dropped: it becomes a dead letter of what was read."""

PARQUET, JSONL, CSV = "parquet", "jsonl", "csv"
_FORMATS = {
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".json": JSONL,
    ".csv": CSV,
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


def unseen(rows: int) -> None:
    """Progress that nobody watches."""


def format_of(path: Path) -> tuple[str, str | None]:
    """Format and compression by the name's endings.

    Raises
    ------
    RecordingError
        The file is missing or its ending names no format.
    """
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    ending = suffixes[-2] if compression and len(suffixes) > 1 else (suffixes[-1] if suffixes else "")
    if ending not in _FORMATS:
        expected = ", ".join(sorted(_FORMATS))
        raise RecordingError(
            f"{path}: found ending {ending or 'none'}; expected one of {expected}, JSONL also with .gz or .zst"
        )
    return _FORMATS[ending], compression


def count_rows(paths: Sequence[Path]) -> int | None:
    """Rows of all files, for a progress bar; None when only reading would tell."""
    if any(format_of(path)[0] != PARQUET for path in paths):
        return None
    return sum(int(pq.read_metadata(path).num_rows) for path in paths)


def tables(path: Path, fields: Mapping[str, str] = NO_FIELDS) -> Iterator[pa.Table]:
    """Slices of a Parquet or CSV recording; CSV columns are all strings.

    In CSV the time may be written as ISO 8601 with its zone: it becomes epoch milliseconds here.
    """
    kind, compression = format_of(path)
    try:
        if kind == PARQUET:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(SLICE_ROWS):
                    yield pa.Table.from_batches([batch])
            return
        with pa.input_stream(path, compression=compression) as stream:
            header = pa_csv.open_csv(stream).schema.names
        convert = pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in header}, strings_can_be_null=True
        )
        with pa.input_stream(path, compression=compression) as stream:
            for batch in pa_csv.open_csv(stream, convert_options=convert):
                table = pa.Table.from_batches([batch])
                for start in range(0, len(table), SLICE_ROWS):
                    yield _with_epoch_times(table.slice(start, SLICE_ROWS), fields.get("ts", "ts"))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: not readable as {kind}: {error}") from error


def _with_epoch_times(table: pa.Table, name: str) -> pa.Table:
    """The column of times with ISO texts as milliseconds; other texts stay, for the engine to refuse."""
    if name not in table.column_names:
        return table
    texts = table.column(name).to_pylist()
    if all(text is None or text.isdigit() for text in texts):
        return table
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(map(_epoch_ms_text, texts), pa.string()))


def _epoch_ms_text(text: str | None) -> str | None:
    if text is None or text.isdigit():
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    # A time without its zone could be any of 26 hours.
    return text if moment.tzinfo is None else str((moment - _EPOCH) // timedelta(milliseconds=1))


def lines(path: Path) -> Iterator[list[bytes]]:
    """Slices of the lines of a JSONL recording, without line ends; blank lines are no events."""
    _, compression = format_of(path)
    try:
        with pa.input_stream(path, compression=compression) as raw:
            held: list[bytes] = []
            reader = io.BufferedReader(_Readable(raw), 1 << 20)
            while line := reader.readline(_LINE_CAP):
                rest = line
                while len(rest) == _LINE_CAP and not rest.endswith(b"\n"):
                    rest = reader.readline(_LINE_CAP)
                text = line.rstrip(b"\r\n")
                if text.strip():
                    held.append(text)
                if len(held) == SLICE_ROWS:
                    yield held
                    held = []
            if held:
                yield held
    except (pa.ArrowException, OSError) as error:
        raise RecordingError(f"{path}: not readable as JSONL: {error}") from error


def raw_events(
    paths: Sequence[Path], fields: Mapping[str, str] = NO_FIELDS
) -> Iterator[list[tuple[bytes, dict[str, Any] | None]]]:
    """Each row as JSON bytes, and as a dictionary where it is one (None for a broken line), by slices.

    ``fields`` is the config's map from our names to those in the files.
    """
    numbers = {fields.get(name, name): name for name in _NUMBERS}
    for path in paths:
        if format_of(path)[0] == JSONL:
            for chunk in lines(path):
                yield [(line, json_object(line)) for line in chunk]
        else:
            csv = format_of(path)[0] == CSV
            for table in tables(path, fields):
                yield [(orjson.dumps(row), row) for row in _rows(table, numbers if csv else None)]


def _rows(table: pa.Table, numbers: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            column = table.column(index).cast(pa.timestamp("ms", field.type.tz), safe=False).cast(pa.int64())
            table = table.set_column(index, field.name, column)
    for row in table.to_pylist():
        present = {name: value for name, value in row.items() if value is not None and value != ""}
        if numbers is None:
            yield present
        else:
            yield {name: _number(numbers.get(name), value) for name, value in present.items()}


_NUMBERS = frozenset(("ts", "dwell_ms", "amount_minor", "cost_minor", "label", "lat", "lon"))


def _number(field: str | None, value: Any) -> Any:
    """A CSV cell of a numeric field as a number; what is none stays text, for the engine to refuse."""
    if field is None or not isinstance(value, str):
        return value
    try:
        return float(value) if field in ("lat", "lon") else int(value)
    except ValueError:
        return value


class _Readable(io.RawIOBase):
    """An Arrow input stream as a raw stream that knows lines."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._stream.readinto(buffer))

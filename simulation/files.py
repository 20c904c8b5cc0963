"""A campaign as a recording, and beside it the truth that the engine must not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import RecordingError
from simulation.rendering import TRUTH_COLUMNS, Table

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")
_TRUTH = ("event_id", "user_id", "label", *TRUTH_COLUMNS)
_GROUP_ROWS = 250_000


def truth_path(path: Path) -> Path:
    """Where the truth about a recording stands: ``a.jsonl.gz`` has ``a.truth.parquet`` beside it.

    Raises
    ------
    RecordingError
        The name has none of ENDINGS.

    Examples
    --------
    >>> truth_path(Path("spring.jsonl.gz")).name
    'spring.truth.parquet'
    """
    ending = _ending_of(path)
    return path.with_name(f"{path.name.removesuffix(ending)}.truth.parquet")


def write_campaign(batches: Iterable[Table], path: Path, *, progress: Callable[[int], None]) -> int:
    """Write the events to ``path`` and the truth to :func:`truth_path`; both appear when they are whole.

    Parameters
    ----------
    batches
        Tables of :meth:`simulation.campaign.Campaign.batches`.
    path
        Its ending says in which format.
    progress
        Told the rows of each batch.

    Returns
    -------
    Rows written.

    Raises
    ------
    RecordingError
        The name has none of ENDINGS, or the files cannot be written.
    """
    ending, truth = _ending_of(path), truth_path(path)
    halves = [file.with_name(f".{file.name}.half") for file in (path, truth)]
    rows = 0
    try:
        with ExitStack() as opened:
            writer: _Writer = _Parquet(halves[0]) if ending == ".parquet" else _Lines(halves[0], ending)
            events_out = opened.enter_context(writer)
            truth_out = opened.enter_context(_Parquet(halves[1]))
            for table in batches:
                events_out.write(table.drop_columns(list(TRUTH_COLUMNS)))
                truth_out.write(table.select(list(_TRUTH)))
                rows += table.num_rows
                progress(table.num_rows)
        for half, file in zip(halves, (path, truth), strict=True):
            half.replace(file)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be written: {error}") from error
    finally:
        for half in halves:
            half.unlink(missing_ok=True)
    return rows


def _ending_of(path: Path) -> str:
    for ending in ENDINGS:
        if path.name.endswith(ending) and path.name != ending:
            return ending
    raise RecordingError(f"{path}: found another ending; expected a name with one of {', '.join(ENDINGS)}")


class _Writer(AbstractContextManager["_Writer"], Protocol):
    """Takes tables until it is left."""

    def write(self, table: Table) -> None: ...


@dataclass
class _Parquet:
    """A Parquet file, in row groups of a quarter of a million rows whatever the batches are."""

    path: Path

    def __enter__(self) -> Self:
        self._writer: Any = None
        self._held: list[Any] = []
        return self

    def write(self, table: Table) -> None:
        self._held.append(table)
        if sum(held.num_rows for held in self._held) >= _GROUP_ROWS:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._held:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        table = pa.concat_tables(self._held)
        if self._writer is None:
            # Ids never repeat often enough for a dictionary, and trying it costs more than it saves.
            repeated = [
                name for name in table.column_names if name not in ("event_id", "user_id", "session_id")
            ]
            self._writer = pq.ParquetWriter(
                self.path, table.schema, compression="zstd", use_dictionary=repeated
            )
        self._writer.write_table(table)
        self._held = []


@dataclass
class _Lines:
    """A JSON object a line, without what is absent."""

    path: Path
    ending: str

    def __enter__(self) -> Self:
        compression = {".gz": "gzip", ".zst": "zstd"}.get(Path(self.ending).suffix)
        self._stream = pa.output_stream(str(self.path), compression=compression)
        return self

    def write(self, table: Table) -> None:
        rows = table.to_pylist()
        self._stream.write(
            b"".join(
                orjson.dumps({name: value for name, value in row.items() if value is not None}) + b"\n"
                for row in rows
            )
        )

    def __exit__(self, *_: object) -> None:
        self._stream.close()

"""The metric tables as files, each replaced whole by its newest numbers, and the blocks of days that are closed.

A rollup partition has one file of each table, of events per minute one for each UTC day: it is as large as a day, and
once the day is over nobody writes it again. What a closed day was counted from is put aside below ``_rollup/``, for an
event that still comes for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import StateError
from schemas.partials import Block
from sinks.store import File, Store, side_by_side
from sinks.tables import Schema, Table

METRICS_FOLDER, ARCHIVE_FOLDER = "metrics", "_rollup"
_POSITION = b"woolwatch.position"
_ARCHIVED = re.compile(rf"{ARCHIVE_FOLDER}/(\w+)/part-(\d+)-(\d{{4,}}-\d\d-\d\d)\.parquet", re.ASCII)
_WHOLE = re.compile(r"/part-(\d+)\.parquet$", re.ASCII)
_block_decoder = msgspec.msgpack.Decoder(Block)
_encoder = msgspec.msgpack.Encoder()


class WholeFile(NamedTuple):
    """The numbers of a rollup partition, and the position up to which they count, if it is noted."""

    rollup_partition: int
    position: int | None
    rows: Table


class MetricFiles:
    """``metrics/<table>/part-<rollup partition>.parquet``, of a day ``part-<rollup partition>-<date>.parquet``.

    A reader sees the whole old file or the whole new one. The position stands in the file itself, so that both change
    at once. Blocks on the store, so an event loop calls it in a thread.

    Parameters
    ----------
    store
        Where the tables are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def position(self, table: str, rollup_partition: int) -> int | None:
        """Up to where the file counts; None when there is none."""
        try:
            with self._store.open(_name(METRICS_FOLDER, table, rollup_partition)) as file:
                return _position_in(file)
        except FileNotFoundError:
            return None

    def read(self, table: str) -> list[WholeFile]:
        """All files of a table that has one for each rollup partition."""
        names = self._store.names(f"{METRICS_FOLDER}/{table}")
        found = ((_WHOLE.search(name), name) for name in names)
        return side_by_side(self._read, [(int(match[1]), name) for match, name in found if match])

    def _read(self, file: tuple[int, str]) -> WholeFile:
        rollup_partition, name = file
        with self._store.open(name) as opened:
            rows = pq.read_table(opened)
        return WholeFile(rollup_partition, _noted_in(rows.schema), rows)

    def replace(
        self, table: str, rollup_partition: int, position: int, rows: Table, *, day: int | None = None
    ) -> bool:
        """Put new numbers in the place of the old ones.

        Parameters
        ----------
        table
            ``funnel``, ``dau``, ...
        rollup_partition
            Whose numbers these are.
        position
            Offset of the partials log up to which they count.
        rows
            All rows of the partition, or of its day; an Arrow table.
        day
            Days since 1970, where the table has a file for each.

        Returns
        -------
        False when the file stands at a later position already; it stays as it is then.

        Raises
        ------
        OSError
            The store does not take it. The file is as before; the same call may be made again.
        """
        return self._replace(_name(METRICS_FOLDER, table, rollup_partition, day), position, rows)

    def remove_whole(self, table: str, rollup_partition: int) -> None:
        """Remove the one file of a table that has one for each day now: an earlier version wrote it."""
        self._store.remove([_name(METRICS_FOLDER, table, rollup_partition)])

    # -- closed days ---------------------------------------------------------------------------------------------

    def archived_days(self, table: str, rollup_partition: int) -> set[int]:
        """Days of which :meth:`archived` has blocks."""
        names = (_ARCHIVED.fullmatch(name) for name in self._store.names(f"{ARCHIVE_FOLDER}/{table}"))
        dates = [name[3] for name in names if name and int(name[2]) == rollup_partition]
        return {int(np.datetime64(of_day, "D").astype(int)) for of_day in dates}

    def archive(
        self, table: str, rollup_partition: int, position: int, blocks: Sequence[Block], *, day: int
    ) -> bool:
        """Keep all blocks of a day; returned and raised is as by :meth:`replace`."""
        rows = pa.table({"block": pa.array(map(_encoder.encode, blocks), pa.binary())})
        return self._replace(_name(ARCHIVE_FOLDER, table, rollup_partition, day), position, rows)

    def archived(self, table: str, rollup_partition: int, day: int) -> list[Block]:
        """All blocks that were kept of a day.

        Raises
        ------
        StateError
            They can not be read.
        OSError
            The store does not answer.
        """
        name = _name(ARCHIVE_FOLDER, table, rollup_partition, day)
        try:
            with self._store.open(name) as file:
                rows = pq.read_table(file)
            return [_block_decoder.decode(packed) for packed in rows["block"].to_pylist()]
        except (pa.ArrowException, KeyError, msgspec.DecodeError) as error:
            raise StateError(f"{self._store}/{name} can not be read: {error}") from error

    def _replace(self, name: str, position: int, rows: Table) -> bool:
        fill = partial(_write, rows, position)
        return self._store.replace(name, fill, version=position, version_of=_position_in)


def _name(folder: str, table: str, rollup_partition: int, day: int | None = None) -> str:
    # Not by datetime: an event's time may be in any year.
    of_day = "" if day is None else f"-{np.datetime64(day, 'D')}"
    return f"{folder}/{table}/part-{rollup_partition}{of_day}.parquet"


def _position_in(file: File) -> int | None:
    return _noted_in(pq.read_schema(file))


def _noted_in(schema: Schema) -> int | None:
    metadata = schema.metadata
    return None if not metadata or _POSITION not in metadata else int(metadata[_POSITION])


def _write(rows: Table, position: int, file: File) -> None:
    noted = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _POSITION: str(position)})
    pq.write_table(noted, file, compression="zstd", compression_level=1)

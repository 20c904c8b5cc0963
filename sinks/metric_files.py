"""The metric tables as files: one for each rollup partition, replaced whole by its newest numbers."""

from __future__ import annotations

from functools import partial

import pyarrow.parquet as pq

from sinks.store import File, Store
from sinks.tables import Table

METRICS_FOLDER = "metrics"
_POSITION = b"woolwatch.position"


class MetricFiles:
    """``metrics/<table>/part-<rollup partition>.parquet``.

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
            with self._store.open(_name(table, rollup_partition)) as file:
                return _position_in(file)
        except FileNotFoundError:
            return None

    def replace(self, table: str, rollup_partition: int, position: int, rows: Table) -> bool:
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
            All rows of the partition, an Arrow table.

        Returns
        -------
        False when the file stands at a later position already; it stays as it is then.

        Raises
        ------
        OSError
            The store does not take it. The file is as before; the same call may be made again.
        """
        return self._store.replace(
            _name(table, rollup_partition),
            partial(_write, rows, position),
            version=position,
            version_of=_position_in,
        )


def _name(table: str, rollup_partition: int) -> str:
    return f"{METRICS_FOLDER}/{table}/part-{rollup_partition}.parquet"


def _position_in(file: File) -> int | None:
    metadata = pq.read_schema(file).metadata
    return None if not metadata or _POSITION not in metadata else int(metadata[_POSITION])


def _write(rows: Table, position: int, file: File) -> None:
    noted = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _POSITION: str(position)})
    pq.write_table(noted, file, compression="zstd", compression_level=1)

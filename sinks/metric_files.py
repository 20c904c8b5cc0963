"""The metric tables as files: one for each rollup partition, replaced whole by its newest numbers."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from sinks.commit_log import LOG_FOLDER, STAGING_FOLDER
from sinks.durable_files import make_folder, sync
from sinks.faults import fault_point
from sinks.tables import Table

METRICS_FOLDER = "metrics"
_POSITION = b"woolwatch.position"


class MetricFiles:
    """``metrics/<table>/part-<rollup partition>.parquet`` below a folder.

    A reader sees the whole old file or the whole new one. The position stands in the file itself, so that one
    rename changes both. Blocks on the disk, so an event loop calls it in a thread.

    Parameters
    ----------
    root
        The sink's folder, on a local disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def position(self, table: str, rollup_partition: int) -> int | None:
        """Up to where the file counts; None when there is none."""
        try:
            metadata = pq.read_schema(self._path(table, rollup_partition)).metadata
        except FileNotFoundError:
            return None
        return None if not metadata or _POSITION not in metadata else int(metadata[_POSITION])

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
            The disk does not take it. The file is as before; the same call may be made again.
        """
        path = self._path(table, rollup_partition)
        make_folder(path.parent)
        make_folder(self._staging)
        staged = self._staging / f"{table}-{rollup_partition}-{position:020d}-{uuid.uuid4().hex}.staged"
        try:
            _write(rows, staged, position)
            fault_point("metrics.staged")
            return self._put_in_place(staged, table, rollup_partition, position)
        except FileNotFoundError:
            # Swept by someone who has replaced the file by one that is no older.
            if self.position(table, rollup_partition) is None:
                raise
            return False
        finally:
            staged.unlink(missing_ok=True)

    def _put_in_place(self, staged: Path, table: str, rollup_partition: int, position: int) -> bool:
        path = self._path(table, rollup_partition)
        with self._locked(table, rollup_partition):
            present = self.position(table, rollup_partition)
            if present is not None and present > position:
                return False
            staged.rename(path)
            fault_point("metrics.renamed")
            sync(path.parent)
            self._sweep(table, rollup_partition, position)
        return True

    @property
    def _staging(self) -> Path:
        return self._root / STAGING_FOLDER / METRICS_FOLDER

    def _path(self, table: str, rollup_partition: int) -> Path:
        return self._root / METRICS_FOLDER / table / f"part-{rollup_partition}.parquet"

    def _sweep(self, table: str, rollup_partition: int, position: int) -> None:
        """Remove what writers that died staged up to this position; a later one may still be on its way."""
        prefix = f"{table}-{rollup_partition}-"
        for path in self._staging.glob(f"{prefix}*.staged"):
            if int(path.name.removeprefix(prefix)[:20]) <= position:
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, table: str, rollup_partition: int) -> Iterator[None]:
        """Keep other processes out; the lock goes with the process that holds it, however that ends."""
        folder = self._root / LOG_FOLDER / METRICS_FOLDER
        make_folder(folder)
        with (folder / f"{table}-{rollup_partition}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(rows: Table, path: Path, position: int) -> None:
    noted = rows.replace_schema_metadata({**(rows.schema.metadata or {}), _POSITION: str(position)})
    pq.write_table(noted, path, compression="zstd", compression_level=1)
    sync(path)

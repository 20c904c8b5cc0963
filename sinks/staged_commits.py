"""Commits of files into tables: staged, committed once, renamed; every row once, whatever is killed and when.

A commit, in this order:

1. the rows are written below ``_staging/``, where no reader looks, and synced;
2. the log entry that lists them is created, if no other writer was faster: from here on they are in;
3. the files are renamed into the tables, and synced.

A writer that dies in 1 leaves litter, which is removed as soon as nobody can commit it any more; one that
dies in 3 leaves renames, which whoever comes next at this partition finishes first.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow.parquet as pq

from sinks.column_options import column_options
from sinks.commit_log import (
    STAGING_FOLDER,
    Account,
    CommitLog,
    CommittedFile,
    Entry,
    chain_name,
    claim_key,
    merged,
    staged_file,
)
from sinks.durable_files import make_folder, sync
from sinks.faults import fault_point
from sinks.tables import Table

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_THREADS = 8
"""Most of the work on many small files is waiting for the disk."""

_FEW_ROWS = 1_000
_WIDE = frozenset({"event_id", "user", "device", "ip", "evidence", "sealed"})
"""To compress a column costs as much as to write it. In a file of few rows only these are worth it: half the time."""


class StagedTable(NamedTuple):
    """Rows of a commit, and where they go below the root."""

    path: str
    table: Table


class StagedCommits:
    """One chain of commits; each says up to which position its source is in.

    Delivery: each position exactly once. For one caller at a time; other processes may write the same chain, and
    lose. Blocks on the disk, so an event loop calls it in a thread.

    Parameters
    ----------
    root
        The sink's folder, on a local disk.
    partition
        The source's partition.
    key_fingerprint
        Of the key that made the pseudonyms.
    table
        Of a chain besides that of the verdicts: its name.
    """

    def __init__(self, root: Path, partition: int, *, key_fingerprint: str, table: str = "") -> None:
        self._root, self._partition = root, partition
        self._key_fingerprint = key_fingerprint
        self._log = CommitLog(root, partition, table=table)
        self._staging = root / STAGING_FOLDER / chain_name(partition, table)
        self.position = 0
        """Everything below it is in."""
        self.account: Account = ()
        """What that consumed."""

    def open(self) -> int:
        """Finish what an earlier owner began; must come before the first write. Returns the position.

        Raises
        ------
        StateError
            The tables were made with another key or by a later version.
        """
        self._log.create_folder()
        make_folder(self._staging)
        folder = self._new_folder(0)
        claim_key(self._root, self._key_fingerprint, by_way_of=folder / "key")
        folder.rmdir()
        last = self._log.last()
        if last is not None:
            self._adopt(last)
        self._sweep()
        return self.position

    def commit(self, next_: int, tables: Sequence[StagedTable], account: Account = ()) -> None:
        """Commit [position, next_), or find that another writer was faster; the position is behind either.

        Raises
        ------
        OSError
            The disk does not take it. Nothing is in then, and the same call may be made again.
        """
        entry = self._try(next_, tables, account)
        if entry is None:
            entry = self._log.entry(self.position)
            log.warning("partition %d: another writer committed position %d", self._partition, entry.first)
        self._adopt(entry)
        self._sweep()

    def _try(self, next_: int, tables: Sequence[StagedTable], account: Account) -> Entry | None:
        """Stage and commit; None when another writer was here. The entry's files are not renamed yet."""
        first = self.position
        folder = self._new_folder(first)
        try:
            files = self._stage(folder, tables)
            fault_point("parquet.staged")
            entry = Entry(
                self._partition,
                first,
                next_,
                folder.name,
                files,
                account,
                merged([*self.account, *account]),
            )
            won = self._log.append(entry, by_way_of=folder / "entry")
        except OSError:
            winner = self._log.read(first)
            # Never remove what is committed: the failure may have come after the link was made.
            if winner is None or winner.staged != folder.name:
                shutil.rmtree(folder, ignore_errors=True)
            # A loser's folder may be swept away under its hands; any other failure is the caller's to retry.
            if winner is None:
                raise
            return None
        if not won:
            shutil.rmtree(folder, ignore_errors=True)
        return entry if won else None

    def _new_folder(self, first: int) -> Path:
        """A staging folder of this writer alone; its name says from which position on it may be committed."""
        return Path(tempfile.mkdtemp(prefix=f"{first:020d}-", dir=self._staging))

    def _stage(self, folder: Path, tables: Sequence[StagedTable]) -> tuple[CommittedFile, ...]:
        """Write the rows of a commit, durably, names included."""

        def stage(number: int) -> None:
            path = staged_file(folder, number)
            _write_parquet(tables[number].table, path)
            fault_point("parquet.staging")
            sync(path)

        _each(stage, range(len(tables)))
        sync(folder)
        sync(self._staging)
        return tuple(CommittedFile(path, table.num_rows) for path, table in tables)

    def _adopt(self, entry: Entry) -> None:
        """Stand behind an entry, whoever made it: its files are in the tables when this returns."""
        fault_point("parquet.committed")
        staged = self._staging / entry.staged
        targets = [self._root / file.path for file in entry.files]
        if staged.is_dir():
            folders = {target.parent for target in targets}
            for folder in folders:
                make_folder(folder)
            for number, target in enumerate(targets):
                _rename_once(staged_file(staged, number), target)
                fault_point("parquet.renaming")
            _each(sync, folders)
            fault_point("parquet.renamed")
            shutil.rmtree(staged, ignore_errors=True)
        self.position, self.account = entry.next, entry.total

    def _sweep(self) -> None:
        """Remove staged files that nobody can commit any more; a zombie still can those at the position."""
        for folder in self._staging.iterdir():
            first = folder.name[:20]
            if first.isdecimal() and int(first) < self.position:
                shutil.rmtree(folder, ignore_errors=True)


def _write_parquet(table: Table, path: Path) -> None:
    names = table.column_names
    packed = [name for name in names if name in _WIDE] if table.num_rows < _FEW_ROWS else names
    pq.write_table(
        table,
        path,
        compression="zstd" if packed is names else dict.fromkeys(packed, "zstd"),
        compression_level=1 if packed is names else dict.fromkeys(packed, 1),
        **column_options(names),
    )


def _rename_once(staged: Path, target: Path) -> None:
    """Move a committed file to its place; another process may be doing the same."""
    with contextlib.suppress(FileNotFoundError):
        staged.rename(target)
    if not target.exists():
        log.error("a committed file is gone: neither staged nor at %s; its rows are lost", target)


def _each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Do the work for each item, side by side; the first failure is raised when all have ended."""
    todo = list(items)
    if len(todo) < 2:
        for item in todo:
            work(item)
        return
    with ThreadPoolExecutor(min(_THREADS, len(todo))) as pool:
        list(pool.map(work, todo))

"""Commits of files into tables: staged, committed once, renamed; every row once, whatever is killed and when.

A commit, in this order:

1. the rows are written below ``_staging/``, where no reader looks;
2. the log entry that lists them is created, if no other writer was faster: from here on they are in;
3. the files are published: they appear in the tables, whole.

Each step is durable before the next. A writer that dies in 1 leaves litter, which is removed as soon as nobody can
commit it any more; one that dies in 3 leaves files, which whoever comes next at this partition publishes first.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import pyarrow.parquet as pq

from sinks.column_options import column_options
from sinks.commit_log import (
    Account,
    CommitLog,
    CommittedFile,
    Cut,
    Entry,
    chain_name,
    claim_key,
    merged,
    moves_of,
    staged_file,
    staged_folder,
)
from sinks.faults import fault_point
from sinks.store import STAGING_FOLDER, File, Store, UncertainError
from sinks.tables import Table

log = logging.getLogger(__name__)

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
    lose. Blocks on the store, so an event loop calls it in a thread.

    Parameters
    ----------
    store
        Where the tables are.
    partition
        The source's partition.
    key_fingerprint
        Of the key that made the pseudonyms.
    table
        Of a chain besides that of the verdicts: its name.
    """

    def __init__(self, store: Store, partition: int, *, key_fingerprint: str, table: str = "") -> None:
        self._store, self._partition = store, partition
        self._key_fingerprint = key_fingerprint
        self._log = CommitLog(store, partition, table=table)
        self._chain = chain_name(partition, table)
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
        folder = self._new_folder(0)
        claim_key(self._store, self._key_fingerprint, by_way_of=f"{folder}/key")
        self._store.remove_folder(folder)
        last = self._log.last()
        if last is not None:
            self._adopt(last)
        self._sweep()
        return self.position

    def commit(
        self, next_: int, tables: Sequence[StagedTable], account: Account = (), cuts: tuple[Cut, ...] = ()
    ) -> None:
        """Commit [position, next_), or find that another writer was faster; the position is behind either.

        Raises
        ------
        OSError
            The store does not take it. Nothing is in then, and the same call may be made again.
        """
        entry = self._try(next_, tables, account, cuts)
        if entry is None:
            entry = self._log.entry(self.position)
            log.warning("partition %d: another writer committed position %d", self._partition, entry.first)
        self._adopt(entry)
        self._sweep()

    def _try(
        self, next_: int, tables: Sequence[StagedTable], account: Account, cuts: tuple[Cut, ...]
    ) -> Entry | None:
        """Stage and commit; None when another writer was here. The entry's files are not published yet."""
        first = self.position
        folder = self._new_folder(first)
        entry = Entry(
            self._partition,
            first,
            next_,
            folder.rpartition("/")[2],
            tuple(CommittedFile(path, table.num_rows) for path, table in tables),
            account,
            merged([*self.account, *account]),
            cuts=cuts,
        )
        try:
            self._store.write(
                [
                    (staged_file(folder, i), partial(_write_parquet, table))
                    for i, (_, table) in enumerate(tables)
                ]
            )
            fault_point("parquet.staged")
            won = self._log.append(entry, by_way_of=f"{folder}/entry")
        except UncertainError:
            # What is staged stays: the entry may be there, or come. Who tries again meets it, or sweeps the files.
            raise
        except OSError:
            winner = self._log.read(first)
            # Never remove what is committed: the failure may have come after the entry was made.
            if winner is None or winner.staged != entry.staged:
                self._store.remove_folder(folder)
            # A loser's folder may be swept away under its hands; any other failure is the caller's to retry.
            if winner is None:
                raise
            return None
        if not won:
            self._store.remove_folder(folder)
        return entry if won else None

    def _new_folder(self, first: int) -> str:
        """A staging folder of this writer alone; its name says from which position on it may be committed."""
        return staged_folder(self._chain, f"{first:020d}-{uuid.uuid4().hex}")

    def _adopt(self, entry: Entry) -> None:
        """Stand behind an entry, whoever made it: its files are in the tables when this returns."""
        fault_point("parquet.committed")
        folder = staged_folder(self._chain, entry.staged)
        self._store.publish(folder, moves_of(entry, folder))
        self.position, self.account = entry.next, entry.total

    def _sweep(self) -> None:
        """Remove staged files that nobody can commit any more; a zombie still can those at the position."""
        for folder in self._store.folders(f"{STAGING_FOLDER}/{self._chain}"):
            first = folder.rpartition("/")[2][:20]
            if first.isdecimal() and int(first) < self.position:
                self._store.remove_folder(folder)


def _write_parquet(table: Table, file: File) -> None:
    names = table.column_names
    packed = [name for name in names if name in _WIDE] if table.num_rows < _FEW_ROWS else names
    pq.write_table(
        table,
        file,
        compression="zstd" if packed is names else dict.fromkeys(packed, "zstd"),
        compression_level=1 if packed is names else dict.fromkeys(packed, 1),
        **column_options(names),
    )

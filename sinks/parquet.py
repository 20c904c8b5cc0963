"""Verdicts, late rows and, in a replay, dead letters as Parquet: every row once, whatever is killed and when.

A commit, in this order:

1. the rows are written below ``_staging/``, where no reader looks, and synced;
2. the log entry that lists them is created, if no other writer was faster: from here on the turns are in;
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

from schemas.verdicts import Verdicts
from sinks.commit_log import (
    STAGING_FOLDER,
    Account,
    CommitLog,
    CommittedFile,
    Entry,
    account_of,
    claim_key,
    merged,
)
from sinks.dead_letters import Seal, dead_letter_table
from sinks.durable_files import make_folder, sync
from sinks.faults import fault_point
from sinks.tables import Table, by_config, by_date, verdict_table

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_THREADS = 8
"""Most of the work on many small files is waiting for the disk."""

# Ids and floats hardly repeat: a dictionary of them costs time and saves nothing.
_WITHOUT_DICTIONARY = frozenset(
    {"event_id", "ts", "offset", "user", "device", "ip", "score", "evidence", "sealed"}
)
_WITH_STATISTICS = frozenset(
    {"event_id", "event", "ts", "offset", "user", "device", "ip", "channel", "campaign", "score", "level"}
)
_FEW_ROWS = 1_000
_WIDE = frozenset({"event_id", "user", "device", "ip", "evidence", "sealed"})
"""To compress a column costs as much as to write it. In a file of few rows only these are worth it: half the time."""


class _StagedTable(NamedTuple):
    path: str
    table: Table


class ParquetSink:
    """The tables ``verdicts/`` and ``late/`` of one judge partition, and ``deadletters/`` where asked for.

    Delivery: each turn exactly once. For one caller at a time; other processes may write the same partition,
    and lose. Blocks on the disk, so an event loop calls it in a thread.

    Parameters
    ----------
    root
        The sink's folder, on a local disk.
    partition
        The judge partition.
    key_fingerprint
        Of the key that made the pseudonyms.
    seal
        Closes what a dead letter keeps of the original; without it rejected records are only counted.
    """

    def __init__(self, root: Path, partition: int, *, key_fingerprint: str, seal: Seal | None = None) -> None:
        self._root, self._partition, self._seal = root, partition, seal
        self._key_fingerprint = key_fingerprint
        self._log = CommitLog(root, partition)
        self._staging = root / STAGING_FOLDER / f"p{partition}"
        self.position = 0
        """All turns below it are in."""
        self.account: Account = ()
        """What those turns consumed."""

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

    def write(self, verdicts: Sequence[Verdicts]) -> int:
        """Commit turns, those that are in already aside; returns the position.

        Parameters
        ----------
        verdicts
            Turns in a row, ascending; any number, as one commit of one file per date and config.

        Raises
        ------
        ValueError
            Turns are missing before or between these.
        OSError
            The disk does not take it. Nothing is in then, and the same call may be made again.
        """
        while turns := self._missing(verdicts):
            entry = self._commit(turns)
            if entry is None:
                entry = self._log.entry(self.position)
                log.warning("partition %d: another writer committed turn %d", self._partition, entry.first)
            self._adopt(entry)
            self._sweep()
        return self.position

    def _missing(self, verdicts: Sequence[Verdicts]) -> list[Verdicts]:
        """The turns that are not in yet."""
        turns = [turn for turn in verdicts if turn.turn >= self.position]
        if any(turn.turn != self.position + i for i, turn in enumerate(turns)):
            raise ValueError(
                f"expected turns from {self.position} on, got {[turn.turn for turn in turns[:3]]}..."
            )
        return turns

    def _commit(self, turns: list[Verdicts]) -> Entry | None:
        """Stage and commit; None when another writer has this turn. The entry's files are not renamed yet."""
        first = self.position
        folder = self._new_folder(first)
        try:
            files = self._stage(folder, turns)
            fault_point("parquet.staged")
            account = account_of(turns)
            entry = Entry(
                self._partition,
                first,
                turns[-1].turn + 1,
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
        """A staging folder of this writer alone; its name says from which turn on it may be committed."""
        return Path(tempfile.mkdtemp(prefix=f"{first:020d}-", dir=self._staging))

    def _stage(self, folder: Path, turns: list[Verdicts]) -> tuple[CommittedFile, ...]:
        """Write the rows of some turns, durably, names included."""
        tables = self._tables(turns)

        def stage(number: int) -> None:
            path = _staged(folder, number)
            _write_parquet(tables[number].table, path)
            fault_point("parquet.staging")
            sync(path)

        _each(stage, range(len(tables)))
        sync(folder)
        sync(self._staging)
        return tuple(CommittedFile(path, table.num_rows) for path, table in tables)

    def _tables(self, turns: list[Verdicts]) -> list[_StagedTable]:
        """The rows by table, date and config; names tell partition, first turn, and number of the config."""
        found: list[_StagedTable] = []
        for number, group in enumerate(by_config(turns)):
            name = f"p{self._partition}-{self.position:020d}-{number}.parquet"
            for folder, table in zip(("verdicts", "late"), verdict_table(group), strict=True):
                found += [_StagedTable(f"{folder}/date={date}/{name}", rows) for date, rows in by_date(table)]
        if self._seal is not None and any(turn.batch.rejections for turn in turns):
            letters = dead_letter_table([turn.batch for turn in turns], self._seal)
            name = f"p{self._partition}-{self.position:020d}.parquet"
            found.append(_StagedTable(f"deadletters/{name}", letters))
        return found

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
                _rename_once(_staged(staged, number), target)
                fault_point("parquet.renaming")
            _each(sync, folders)
            fault_point("parquet.renamed")
            shutil.rmtree(staged, ignore_errors=True)
        self.position, self.account = entry.next, entry.total

    def _sweep(self) -> None:
        """Remove staged files that nobody can commit any more; a zombie still can those at the position."""
        for folder in self._staging.iterdir():
            if int(folder.name[:20]) < self.position:
                shutil.rmtree(folder, ignore_errors=True)


def _staged(folder: Path, number: int) -> Path:
    return folder / f"{number}.staged"


def _write_parquet(table: Table, path: Path) -> None:
    names = table.column_names
    packed = [name for name in names if name in _WIDE] if table.num_rows < _FEW_ROWS else names
    pq.write_table(
        table,
        path,
        compression="zstd" if packed is names else dict.fromkeys(packed, "zstd"),
        compression_level=1 if packed is names else dict.fromkeys(packed, 1),
        use_dictionary=[
            name for name in names if name not in _WITHOUT_DICTIONARY and not name.startswith("m_")
        ],
        write_statistics=[name for name in names if name in _WITH_STATISTICS],
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

"""What lies in the dated tables: folders of dates and the files in them, links and foreign files left alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigError, StateError
from sinks.commit_log import CommitLog
from sinks.merge_plan import (
    DATED_TABLES,
    FileFacts,
    ended_before,
    horizon,
    is_table_file,
    start_of_date,
    step_of,
)
from sinks.store import LOG_FOLDER, Store, side_by_side
from sinks.upkeep_journal import UpkeepJournal

UNREADABLE = (OSError, pa.ArrowException)
"""What reading a Parquet file raises that is torn, or none."""

_CHAIN = re.compile(r"(?:([a-z]+)-)?p(\d{1,9})", re.ASCII)


class DateFolder(NamedTuple):
    """One date of one table: the names of the files that commits and compactions made in it, with their sizes."""

    table: str
    folder: str
    files: dict[str, int]

    @property
    def path(self) -> str:
        """Its name in the store."""
        return f"{self.table}/{self.folder}"


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """Be the only one who compacts or expires these tables, as far as the store can tell.

    Raises
    ------
    StateError
        Another one is at work.
    """
    require_tables(store)
    store.check(writing=True)
    with store.alone("upkeep") as is_alone:
        if not is_alone:
            raise StateError(
                f"another compact or expire is at work on {store}: this one did nothing"
                " (on S3, one that was killed counts as at work for a minute and a half)"
            )
        yield


def require_tables(store: Store) -> None:
    """Refuse a folder that is no sink.

    Raises
    ------
    ConfigError
        It has no log of commits.
    """
    if not store.folders(LOG_FOLDER):
        raise ConfigError(
            file="--out",
            path="$",
            found=f"{store}, which has no log of commits",
            expected="the folder of tables that a worker writes",
        )


def ended_folders(store: Store, *, span_ms: int, now_ms: int) -> list[DateFolder]:
    """The dates of all tables that ended at least ``span_ms`` before the horizon, and what may be touched in them.

    That is every file but those of each chain's newest commit: before the next commit, whoever takes a chain up sees
    whether they stand.
    """
    counting = UpkeepJournal(store).counting()
    found = [
        DateFolder(table, folder, files)
        for table in DATED_TABLES
        for folder in sorted(name.rpartition("/")[2] for name in store.folders(table))
        if start_of_date(folder) is not None and (files := _table_files(store, f"{table}/{folder}", counting))
    ]
    dates = {each.folder for each in found}
    ended = set(ended_before(dates, horizon(dates, now_ms), span_ms))
    newest = _newest_files(store)  # after the listing: what is committed meanwhile is not in that
    return [
        each._replace(
            files={name: size for name, size in each.files.items() if f"{each.path}/{name}" not in newest}
        )
        for each in found
        if each.folder in ended
    ]


def facts_of(store: Store, found: DateFolder) -> tuple[list[FileFacts], list[str]]:
    """Rows and schemas of a date's files, and a sentence for each that can not be read. About 0.3 ms a file."""

    def read(name: str) -> FileFacts | str:
        try:
            with store.open(f"{found.path}/{name}") as file, pq.ParquetFile(file) as parquet:
                schema = parquet.schema_arrow.remove_metadata().serialize().to_pybytes()
                return FileFacts(name, found.files[name], parquet.metadata.num_rows, schema)
        except UNREADABLE as error:
            place = f"{store}/{found.path}/{name}"
            return f"{place}: found {error}; expected a Parquet file of this table; it is left alone"

    results: Sequence[FileFacts | str] = side_by_side(read, found.files)
    return (
        [each for each in results if isinstance(each, FileFacts)],
        [each for each in results if isinstance(each, str)],
    )


def _table_files(store: Store, folder: str, counting: Collection[str]) -> dict[str, int]:
    return {
        name: size
        for name, size in store.sizes(folder).items()
        if is_table_file(name) and (step_of(name) is None or f"{folder}/{name}" in counting)
    }


def _newest_files(store: Store) -> set[str]:
    chains: Iterable[re.Match[str] | None] = (
        _CHAIN.fullmatch(name.rpartition("/")[2]) for name in store.folders(LOG_FOLDER)
    )
    logs = (CommitLog(store, int(chain[2]), table=chain[1] or "") for chain in chains if chain)
    return {file.path for log in logs if (last := log.last()) for file in last.files}

"""What is in the tables: one entry for each commit of a judge partition, and the account that they add up to.

``_log/p<partition>/<first turn, 20 digits>.json`` lists the files of turns [first, next). Creating it *is*
the commit; its name is where the entry before it ends, so the entries of a partition form one chain,
whoever wrote them: of two writers that stand at the same turn exactly one can go on. An entry never
changes, and an entry is only made when the files of the one before it stand in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

import msgspec

from schemas.errors import StateError
from schemas.labels import LABELS
from schemas.verdicts import Outcomes, Verdicts
from sinks.faults import fault_point
from sinks.store import LOG_FOLDER, STAGING_FOLDER, Store

_KEY_FILE = "key"
_VERSION = 1


class SourceAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of the records of one topic-partition.

    Parameters
    ----------
    topic, partition
        The source; ``topic`` is the role.
    ranges
        Offsets [start, next) that were judged, ascending; those that touch are one.
    verdicts, late, duplicates, rejected
        How the records in them ended.
    """

    topic: str
    partition: int
    ranges: tuple[tuple[int, int], ...]
    verdicts: int
    late: int
    duplicates: int
    rejected: int

    @property
    def outcomes(self) -> Outcomes:
        """The counts."""
        return Outcomes(self.verdicts, self.late, self.duplicates, self.rejected)

    def problems(self) -> Iterator[str]:
        """Say of every two ranges in a row that do not meet what is wrong, in a sentence."""
        for (_, end), (start, _) in pairwise(self.ranges):
            what = "are in no table" if start > end else "were judged twice"
            low, high = sorted((start, end))
            yield f"{self.topic}-{self.partition}: offsets {low} to {high - 1} {what}"


Account = tuple[SourceAccount, ...]
"""One for each topic-partition, in order of their names."""


class CommittedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a commit: where in the tables, below the root, and how many rows."""

    path: str
    rows: int


class Cut(msgspec.Struct, frozen=True, array_like=True):
    """Where a turn begins: its number, and its first offset in the topic that it is of."""

    turn: int
    topic: str
    start: int


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One commit.

    Parameters
    ----------
    partition
        The judge partition.
    first, next
        The turns [first, next) are in.
    staged
        Folder in that of the chain below ``_staging/``, in which file number i waits as ``<i>.staged`` until it is
        published.
    files
        Files of the commit.
    account
        What these turns consumed.
    total
        What all turns below ``next`` consumed.
    cuts
        Where each of these turns begins, ascending: in this order rows were judged. Turns of labels have none.
        Entries of earlier versions have none at all.
    """

    partition: int
    first: int
    next: int
    staged: str
    files: tuple[CommittedFile, ...]
    account: Account
    total: Account
    version: int = _VERSION
    cuts: tuple[Cut, ...] = ()


_decoder = msgspec.json.Decoder(Entry)


def chain_name(partition: int, table: str = "") -> str:
    """Folder of a chain of commits, below ``_log/`` and ``_staging/``."""
    return f"{table}-p{partition}" if table else f"p{partition}"


class CommitLog:
    """The entries of one judge partition.

    Parameters
    ----------
    store
        Where the tables are.
    partition
        The judge partition.
    table
        Of a chain besides that of the verdicts, such as that of the alerts: its name. Then ``partition`` is one of
        its own source, and what are called turns are offsets there.
    """

    def __init__(self, store: Store, partition: int, *, table: str = "") -> None:
        self._store = store
        self._folder = f"{LOG_FOLDER}/{chain_name(partition, table)}"

    def read(self, first: int, *, durable: bool = False) -> Entry | None:
        """The entry that begins at a turn; None when no turn from there on is in.

        Raises
        ------
        StateError
            It is none of ours, or of a later version.
        """
        content = self._store.read(self._name(first), durable=durable)
        if content is None:
            return None
        place = f"{self._store}/{self._name(first)}"
        try:
            entry = _decoder.decode(content)
        except msgspec.DecodeError as error:
            raise StateError(f"{place} is no commit that this version can read: {error}") from error
        if (entry.first, entry.version) != (first, _VERSION):
            raise StateError(
                f"{place} is a commit of turn {entry.first} in format {entry.version}, not {_VERSION}"
            )
        return entry

    def entry(self, first: int) -> Entry:
        """The entry that begins at a turn and is known to be there, durably."""
        entry = self.read(first, durable=True)
        if entry is None:
            raise StateError(f"{self._store}/{self._name(first)} was there and is gone")
        return entry

    def last(self) -> Entry | None:
        """The newest entry, durably."""
        newest = None
        first = max(self.firsts(), default=0)
        while (entry := self.read(first)) is not None:
            newest, first = entry, entry.next
        return None if newest is None else self.entry(newest.first)

    def firsts(self) -> list[int]:
        """First turns of all entries, in no order."""
        return [
            int(PurePosixPath(name).stem)
            for name in self._store.names(self._folder)
            if name.endswith(".json")
        ]

    def append(self, entry: Entry, *, by_way_of: str) -> bool:
        """Commit, unless another writer already has committed this turn; then False."""
        won = self._store.create(self._name(entry.first), msgspec.json.encode(entry), by_way_of=by_way_of)
        fault_point("log.appended")
        return won

    def _name(self, first: int) -> str:
        return f"{self._folder}/{first:020d}.json"


def account_of(verdicts: Iterable[Verdicts]) -> Account:
    """The account of some turns; labels are no events, and every judge takes all of them."""
    return merged(
        SourceAccount(
            turn.batch.topic,
            turn.batch.partition,
            ((turn.batch.start, turn.batch.next),),
            turn.outcomes.verdicts,
            turn.outcomes.late,
            turn.outcomes.duplicates,
            turn.outcomes.rejected,
        )
        for turn in verdicts
        if turn.batch.topic != LABELS
    )


def cuts_of(verdicts: Iterable[Verdicts]) -> tuple[Cut, ...]:
    """Where turns begin, but those of labels."""
    return tuple(
        Cut(turn.turn, turn.batch.topic, turn.batch.start) for turn in verdicts if turn.batch.topic != LABELS
    )


def merged(parts: Iterable[SourceAccount]) -> Account:
    """Add up accounts, earlier ones first."""
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
    counts: dict[tuple[str, int], list[int]] = {}
    for part in parts:
        source = (part.topic, part.partition)
        known = ranges.setdefault(source, [])
        for start, next_ in part.ranges:
            if known and known[-1][1] == start:
                known[-1] = (known[-1][0], next_)
            else:
                known.append((start, next_))
        total = counts.setdefault(source, [0, 0, 0, 0])
        for i, count in enumerate((part.verdicts, part.late, part.duplicates, part.rejected)):
            total[i] += count
    return tuple(SourceAccount(*source, tuple(ranges[source]), *counts[source]) for source in sorted(ranges))


@dataclass(frozen=True, slots=True)
class Accounts:
    """What all judge partitions have in the tables, and what is wrong with it: one sentence each."""

    sources: Account
    commits: dict[int, Sequence[Entry]]
    """All commits by judge partition, oldest first."""
    moving: tuple[tuple[str, str], ...]
    """Files of the newest commits, perhaps not published yet: where each waits, and where it will stand."""
    problems: tuple[str, ...]

    @property
    def turns(self) -> dict[int, int]:
        """Next turn by judge partition."""
        return {partition: entries[-1].next if entries else 0 for partition, entries in self.commits.items()}


def read_accounts(store: Store) -> Accounts:
    """Add up every entry of every partition, as of now; workers may go on writing meanwhile.

    Reads one small file for each commit, so it is for a command, not for a worker.

    Raises
    ------
    StateError
        An entry can not be read.
    """
    found: list[SourceAccount] = []
    commits: dict[int, Sequence[Entry]] = {}
    moving: list[tuple[str, str]] = []
    problems: list[str] = []
    for partition in _partitions(store):
        entries, lost = _chain(CommitLog(store, partition))
        account = merged(source for entry in entries for source in entry.account)
        if entries and entries[-1].total != account:
            problems.append(
                f"judge partition {partition}: the running total differs from the sum of the commits"
            )
        problems += [
            f"judge partition {partition}: the commits before turn {first} are missing" for first in lost
        ]
        commits[partition] = entries
        moving += _moving(partition, entries)
        found += account
    sources = merged(found)
    problems += [problem for source in sources for problem in source.problems()]
    return Accounts(sources, commits, tuple(moving), tuple(problems))


def read_commits(store: Store, partition: int) -> tuple[Sequence[Entry], Sequence[tuple[str, str]]]:
    """All commits of a judge partition, oldest first, and its files that may not be published yet, as in Accounts.

    Raises
    ------
    StateError
        An entry can not be read.
    """
    entries, _ = _chain(CommitLog(store, partition))
    return entries, _moving(partition, entries)


def _moving(partition: int, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    # Those before the last are published, else it would not be there.
    return [
        move
        for last in entries[-1:]
        for move in moves_of(last, staged_folder(chain_name(partition), last.staged))
    ]


def _partitions(store: Store) -> list[int]:
    names = (folder.rpartition("/")[2].removeprefix("p") for folder in store.folders(LOG_FOLDER))
    return sorted(int(name) for name in names if name.isdecimal())


def staged_folder(chain: str, staged: str) -> str:
    """Where the files of a commit wait until they are published."""
    return f"{STAGING_FOLDER}/{chain}/{staged}"


def staged_file(folder: str, number: int) -> str:
    """Where file number ``number`` of a commit waits."""
    return f"{folder}/{number}.staged"


def moves_of(entry: Entry, folder: str) -> list[tuple[str, str]]:
    """Of each file of a commit where it waits, and where it will stand."""
    return [(staged_file(folder, i), file.path) for i, file in enumerate(entry.files)]


def _chain(log: CommitLog) -> tuple[Sequence[Entry], list[int]]:
    """The entries from turn 0 on, and the first turns of those that the chain does not reach."""
    firsts = log.firsts()  # before the walk: an entry that is added meanwhile is reached, or not missed
    entries: list[Entry] = []
    while (entry := log.read(entries[-1].next if entries else 0)) is not None:
        entries.append(entry)
    return entries, sorted(set(firsts) - {entry.first for entry in entries})


def key_of_tables(store: Store) -> str | None:
    """Fingerprint of the key that the tables were made with; None while there are none."""
    found = store.read(f"{LOG_FOLDER}/{_KEY_FILE}")
    return None if found is None else found.decode(errors="replace")


def claim_key(store: Store, fingerprint: str, *, by_way_of: str) -> None:
    """Note which pseudonym key these tables are made with.

    Raises
    ------
    StateError
        They were made with another one: the same user would have two pseudonyms.
    """
    name = f"{LOG_FOLDER}/{_KEY_FILE}"
    found = store.read(name)
    if found is None:
        if store.create(name, fingerprint.encode(), by_way_of=by_way_of):
            return
        found = store.read(name)
    if found != fingerprint.encode():
        raise StateError(
            f"the tables in {store} were made with another key: set WOOLWATCH_KEY to the one they have"
        )

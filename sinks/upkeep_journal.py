"""What compaction and retention do to the tables, durably known before they do it.

``_log/upkeep/<number>.json`` is a step that has begun: one date of one table, with every file that goes and every file
that comes. ``<number>.done.json`` is the same step when it has ended, without the names of files; then the first is
removed. So whoever was killed in the middle is followed by somebody who reads what is left to do, and a reader who
needs each row once (``woolwatch reconcile``) knows at any moment which files count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from schemas.errors import StateError
from sinks.faults import fault_point
from sinks.merge_plan import DATED_TABLES, is_compacted, is_table_file, start_of_date
from sinks.store import LOG_FOLDER, STAGING_FOLDER, Store

STAGING = f"{STAGING_FOLDER}/upkeep"
"""Folder for what is not in place yet."""

_FOLDER = f"{LOG_FOLDER}/upkeep"
_VERSION = 1
_NAME = re.compile(rf"{_FOLDER}/(\d{{8}})(\.done)?\.json", re.ASCII)
_ATTEMPTS = 20


class Merge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files that become one: names in the step's folder, and how many rows they have together."""

    output: str
    inputs: tuple[str, ...]
    rows: int


class SourceRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many rows of a topic-partition."""

    topic: str
    partition: int
    rows: int


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One date of one table.

    Parameters
    ----------
    number
        Of the step; grows, and never comes again.
    table, folder
        Where, such as ``verdicts`` and ``date=2026-01-31``.
    files_before, files_after, rows
        How many files become how many, and the rows in them.
    merges
        What compaction does; empty in a step of retention.
    expired
        The files that retention removes.
    expired_rows
        Their rows by source, where the table has sources.
    """

    number: int
    table: str
    folder: str
    files_before: int
    files_after: int
    rows: int
    merges: tuple[Merge, ...] = ()
    expired: tuple[str, ...] = ()
    expired_rows: tuple[SourceRows, ...] = ()
    version: int = _VERSION

    def names(self, files: Iterable[str]) -> list[str]:
        """Names in the store of files of the step."""
        return [f"{self.table}/{self.folder}/{file}" for file in files]


class Plan(msgspec.Struct, frozen=True):
    """What there is to do: steps, and a sentence for each file that can not be read and is left alone."""

    steps: tuple[Step, ...]
    problems: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows of all steps."""
        return sum(step.rows for step in self.steps)


_decoder = msgspec.json.Decoder(Step)


class View(NamedTuple):
    """A table as of one moment.

    Parameters
    ----------
    files
        By name; each row that was not removed is in exactly one of them.
    expired
        How many rows of each topic and partition retention has removed.
    """

    files: list[str]
    expired: Mapping[tuple[str, int], int]


class _Numbers(NamedTuple):
    """Of the steps that have begun, and of those that have ended."""

    begun: frozenset[int]
    done: frozenset[int]


class UpkeepJournal:
    """The steps of one sink.

    Parameters
    ----------
    store
        Where the tables are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ended: dict[int, Step] = {}
        """Steps that have ended never change."""

    # -- for whoever works on the tables -------------------------------------------------------------------------

    def tidy(self) -> None:
        """Remove what somebody who was killed has left behind; for whoever is alone."""
        self._store.remove_folder(STAGING)
        numbers = self._numbers()
        self._store.remove(map(_name, numbers.begun & numbers.done))

    def next_number(self) -> int:
        """Number of the next step."""
        numbers = self._numbers()
        return max(numbers.begun | numbers.done, default=0) + 1

    def begin(self, step: Step) -> None:
        """Make a step durable, before anything of it is done."""
        self._create(_name(step.number), step)
        fault_point("upkeep.planned")

    def end(self, step: Step) -> None:
        """Note that everything of a step is done, durably."""
        self._create(_name(step.number, done=True), msgspec.structs.replace(step, merges=(), expired=()))
        fault_point("upkeep.done")
        self._store.remove([_name(step.number)])

    def open_steps(self) -> list[Step]:
        """The steps that have begun and not ended, oldest first.

        Raises
        ------
        StateError
            One can not be read.
        """
        numbers = self._numbers()
        steps = (self._read(_name(number)) for number in sorted(numbers.begun - numbers.done))
        return [step for step in steps if step is not None]

    # -- for readers ---------------------------------------------------------------------------------------------

    def view(self, table: str) -> View:
        """A table as of one moment. A file of it may be gone when it is opened: then ask again.

        Raises
        ------
        StateError
            A step can not be read, or steps followed each other faster than we could look.
        """
        for _ in range(_ATTEMPTS):
            before = self._numbers()
            files = {name for name in self._store.names(table) if name.endswith(".parquet")}
            steps = [step for step in self.open_steps() if step.table == table]
            for step in steps:
                files = self._as_of(step, files)
            steps += [
                step for number in sorted(before.done) if (step := self._ended_step(number)).table == table
            ]
            if before == self._numbers():
                return View(sorted(files), _rows_by_source(steps))
        raise StateError(
            f"the files of {self._store}/{table} change all the while (compact, expire): try again later"
        )

    def _as_of(self, step: Step, files: set[str]) -> set[str]:
        """The files with a step that may be at any point: what it makes counts from when it stands."""
        files = files - set(step.names(step.expired))
        for merge in step.merges:
            (output,) = step.names([merge.output])
            # While it does not stand, no input has been removed: then the listing has all of them.
            if output in self._store.names(f"{step.table}/{step.folder}"):
                files = (files - set(step.names(merge.inputs))) | {output}
            else:
                files = files - {output}
        return files

    # -- records -------------------------------------------------------------------------------------------------

    def _numbers(self) -> _Numbers:
        names = (_NAME.fullmatch(name) for name in self._store.names(_FOLDER))
        written = [match for match in names if match]
        return _Numbers(
            frozenset(int(match[1]) for match in written if not match[2]),
            frozenset(int(match[1]) for match in written if match[2]),
        )

    def _read(self, name: str) -> Step | None:
        content = self._store.read(name)
        if content is None:
            return None
        try:
            step = _decoder.decode(content)
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._store}/{name} is no step that this version can read: {error}"
            ) from error
        if step.version != _VERSION or not _is_safe(step):
            raise StateError(
                f"{self._store}/{name} is of another version, or names files outside of the tables"
            )
        return step

    def _ended_step(self, number: int) -> Step:
        if number not in self._ended:
            step = self._read(_name(number, done=True))
            if step is None:
                raise StateError(f"{self._store}/{_name(number, done=True)} was there and is gone")
            self._ended[number] = step
        return self._ended[number]

    def _create(self, name: str, step: Step) -> None:
        content = msgspec.json.encode(step)
        created = self._store.create(name, content, by_way_of=f"{STAGING}/{name.rpartition('/')[2]}")
        if not created and self._store.read(name) != content:
            raise StateError(f"{self._store}/{name} was there already, with another content")


def _name(number: int, *, done: bool = False) -> str:
    return f"{_FOLDER}/{number:08d}{'.done' if done else ''}.json"


def _rows_by_source(steps: Iterable[Step]) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for source in (source for step in steps for source in step.expired_rows):
        key = source.topic, source.partition
        found[key] = found.get(key, 0) + source.rows
    return found


def _is_safe(step: Step) -> bool:
    """Whether all that it names are files of a dated table."""
    outputs = [merge.output for merge in step.merges]
    names = [*outputs, *step.expired, *(name for merge in step.merges for name in merge.inputs)]
    return (
        step.table in DATED_TABLES
        and start_of_date(step.folder) is not None
        and all(map(is_table_file, names))
        and all(map(is_compacted, outputs))
    )

"""What compaction and retention do to the tables, durably known before they do it.

``_log/upkeep/<number>.json`` is a step that has begun: one date of one table, with every file that goes and every file
that comes. ``<number>.done.json`` is its outcome: which of the new files count. From then on the old ones count no more
and are removed, then the first record is; the outcome stays, with the names of compacted files alone. So whoever was
killed in the middle is followed by somebody who reads what is left to do, and a reader who needs each row once
(``woolwatch reconcile``) knows at any moment which files count.

On a disk a lock keeps others away. A bucket has none that goes with its owner, and who was frozen may wake up in the
middle of a step that others have ended. That harms no row, because nothing here rests on being alone:

- *Steps are one line.* A number is begun once, by whoever creates its record, and never again: who finds its outcome
  has come too late. A plan is made only while no step is open and takes the next numbers; so who begins one knows that
  nobody else has begun any since, and that its files are still those that were planned.
- *A step has one outcome*, which of two the one who creates it. Files are removed by it alone, and only afterwards.
- *A compacted file counts if an outcome names it as made and none as gone.* Outcomes stay and names never come again,
  so a file that an overtaken owner brings (back) to its place counts for nobody, and the next run removes it; until
  then readers who glob see its rows twice. No such file is ever planned with.

What does not count now never will. Therefore a removal, however late, takes nothing that does.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from schemas.errors import StateError
from sinks.faults import fault_point
from sinks.merge_plan import DATED_TABLES, is_compacted, is_table_file, start_of_date, step_of
from sinks.store import LOG_FOLDER, STAGING_FOLDER, Store, side_by_side

STAGING = f"{STAGING_FOLDER}/upkeep"
"""Folder for what is not in place yet."""

_FOLDER = f"{LOG_FOLDER}/upkeep"
_VERSION = 2
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
    id
        Of the record, given when it begins: its outcome has the same.
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
    id: str = ""
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
    expired_folders
        Folders of the dates that it has removed, such as ``date=2026-01-31``; late rows may be in them again.
    """

    files: list[str]
    expired: Mapping[tuple[str, int], int]
    expired_folders: frozenset[str]


class _Numbers(NamedTuple):
    """Of the steps that have begun, unless they were cleared, and of those that have an outcome."""

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
        self._known: dict[int, Step] = {}
        """Outcomes never change."""

    # -- for whoever works on the tables -------------------------------------------------------------------------

    def tidy(self) -> None:
        """Remove what others have left behind: staged files, and compacted ones that will never count."""
        self._store.remove_folder(STAGING)
        numbers = self._numbers()
        late = numbers.begun - {step.number for step in self._begun(numbers)}
        self._store.remove(map(_name, late))
        counting = self.counting()
        for table in DATED_TABLES:
            self._store.remove(
                [
                    name
                    for name in self._store.names(table)
                    if step_of(name) in numbers.done and name not in counting
                ]
            )

    def next_number(self) -> int:
        """Number of the first step of a plan, which must be made after this call.

        Raises
        ------
        StateError
            A step is not at its end: its files are not what they seem.
        """
        numbers = self._numbers()
        if begun := self._begun(numbers):
            raise self._overtaken(begun[0].number)
        return max(numbers.begun | numbers.done, default=0) + 1

    def begin(self, step: Step) -> Step:
        """Make a step durable, before anything of it is done; returns it with its id.

        Raises
        ------
        StateError
            Somebody else has begun one since this was planned.
        """
        step = msgspec.structs.replace(step, id=uuid.uuid4().hex)
        # In this order: a record is removed only after its outcome has come.
        if not self._create(_name(step.number), step) or self.outcome(step.number) is not None:
            raise self._overtaken(step.number)
        fault_point("upkeep.planned")
        return step

    def outcome(self, number: int) -> Step | None:
        """What counts of a step, with the names of compacted files alone; None while it is open."""
        if number not in self._known:
            found = self._read(_name(number, done=True))
            if found is None:
                return None
            self._known[number] = found
        return self._known[number]

    def decide(self, step: Step, merged: Collection[str] = ()) -> Step:
        """Give an open step its outcome: the outputs that count. Who says so first is right; returns what holds."""
        kept = (merge for merge in step.merges if merge.output in merged)
        outcome = msgspec.structs.replace(
            step,
            merges=tuple(Merge(each.output, _compacted(each.inputs), each.rows) for each in kept),
            expired=_compacted(step.expired),
        )
        self._create(_name(step.number, done=True), outcome)
        fault_point("upkeep.decided")
        return self._outcomes([step.number])[step.number]

    def clear(self, step: Step, outcome: Step) -> None:
        """Remove the files of a step that do not count any more, and its record."""
        made = {merge.output for merge in outcome.merges}
        idle = step.names(merge.output for merge in step.merges if merge.output not in made)
        self._store.remove([*_gone(step, outcome), *idle])
        fault_point("upkeep.done")
        self._store.remove([_name(step.number)])

    def begun_steps(self) -> list[Step]:
        """The steps that are not at their end, oldest first: open ones, and those of which files are to be removed.

        Raises
        ------
        StateError
            One can not be read.
        """
        return self._begun(self._numbers())

    # -- for readers ---------------------------------------------------------------------------------------------

    def counting(self) -> set[str]:
        """Names of the compacted files that count, of all tables."""
        return _counting(self._outcomes(self._numbers().done).values())

    def view(self, table: str) -> View:
        """A table as of one moment. A file of it may be gone when it is opened: then ask again.

        Raises
        ------
        StateError
            A step can not be read, or steps followed each other faster than we could look.
        """
        for _ in range(_ATTEMPTS):
            before = self._numbers()
            outcomes = self._outcomes(before.done)
            begun = self._begun(before)
            gone = {name for step in begun for name in _gone(step, outcomes.get(step.number))}
            counting = _counting(outcomes.values())
            files = [
                name
                for name in self._store.names(table)
                if name.endswith(".parquet")
                and name not in gone
                and (step_of(name) is None or name in counting)
            ]
            if before == self._numbers():
                known = {step.number: step for step in begun} | outcomes
                expiries = [step for step in known.values() if step.table == table and step.expired_rows]
                return View(files, _rows_by_source(expiries), frozenset(step.folder for step in expiries))
        raise StateError(
            f"the files of {self._store}/{table} change all the while (compact, expire): try again later"
        )

    # -- records -------------------------------------------------------------------------------------------------

    def _numbers(self) -> _Numbers:
        names = (_NAME.fullmatch(name) for name in self._store.names(_FOLDER))
        written = [match for match in names if match]
        return _Numbers(
            frozenset(int(match[1]) for match in written if not match[2]),
            frozenset(int(match[1]) for match in written if match[2]),
        )

    def _begun(self, numbers: _Numbers) -> list[Step]:
        """The steps of the records that stand, but for those of somebody who came too late to begin."""
        outcomes = self._outcomes(numbers.begun & numbers.done)
        steps = (self._read(_name(number)) for number in sorted(numbers.begun))
        return [step for step in steps if step is not None and outcomes.get(step.number, step).id == step.id]

    def _outcomes(self, numbers: Iterable[int]) -> dict[int, Step]:
        """Outcomes that are known to be there."""
        found = dict(zip(numbers := sorted(numbers), side_by_side(self.outcome, numbers), strict=True))
        for number, outcome in found.items():
            if outcome is None:
                raise StateError(f"{self._store}/{_name(number, done=True)} was there and is gone")
        return {number: outcome for number, outcome in found.items() if outcome is not None}

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

    def _create(self, name: str, step: Step) -> bool:
        staged = f"{STAGING}/{uuid.uuid4().hex}.json"
        return self._store.create(name, msgspec.json.encode(step), by_way_of=staged)

    def _overtaken(self, number: int) -> StateError:
        return StateError(
            f"another compact or expire is at work on {self._store}, at step {number}: this one has stopped"
        )


def _name(number: int, *, done: bool = False) -> str:
    return f"{_FOLDER}/{number:08d}{'.done' if done else ''}.json"


def _compacted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(filter(is_compacted, names))


def _gone(step: Step, outcome: Step | None) -> list[str]:
    """Names in the store of the files of a step that count no more; of one without an outcome, what expires."""
    made = {merge.output for merge in outcome.merges} if outcome else set()
    replaced = (name for merge in step.merges if merge.output in made for name in merge.inputs)
    return step.names([*step.expired, *replaced])


def _counting(outcomes: Collection[Step]) -> set[str]:
    made = {name for step in outcomes for name in step.names(merge.output for merge in step.merges)}
    return made - {name for step in outcomes for name in _gone(step, step)}


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

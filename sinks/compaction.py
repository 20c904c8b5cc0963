"""Compaction: the many small files of a closed date become few.

One date of one table is a step of the journal. In this order, so that no row is ever missing:

1. the step, with all names, is durable in the journal;
2. the rows of each group of files are written below ``_staging/`` as one, counted, and published: a reader who globs
   sees them twice from here on;
3. the outcome is durable in the journal: from here on the new files count, the old ones no more;
4. the files that they replace are removed: from here on everybody sees each row once;
5. the step is at its end.

Whoever dies on the way is followed by the next run, which first ends what was begun; why two at once harm nothing is
said in :mod:`sinks.upkeep_journal`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import StateError
from sinks.column_options import column_options
from sinks.faults import fault_point
from sinks.merge_plan import FileFacts, compacted_name, merges
from sinks.store import File, Store
from sinks.table_files import UNREADABLE, DateFolder, ended_folders, facts_of
from sinks.upkeep_journal import STAGING, Merge, Plan, Step, UpkeepJournal

_GROUP_ROWS = 122_880
"""Rows of a row group: what DuckDB gives to a thread; some 20 MB in memory."""
_READ_ROWS = 16_384
_LEVEL = 3

Advance = Callable[[int], None]
"""Is told of rows that are done."""


def plan_compaction(store: Store, *, settle_ms: int, now_ms: int, most_bytes: int | None = None) -> Plan:
    """What there is to merge; changes nothing. Reads the end of every file of the closed dates, about 0.3 ms each.

    Parameters
    ----------
    store
        Where the tables are.
    settle_ms
        How long before the newest date in the tables, and before now, a date must have ended.
    now_ms
        The wall clock, epoch ms.
    most_bytes
        Largest size of a file, about; None for what the store takes well.
    """
    steps: list[Step] = []
    problems: list[str] = []
    number = UpkeepJournal(store).next_number()
    for found in ended_folders(store, span_ms=settle_ms, now_ms=now_ms):
        if len(found.files) < 2:
            continue
        facts, unreadable = facts_of(store, found)
        problems += unreadable
        if groups := merges(facts, most_bytes=most_bytes or store.largest_bytes):
            steps.append(_step(number + len(steps), found, groups))
    return Plan(tuple(steps), tuple(problems))


def compact(store: Store, step: Step, advance: Advance) -> list[str]:
    """Do a step that is in the journal, from wherever somebody left it.

    Returns
    -------
    A sentence for each group of files that can not be merged; they stay as they are.
    """
    journal = UpkeepJournal(store)
    problems: dict[str, str] = {}
    outcome = journal.outcome(step.number)
    if outcome is None:
        for number, merge in enumerate(step.merges):
            try:
                if merge.output not in store.sizes(f"{step.table}/{step.folder}"):
                    _merge(store, step, number, advance)
            except StateError as error:
                problems[merge.output] = str(error)
            else:
                fault_point("compact.published")
        outcome = journal.decide(step, [each.output for each in step.merges if each.output not in problems])
    journal.clear(step, outcome)
    made = {merge.output for merge in outcome.merges}  # perhaps by somebody who took over from us
    return [problem for output, problem in problems.items() if output not in made]


def _step(number: int, found: DateFolder, groups: Sequence[Sequence[FileFacts]]) -> Step:
    parts = [
        Merge(compacted_name(number, i), tuple(file.name for file in group), sum(file.rows for file in group))
        for i, group in enumerate(groups)
    ]
    before, rows = sum(len(part.inputs) for part in parts), sum(part.rows for part in parts)
    return Step(number, found.table, found.folder, before, len(parts), rows, merges=tuple(parts))


def _merge(store: Store, step: Step, number: int, advance: Advance) -> None:
    """Write the rows of some files as one, and publish it.

    Raises
    ------
    StateError
        A file can not be read or written, or has other rows than planned.
    """
    merge, folder = step.merges[number], f"{STAGING}/{step.number:08d}-{number}-{uuid.uuid4().hex}"
    inputs, (output,) = step.names(merge.inputs), step.names([merge.output])
    staged, place = f"{folder}/0.staged", f"{store}/{step.table}/{step.folder}"

    def fill(file: File) -> None:
        _copy_rows(store, inputs, file, advance)

    try:
        store.write([(staged, fill)])
        written = _rows_in(store, staged)
        if written == merge.rows and UpkeepJournal(store).outcome(step.number) is None:
            fault_point("compact.staged")
            store.publish(folder, [(staged, output)])
            written = _rows_in(
                store, output
            )  # what was staged may have been removed by somebody who took over
    except UNREADABLE as error:
        store.remove_folder(folder)  # on a full disk it would be in the way of others
        raise StateError(f"{place} can not be compacted, its files stay as they are: {error}") from error
    if written != merge.rows:
        raise StateError(
            f"{place} can not be compacted: its files had {merge.rows} rows and have {written} now"
        )


def _rows_in(store: Store, name: str) -> int:
    with store.open(name) as file, pq.ParquetFile(file) as parquet:
        rows: int = parquet.metadata.num_rows
    return rows


def _copy_rows(store: Store, inputs: Sequence[str], output: File, advance: Advance) -> None:
    with store.open(inputs[0]) as file, pq.ParquetFile(file) as first:
        schema = first.schema_arrow.remove_metadata()
    options = column_options(schema.names)
    with pq.ParquetWriter(output, schema, compression="zstd", compression_level=_LEVEL, **options) as writer:
        for table in _row_groups(store, inputs):
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            advance(table.num_rows)


def _row_groups(store: Store, inputs: Sequence[str]) -> Iterator[Any]:
    """The rows of files in their order, as tables of about a row group each."""
    gathered: list[Any] = []
    rows = 0
    for name in inputs:
        with store.open(name) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=_READ_ROWS):
                gathered.append(batch)
                rows += batch.num_rows
                if rows >= _GROUP_ROWS:
                    yield pa.Table.from_batches(gathered).replace_schema_metadata(None)
                    gathered, rows = [], 0
    if gathered:
        yield pa.Table.from_batches(gathered).replace_schema_metadata(None)

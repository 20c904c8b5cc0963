"""Which dates are closed, and which of their files become one: a function of names, sizes and schemas alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import NamedTuple

from schemas.durations import UNITS_MS

DATED_TABLES = ("verdicts", "late", "alerts", "deliveries")
"""The tables that have a folder for each date."""

_DAY_MS = UNITS_MS["d"]
_EPOCH = date(1970, 1, 1)
_FOLDER = re.compile(r"date=(\d{4}-\d{2}-\d{2})", re.ASCII)
_COMMITTED = re.compile(r"p(\d{1,9})-(\d{20})(?:-(\d{1,9}))?\.parquet", re.ASCII)
_COMPACTED = re.compile(r"c(\d{8})-(\d{1,9})\.parquet", re.ASCII)


class FileFacts(NamedTuple):
    """What has to be known of a file to plan with it.

    Parameters
    ----------
    name
        In its folder.
    size_bytes, rows
        Of the file.
    schema
        Its Arrow schema, serialized.
    """

    name: str
    size_bytes: int
    rows: int
    schema: bytes


def start_of_date(folder: str) -> int | None:
    """Epoch ms at which the date of a folder ``date=YYYY-MM-DD`` begins; None where the name is another.

    Examples
    --------
    >>> start_of_date("date=1970-01-02"), start_of_date("date=1970-02-30"), start_of_date("hour=3")
    (86400000, None, None)
    """
    written = _FOLDER.fullmatch(folder)
    try:
        return (date.fromisoformat(written[1]) - _EPOCH).days * _DAY_MS if written else None
    except ValueError:
        return None


def horizon(folders: Iterable[str], now_ms: int) -> int:
    """The time that closes dates, epoch ms: where the newest date of all tables begins, or now if that is earlier.

    Event time, so that a recording of years ago is treated as it was lived; no clock that runs ahead and no event
    from the future closes a date too early.
    """
    starts = [start for folder in folders if (start := start_of_date(folder)) is not None]
    return min([max(starts, default=now_ms), now_ms])


def ended_before(folders: Iterable[str], horizon_ms: int, span_ms: int) -> list[str]:
    """The folders whose date ended at least ``span_ms`` before the horizon, oldest first.

    Examples
    --------
    >>> four = [f"date=2024-02-{day}" for day in (26, 27, 28, 29)]
    >>> ended_before(four, horizon(four, now_ms=2**50), span_ms=86_400_000)
    ['date=2024-02-26', 'date=2024-02-27']
    """
    return sorted(
        folder
        for folder in folders
        if (start := start_of_date(folder)) is not None and start + _DAY_MS + span_ms <= horizon_ms
    )


def is_table_file(name: str) -> bool:
    """Whether a commit or a compaction gives files such names."""
    return bool(_COMMITTED.fullmatch(name) or _COMPACTED.fullmatch(name))


def is_compacted(name: str) -> bool:
    """Whether a compaction made this file."""
    return _COMPACTED.fullmatch(name) is not None


def commit_of(name: str) -> tuple[int, int] | None:
    """Judge partition and first turn of the commit that a file came with; None where it is none of one commit.

    Examples
    --------
    >>> commit_of("verdicts/date=2026-01-31/p3-00000000000000000012-0.parquet"), commit_of("c00000012-0.parquet")
    ((3, 12), None)
    """
    written = _COMMITTED.fullmatch(name.rpartition("/")[2])
    return (int(written[1]), int(written[2])) if written else None


def step_of(name: str) -> int | None:
    """Number of the step of compaction that made a file, given with or without its folder; None where none did.

    Examples
    --------
    >>> step_of("verdicts/date=2026-01-31/c00000012-0.parquet"), step_of("p0-00000000000000000000-0.parquet")
    (12, None)
    """
    written = _COMPACTED.fullmatch(name.rpartition("/")[2])
    return int(written[1]) if written else None


def compacted_name(step: int, number: int) -> str:
    """Name of output ``number`` of a compaction; no two steps have one number, so no name comes twice."""
    return f"c{step:08d}-{number}.parquet"


def reading_order(name: str) -> tuple[int, ...]:
    """Key by which files are merged: what was merged before, then by partition, first turn and config's number."""
    if written := _COMPACTED.fullmatch(name):
        return (0, *map(int, written.groups()))
    written = _COMMITTED.fullmatch(name)
    if written is None:
        raise ValueError(f"{name!r} is no file of a table")
    return (1, *(int(number or 0) for number in written.groups()))


def merges(files: Iterable[FileFacts], *, most_bytes: int) -> list[tuple[FileFacts, ...]]:
    """The groups of files that become one file each; files in no group stay as they are.

    Files of one schema, in reading order, as many as have ``most_bytes`` together. What is over half of that already
    stays; and what was merged before is merged again only when what came since is as large. So late rows cost little,
    and a date has one file for a schema, or a few of which each is larger than all smaller ones together.
    """
    by_schema: dict[bytes, list[FileFacts]] = {}
    for file in files:
        by_schema.setdefault(file.schema, []).append(file)
    return [
        group
        for same in by_schema.values()
        for group in _packed(_small(same, most_bytes), most_bytes)
        if len(group) > 1
    ]


def _small(files: Sequence[FileFacts], most_bytes: int) -> list[FileFacts]:
    left = sorted(
        (file for file in files if file.size_bytes <= most_bytes // 2), key=lambda file: file.size_bytes
    )
    total = sum(file.size_bytes for file in left)
    while left and is_compacted(left[-1].name) and 2 * left[-1].size_bytes > total:
        total -= left.pop().size_bytes
    return sorted(left, key=lambda file: reading_order(file.name))


def _packed(files: Iterable[FileFacts], most_bytes: int) -> Iterator[tuple[FileFacts, ...]]:
    group: list[FileFacts] = []
    group_bytes = 0
    for file in files:
        if group and group_bytes + file.size_bytes > most_bytes:
            yield tuple(group)
            group, group_bytes = [], 0
        group.append(file)
        group_bytes += file.size_bytes
    if group:
        yield tuple(group)

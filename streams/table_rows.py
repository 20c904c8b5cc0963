"""Rows of a table as of one moment, each once, while workers write and ``compact`` and ``expire`` run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from schemas.errors import StateError
from sinks.store import Store, side_by_side
from sinks.upkeep_journal import UpkeepJournal, View

_ATTEMPTS = 20
_PAUSE_S = 0.2

Moving: TypeAlias = Sequence[tuple[str, str]]
"""Of files that may wait to be published: where they wait, where they will stand."""
Result = TypeVar("Result")


def read_files(
    store: Store, table: str, moving: Moving, read: Callable[[str], Result]
) -> tuple[list[Result], View]:
    """Read each file of a table, all of one moment; returns what was read, and that moment.

    Parameters
    ----------
    store, table
        Which.
    moving
        Files of the newest commits.
    read
        Reads the file of a name; files are read side by side.

    Raises
    ------
    StateError
        Files are merged or removed again and again while they are read.
    """
    journal = UpkeepJournal(store)
    for attempt in range(_ATTEMPTS):
        view = _files_of(store, journal, table, moving)
        try:
            return side_by_side(read, view.files), view
        except FileNotFoundError as error:  # published, compacted or expired while we looked
            if attempt + 1 == _ATTEMPTS:
                raise StateError(
                    f"the files of {store}/{table} change all the while (compact, expire): try again later"
                ) from error
            time.sleep(_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def _files_of(store: Store, journal: UpkeepJournal, table: str, moving: Moving) -> View:
    """A table with the files of the newest commit where they wait if they are not published yet."""
    staged = {
        name for folder in {staged.rpartition("/")[0] for staged, _ in moving} for name in store.names(folder)
    }
    # In this order: what is published meanwhile stands in both, not in none.
    view = journal.view(table)
    waiting = [
        name
        for name, target in moving
        if name in staged and target.startswith(f"{table}/") and target not in view.files
    ]
    return view._replace(files=[*view.files, *waiting])

"""Where tables are kept, and state: the few things that are asked of a folder or a bucket.

Everything has a *name*: its path below the root, with ``/`` between the parts, such as
``verdicts/date=2026-01-31/p0-00000000000000000000-0.parquet``. What begins with ``_`` is no table: ``_log/`` says what
is in them, in ``_staging/`` files wait until they are. Nobody but a store knows how it keeps files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

LOG_FOLDER = "_log"
STAGING_FOLDER = "_staging"

_THREADS = 8
"""Most of the work on many small files is waiting for the disk."""

Item = TypeVar("Item")
Result = TypeVar("Result")

File: TypeAlias = Any
"""A pyarrow.NativeFile; pyarrow has no types."""
Fill: TypeAlias = Callable[[File], None]
"""Writes a file's content into it, from the beginning to the end; may be called again when it failed."""


class Store(Protocol):
    """Files below one root.

    Promises, for any number of processes at the same root:

    - What a call wrote is durable when it returns, its name included.
    - A file stands below a table's folder whole or not at all: names of tables come into being by :meth:`publish` and
      :meth:`replace` alone, those of the log by :meth:`create`, those of the state by :meth:`put` and :meth:`create`.
      What is in ``_staging/`` may be half a file.
    - Of many who :meth:`create` one name, one gets True.
    - Every call may be repeated after an error, whatever the first one did.

    Every call blocks, so an event loop makes it in a thread, and may raise an OSError (a full disk, a store that does
    not answer): wait, and make it again. Threads may share a store. ``str(store)`` names the root, without secrets.
    """

    @property
    def largest_bytes(self) -> int:
        """Up to about which size a file is written here without harm to memory."""
        ...

    def check(self, *, writing: bool) -> None:
        """Return if the store answers, lets us in, and keeps what is asked of it; for the first contact.

        Parameters
        ----------
        writing
            Whether it must let us write, not only read.

        Raises
        ------
        RefusedError
            It does not; waiting is no use.
        """
        ...

    def read(self, name: str, *, durable: bool = False) -> bytes | None:
        """Read a small file whole; None when there is none.

        ``durable``: wait until its name is. Another process may have created it and have died before that.
        """
        ...

    def open(self, name: str) -> File:
        """A file for reading at any place, such as by ``pyarrow.parquet``; close it.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        ...

    def fetch(self, name: str) -> BinaryIO:
        """A file of this machine, open for reading, with all that stands at a name; for large ones, and for mapping.

        The file itself on a disk; else a copy in the folder for temporary files, which goes when it is closed and
        no longer mapped, however the process ends.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """Names of all files in a folder and in those in it, sorted; none where there is no such folder.

        Costs about a microsecond a file on a disk, a request for every 1,000 files in a bucket.
        """
        ...

    def folders(self, folder: str) -> list[str]:
        """Names of the folders that stand in a folder, sorted, like ``verdicts/date=2026-01-31``."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Sizes in bytes of the files in a folder itself, by their names in it, sorted; links are left out.

        Costs as :meth:`names`.
        """
        ...

    def create(self, name: str, content: bytes, *, by_way_of: str) -> bool:
        """Create a small file whole, if there is none of that name; of many who try, one gets True.

        Parameters
        ----------
        name
            The name to take.
        content
            What the file holds from its first moment on; no other writer has the same, or they are as one.
        by_way_of
            A name of the caller's own in ``_staging/``, where the content may wait until then.

        Raises
        ------
        UncertainError
            Nobody knows whether it was created, or will be yet: the caller keeps whatever the content refers to.
        """
        ...

    def put(self, name: str, parts: Iterable[bytes]) -> None:
        """Put a file in the place of whatever stands there; the last of many writers wins.

        Parameters
        ----------
        name
            Of the file; a reader sees the whole old one or the whole new one.
        parts
            The new one's content. Only a few of them are in memory at a time.
        """
        ...

    def write(self, files: Sequence[tuple[str, Fill]]) -> None:
        """Write files side by side: names in ``_staging/`` that nobody else uses, and what writes each content."""
        ...

    def publish(self, folder: str, moves: Sequence[tuple[str, str]]) -> None:
        """Move files (from, to) out of a folder in ``_staging/``, then remove it; nothing happens when it is gone.

        Several may do this at the same time, or after one that died in it: each file stands at its place when one of
        them returns.
        """
        ...

    def replace(
        self, name: str, fill: Fill, *, version: int, version_of: Callable[[File], int | None]
    ) -> bool:
        """Put a file in the place of the one of that name, or of none, unless that one is of a later version.

        Parameters
        ----------
        name
            Of the file; a reader sees the whole old one or the whole new one.
        fill
            Writes the new one.
        version
            Of the new one.
        version_of
            Reads it from a file that stands there; None when it says nothing of that.

        Returns
        -------
        False when a later version stands there; it stays.
        """
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already aside."""
        ...

    def remove_folder(self, folder: str) -> None:
        """Remove a folder in ``_staging/`` with all that is in it, as far as that goes: what is left does no harm."""
        ...

    def alone(self, name: str) -> AbstractContextManager[bool]:
        """Whether the caller is the only one with this name, as far as the store can tell.

        On a disk as long as the process lives. In a bucket one that is frozen for long is taken for dead, and does not
        know of it: there nothing may rest on being alone but what it costs.
        """
        ...


class UncertainError(OSError):
    """The store did not say what became of a request; it may even take it up later."""


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the work for each item in some threads; results in their order. The first failure is raised when all ended."""
    todo = list(items)
    if len(todo) < 2:
        return [work(item) for item in todo]
    with ThreadPoolExecutor(min(_THREADS, len(todo))) as pool:
        return list(pool.map(work, todo))

"""Tables and state in a folder of a local disk, or of a shared one that has hard links, atomic renames and locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from schemas.errors import RefusedError
from sinks.durable_files import create_if_absent, make_folder, sync
from sinks.faults import fault_point
from sinks.store import LOG_FOLDER, STAGING_FOLDER, File, Fill, side_by_side

log = logging.getLogger(__name__)


class LocalStore:
    """A :class:`sinks.store.Store` in a folder.

    Parameters
    ----------
    root
        The folder; it is made with the first file.
    """

    largest_bytes = 512 << 20
    """See :attr:`sinks.store.Store.largest_bytes`; files are written as they come."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        """The folder."""
        return str(self._root)

    def check(self, *, writing: bool) -> None:
        """See :meth:`sinks.store.Store.check`; makes the folder."""
        if not writing:
            return
        try:
            make_folder(self._root)
            kept_from = None if os.access(self._root, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            kept_from = error.strerror
        if kept_from is not None:
            raise RefusedError(f"{self._root} can not be written to: {kept_from}")

    def read(self, name: str, *, durable: bool = False) -> bytes | None:
        """See :meth:`sinks.store.Store.read`."""
        path = self._root / name
        try:
            if durable:
                sync(path.parent)
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def open(self, name: str) -> File:
        """See :meth:`sinks.store.Store.open`."""
        return pa.OSFile(str(self._root / name), "rb")

    def fetch(self, name: str) -> BinaryIO:
        """See :meth:`sinks.store.Store.fetch`; the file itself."""
        return (self._root / name).open("rb")

    def names(self, folder: str) -> list[str]:
        """See :meth:`sinks.store.Store.names`."""
        top = str(self._root / folder)
        return sorted(
            f"{folder}{where[len(top) :]}/{file}"
            for where, _, files in os.walk(top, onerror=_raise_unless_gone)
            for file in files
        )

    def folders(self, folder: str) -> list[str]:
        """See :meth:`sinks.store.Store.folders`."""
        try:
            with os.scandir(self._root / folder) as entries:
                return sorted(f"{folder}/{entry.name}" for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        """See :meth:`sinks.store.Store.sizes`; a folder that is a link has none."""
        path = self._root / folder
        if path.is_symlink() or path.parent.is_symlink() or not path.is_dir():
            return {}
        with os.scandir(path) as entries:
            return {
                entry.name: entry.stat(follow_symlinks=False).st_size
                for entry in sorted(entries, key=lambda entry: entry.name)
                if entry.is_file(follow_symlinks=False)
            }

    def create(self, name: str, content: bytes, *, by_way_of: str) -> bool:
        """See :meth:`sinks.store.Store.create`."""
        path, staged = self._root / name, self._root / by_way_of
        make_folder(path.parent)
        make_folder(staged.parent)
        return create_if_absent(path, content, by_way_of=staged)

    def put(self, name: str, parts: Iterable[bytes]) -> None:
        """See :meth:`sinks.store.Store.put`.

        What other writers of the same folder have staged is removed: they are dead, or may call again.
        """
        path = self._root / name
        staging = self._root / STAGING_FOLDER / path.parent.relative_to(self._root)
        make_folder(path.parent)
        make_folder(staging)
        staged = staging / f"{path.name}.{uuid.uuid4().hex}.staged"
        try:
            with staged.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            fault_point("state.staged")
            staged.replace(path)
        except OSError:
            staged.unlink(missing_ok=True)  # on a full disk it would be in its own way
            raise
        sync(path.parent)
        for left in staging.glob("*.staged"):
            left.unlink(missing_ok=True)

    def write(self, files: Sequence[tuple[str, Fill]]) -> None:
        """See :meth:`sinks.store.Store.write`."""
        folders = {(self._root / name).parent for name, _ in files}
        for folder in folders:
            make_folder(folder)

        def write(file: tuple[str, Fill]) -> None:
            _write(self._root / file[0], file[1], fault="parquet.staging")

        side_by_side(write, files)
        for folder in folders:
            sync(folder)

    def publish(self, folder: str, moves: Sequence[tuple[str, str]]) -> None:
        """See :meth:`sinks.store.Store.publish`."""
        staged = self._root / folder
        if not staged.is_dir():
            return
        folders = {(self._root / target).parent for _, target in moves}
        for target_folder in folders:
            make_folder(target_folder)
        for source, target in moves:
            _rename_once(self._root / source, self._root / target)
            fault_point("parquet.renaming")
        side_by_side(sync, folders)
        fault_point("parquet.renamed")
        self.remove_folder(folder)

    def replace(
        self, name: str, fill: Fill, *, version: int, version_of: Callable[[File], int | None]
    ) -> bool:
        """See :meth:`sinks.store.Store.replace`."""
        path = self._root / name
        folder = path.parent.relative_to(self._root)
        staging = self._root / STAGING_FOLDER / folder
        make_folder(path.parent)
        make_folder(staging)
        staged = staging / f"{path.stem}.{version:020d}-{uuid.uuid4().hex}.staged"
        try:
            _write(staged, fill)
            fault_point("metrics.staged")
            with self._locked(folder):
                if (self._version(name, version_of) or 0) > version:
                    return False
                staged.rename(path)
                fault_point("metrics.renamed")
                sync(path.parent)
                _sweep(staging, path.stem, version)
            return True
        except FileNotFoundError:
            # Swept by someone who has replaced the file by one that is no older.
            if self._version(name, version_of) is None:
                raise
            return False
        finally:
            staged.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """See :meth:`sinks.store.Store.remove`."""
        folders: set[Path] = set()
        for name in names:
            path = self._root / name
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                folders.add(path.parent)
            fault_point("store.removing")
        for folder in folders:
            sync(folder)  # or it may be back after a power cut

    def remove_folder(self, folder: str) -> None:
        """See :meth:`sinks.store.Store.remove_folder`."""
        shutil.rmtree(self._root / folder, ignore_errors=True)

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """See :meth:`sinks.store.Store.alone`."""
        path = self._root / LOG_FOLDER / f"{name}.lock"
        make_folder(path.parent)
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _version(self, name: str, version_of: Callable[[File], int | None]) -> int | None:
        try:
            with self.open(name) as file:
                return version_of(file)
        except FileNotFoundError:
            return None

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Keep other processes out; the lock goes with the process that holds it, however that ends."""
        path = self._root / LOG_FOLDER / folder.with_name(f"{folder.name}.lock")
        make_folder(path.parent)
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _write(path: Path, fill: Fill, *, fault: str = "") -> None:
    """Write a file, durably up to its name."""
    with pa.OSFile(str(path), "wb") as file:
        fill(file)
    fault_point(fault)
    sync(path)


def _rename_once(staged: Path, target: Path) -> None:
    """Move a committed file to its place; another process may be doing the same."""
    with contextlib.suppress(FileNotFoundError):
        staged.rename(target)
    if not target.exists():
        log.error("a committed file is gone: neither staged nor at %s; its rows are lost", target)


def _sweep(staging: Path, stem: str, version: int) -> None:
    """Remove what writers of a file that died staged up to this version; a later one may still be on its way."""
    for path in staging.glob(f"{stem}.*.staged"):
        if int(path.name[len(stem) + 1 :][:20]) <= version:
            path.unlink(missing_ok=True)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error

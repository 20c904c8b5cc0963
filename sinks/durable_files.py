"""Files that are there after a power cut: what is synced, and in which order."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably; nothing happens when it is there."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file, durably up to its name; sync the folder for that."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def create_if_absent(path: Path, content: bytes, *, by_way_of: Path) -> bool:
    """Create a whole file in one step, if no file has that name; of many who try, one gets True.

    Parameters
    ----------
    path
        The name to take.
    content
        What the file holds from its first moment on.
    by_way_of
        A name of the caller's own on the same file system, for the time until then.
    """
    write_file(by_way_of, content)
    try:
        os.link(by_way_of, path)
    except FileExistsError:
        return False
    finally:
        by_way_of.unlink(missing_ok=True)
    sync(path.parent)
    return True

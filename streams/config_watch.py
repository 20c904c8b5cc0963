"""Watches the config folder of a running worker: another config is taken up while events flow.

The folder is looked at once a second, and read when it has changed and stood still for one look, so that a file that is
being written is not read half. SIGHUP makes it look at once. What is refused is told once, and the running config goes
on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from schemas.config import Config
from schemas.errors import ConfigError
from streams.config_change import needing_restart
from streams.config_files import ConfigFolder, read_config_folder
from streams.list_store import ListStore

log = logging.getLogger(__name__)

LOOK_S = 1.0

_Look = tuple[tuple[str, int, int, int], ...]


class ConfigWatch:
    """The config folder of one worker.

    Parameters
    ----------
    folder
        The folder.
    running
        What the worker was started with.
    lists
        Keeps the contents of new lists before anybody judges by them.

    Attributes
    ----------
    refused
        Why the folder's config is not taken up; empty while all is well.
    """

    def __init__(self, folder: Path, running: Config, lists: ListStore) -> None:
        self._folder, self._running, self._lists = folder, running, lists
        self._look_now = asyncio.Event()
        self.refused = ""

    def look_now(self) -> None:
        """Read the folder without waiting for a change."""
        self._look_now.set()

    async def changes(self) -> AsyncIterator[Config]:
        """Every other good config that comes to stand in the folder, for ever."""
        before: _Look | None = None
        read: _Look | None = None
        while True:
            asked = await self._pause()
            look = await asyncio.to_thread(self._look)
            if asked or (look == before and look != read):
                read = look
                if (config := await asyncio.to_thread(self._read)) is not None:
                    yield config
            before = look

    async def _pause(self) -> bool:
        """Wait for the next look; whether somebody asked for it."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._look_now.wait()
        except TimeoutError:
            return False
        self._look_now.clear()
        return True

    def _look(self) -> _Look:
        """What tells that a file changed, without reading it."""
        found = []
        for path in _files(self._folder):
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(sorted(found))

    def _read(self) -> Config | None:
        """The config of the folder, unless it is the running one or refused."""
        try:
            read = read_config_folder(self._folder)
            self._check(read)
        except ConfigError as error:
            self.refused = str(error)
            log.error("the changed config is refused and config %s goes on:\n%s", self._running.hash, error)
            return None
        if self.refused:
            self.refused = ""
            log.info("the config folder is good again")
        if read.config.hash == self._running.hash:
            return None
        try:
            self._lists.keep_all(read.lists)
        except OSError as error:
            self.refused = f"the lists can not be kept in the state folder: {error.strerror}"
            log.error("%s; config %s goes on", self.refused, self._running.hash)
            return None
        for notice in read.notices:
            log.info("%s", notice)
        log.info("config %s follows %s", read.config.hash, self._running.hash)
        self._running = read.config
        return read.config

    def _check(self, read: ConfigFolder) -> None:
        """Refuse what is good by itself, but not after the running config."""
        if fixed := needing_restart(self._running, read.config):
            raise ConfigError(
                file="",
                path=f"$.{fixed[0]}",
                found=f"another value of {', '.join(fixed)}",
                expected="the same as long as a worker runs: stop all workers and start them again to change it",
            )
        for name, source in read.config.lists.items():
            before = self._running.lists.get(name)
            if before is not None and before.digest and before.file == source.file and not source.digest:
                raise ConfigError(
                    file="",
                    path=f"$.lists.{name}.file",
                    found=f"{source.file}, which is gone",
                    expected="a file, or the list taken out of the config: else nothing would be on it",
                )


def _files(folder: Path) -> Iterator[Path]:
    """The files of the folder and of the folders in it; hidden ones are none of ours."""
    for path in _entries(folder):
        yield path
        if path.is_dir():
            yield from _entries(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []

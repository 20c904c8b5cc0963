"""What every seat of the engine shares: settings, keys, the way out to Kafka, the configs by hash."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from detectors.plan import Plan, make_plan
from schemas.config import Config, config_from_json
from schemas.errors import StateError
from schemas.keys import KeyRing
from streams.checkpoints import sync_folder
from streams.fatal import exit_code_of, stop_process
from streams.list_books import ListBooks
from streams.meters import Meters
from streams.settings import Settings

log = logging.getLogger(__name__)


class Send(Protocol):
    """Publishes one record; the inner awaitable ends with its offset once all replicas have it."""

    async def __call__(
        self, topic: str, partition: int, value: bytes, key: bytes | None = None
    ) -> Awaitable[int]:
        """Publish to the topic of a role."""
        ...


class ConfigStore:
    """Configs by hash beside the state: a turn that was recorded under an old config is taken again under it."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "configs"
        self._known: dict[bytes, Config] = {}
        self._plans: dict[bytes, Plan] = {}

    def keep(self, config: Config) -> None:
        """Write a config, durably, unless it is there."""
        path = self._folder / f"{config.hash}.json"
        self._known[bytes.fromhex(config.hash)] = config
        if path.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(f".{os.getpid()}.staged")
        with staged.open("wb") as file:
            file.write(config.to_json())
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        sync_folder(self._folder)

    def config(self, digest: bytes) -> Config:
        """The config of a hash (16 bytes).

        Raises
        ------
        StateError
            Nobody kept it here.
        """
        if digest not in self._known:
            path = self._folder / f"{digest.hex()}.json"
            if not path.exists():
                raise StateError(
                    f"a turn was judged by config {digest.hex()}, which is not in {self._folder.name}/ of the state "
                    "folder: all workers need the same --state"
                )
            self._known[digest] = config_from_json(path.read_bytes())
        return self._known[digest]

    def plan(self, digest: bytes) -> Plan:
        """The plan of a config's features."""
        if digest not in self._plans:
            self._plans[digest] = make_plan(self.config(digest))
        return self._plans[digest]


@dataclass
class Context:
    """Shared by all seats of one process."""

    settings: Settings
    config: Config
    ring: KeyRing
    partitions: int
    configs: ConfigStore
    lists: ListBooks
    send: Send
    redis: Any
    meters: Meters = field(default_factory=Meters)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self, work: Any, name: str) -> asyncio.Task[None]:
        """Run a background task; what it does not handle stops the process."""
        task: asyncio.Task[None] = asyncio.create_task(self._guarded(work, name), name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _guarded(self, work: Any, name: str) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was: a task that is gone would leave its work undone
            stop_process(f"{name} failed, the process stops: {error}", exit_code=exit_code_of(error))

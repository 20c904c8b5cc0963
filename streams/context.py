"""What every seat of the engine shares: settings, keys, the way out to Kafka, the configs by hash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.config import Config
from schemas.keys import KeyRing
from streams.config_store import ConfigStore
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

"""The demo's own installation: broker, Redis and worker, each a process of its own that dies with this one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs
from redis import Redis
from redis.exceptions import RedisError

from console.children import start_tied
from console.mock_kafka import PARTITIONS, SPEAKS_AS
from console.redis_program import find_redis_server
from schemas.config import Config
from schemas.errors import UnreachableError
from streams.installation import topic_names
from streams.rollup import changelog_name
from streams.settings import ENVIRONMENT_PREFIX, Settings

START_S = 60.0
"""For the broker and Redis, which need a second."""
WORKER_START_S = 240.0
"""It may have kernels to compile, on a machine that has other things to do."""
WORKER_STOP_S = 100.0
_LOOK_AGAIN_S = 0.05
_LOG_LINES = 5
_WORKER = "from commands.cli import main; main()"


@dataclass(frozen=True)
class Part:
    """A process of the installation."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def require_alive(self) -> None:
        """Say what happened if it has ended.

        Raises
        ------
        UnreachableError
            With the last lines of its log.
        """
        if (code := self.process.poll()) is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
            raise UnreachableError(
                "\n".join([f"the {self.name} ended by itself (exit code {code}):", *lines])
            )


class Services:
    """What the demo starts, and where it is.

    Parameters
    ----------
    folder
        Exists, and goes when the demo ends: state, socket, logs of broker and Redis.
    out
        Exists: the tables, the key that made the pseudonyms, the worker's log.
    config_folder, config
        What the worker judges by.
    """

    def __init__(self, folder: Path, out: Path, config_folder: Path, config: Config) -> None:
        self._folder, self._out, self._config_folder = folder, out, config_folder
        self._environment = _clean_environment(folder)
        self._parts: list[Part] = []
        self.settings = Settings(
            brokers="",
            kafka_version=SPEAKS_AS,
            redis=f"unix://{folder}/redis.sock",
            out=str(out),
            state=str(folder / "state"),
            key_file=str(out / "key"),
            partitions=PARTITIONS,
        ).with_topics_of(config)

    def start(self) -> None:
        """Start everything; returns when the worker owns all partitions.

        Raises
        ------
        UnreachableError
            A part did not start.
        """
        (self._out / "key").write_text(secrets.token_hex(32))
        brokers = self._start_broker()
        self.settings = structs.replace(self.settings, brokers=brokers)
        self._start_redis()
        self._start_worker()

    def require_alive(self) -> None:
        """As :meth:`Part.require_alive`, of all parts."""
        for part in self._parts:
            part.require_alive()

    def stop_worker(self) -> None:
        """Let the worker hand on what it holds, and wait for it.

        Raises
        ------
        UnreachableError
            It failed, or did not stop.
        """
        self.require_alive()
        worker = self._parts[-1]
        worker.process.terminate()
        try:
            code = worker.process.wait(WORKER_STOP_S)
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(f"the worker did not stop within {WORKER_STOP_S:.0f} s") from error
        if code != 0:
            raise UnreachableError(f"the worker stopped with exit code {code}; its log is {worker.log}")

    def _start_broker(self) -> str:
        address = self._folder / "broker.address"
        topics = topic_names(self.settings, changelog=changelog_name(self.settings.rollup_group))
        module = [sys.executable, "-P", "-m", "console.mock_kafka"]
        self._start("broker", [*module, str(address), *topics], self._folder)
        self._wait(address.exists, START_S)
        return address.read_text()

    def _start_redis(self) -> None:
        socket = self._folder / "redis.sock"
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._start("Redis", [str(find_redis_server()), *flags], self._folder)
        with Redis.from_url(self.settings.redis) as client:
            self._wait(lambda: _answers(client), START_S)

    def _start_worker(self) -> None:
        settings = self.settings
        options = {
            "config": str(self._config_folder),
            "brokers": settings.brokers,
            "kafka-version": SPEAKS_AS,
            "redis": settings.redis,
            "out": settings.out,
            "state": settings.state,
            "key-file": str(settings.key_file),
            "partitions": str(PARTITIONS),
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._start("worker", [sys.executable, "-P", "-c", _WORKER, "worker", *flags], self._out)
        judges = [f"{{{settings.namespace}}}:judge:{partition}" for partition in range(PARTITIONS)]
        with Redis.from_url(settings.redis) as client:
            self._wait(lambda: client.exists(*judges) == PARTITIONS, WORKER_START_S)

    def _start(self, name: str, command: list[str], log_folder: Path) -> None:
        log = log_folder / f"{name.lower()}.log"
        self._parts.append(Part(name, start_tied(command, log=log, environment=self._environment), log))

    def _wait(self, is_ready: Callable[[], bool], patience_s: float) -> None:
        deadline_s = time.monotonic() + patience_s
        while not is_ready():
            self.require_alive()
            if time.monotonic() > deadline_s:
                raise UnreachableError(f"the {self._parts[-1].name} was not ready within {patience_s:.0f} s")
            time.sleep(_LOOK_AGAIN_S)


def _clean_environment(folder: Path) -> dict[str, str]:
    """Ours without the settings of another installation; temporary files go where ours go."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    return {**ours, "TMPDIR": str(folder)}


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False

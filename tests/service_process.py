"""A server as a process of its own: started on a free port of loopback, stopped, killed, and started there again.

It keeps everything in the folder it is given and dies with the process that started it, also when that is killed.
What is a server here says how it is started and whether it answers: see :mod:`tests.services`.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
# Below the ephemeral ports of Linux (32768 and up): no outgoing connection takes a stopped service's port.
PORTS = range(20_000, 32_000)
BIND_ATTEMPTS = 5
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05


class ServiceError(Exception):
    """A service did not start or did not answer; the message ends with its last log lines."""


class PortTakenError(ServiceError):
    """Another process was faster to the chosen port."""


class Service(ABC):
    """A server process: start, stop, kill, and again, on one port and one folder.

    Parameters
    ----------
    folder
        Existing or not; data, configuration and log of this service go to a new folder inside it.
    """

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"{self.name}-{uuid.uuid4().hex[:8]}"
        self.folder.mkdir(parents=True)
        self.log_file = self.folder / "service.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServiceError(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and return when the server has answered; a later start keeps the first one's port.

        Raises
        ------
        ServiceError
            The server ended or did not answer within a minute.
        """
        if self._process is not None:
            raise ServiceError(f"{self.name} is running already")
        first_start = self.port == 0
        for attempt in range(1, BIND_ATTEMPTS + 1):
            if first_start:
                self._choose_ports()
            try:
                self._launch()
            except PortTakenError:
                if attempt == BIND_ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        """End with SIGTERM and wait; nothing happens when the server is down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End with SIGKILL and wait; nothing happens when the server is down."""
        self._end(signal.SIGKILL)

    @contextmanager
    def down(self, *, kill: bool = False) -> Iterator[None]:
        """Keep the server down for the length of a ``with`` block, then start it again."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _choose_ports(self) -> None:
        """Set ``self.port`` and whatever other port the server needs."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Write the configuration if there is one and return the command line."""

    @abstractmethod
    def _answers(self) -> bool:
        """Ask the server on ``self.port`` whether it is ready, and whether it is ours."""

    def _launch(self) -> None:
        command = self._command()
        log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal ends the test run, and that ends the server.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._guard = _end_with_this_process(self._process.pid)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._ended_within(POLL_S):
                self._end(signal.SIGKILL)
                raise self._start_failure(log_start)
            if time.monotonic() > deadline_s:
                self._end(signal.SIGKILL)
                raise ServiceError(f"{self.name} did not answer within a minute\n{self._log_tail(log_start)}")

    def _ended_within(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start_failure(self, log_start: int) -> ServiceError:
        tail = self._log_tail(log_start)
        kind = PortTakenError if "Address already in use" in tail else ServiceError
        return kind(f"{self.name} ended while starting\n{tail}")

    def _log_tail(self, log_start: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(log_start)
            text = log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-40:])

    def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._guard is None:
            return
        _end_process(self._guard, signal.SIGKILL)
        _end_process(self._process, number)
        self._process = self._guard = None


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens right now; the caller copes with a faster neighbour."""
    found: list[int] = []
    # Seeded by the system: test runs side by side, each with its own fixed seed, must not meet here.
    draw = random.SystemRandom()
    while len(found) < count:
        port = draw.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def _end_with_this_process(pid: int) -> subprocess.Popen[bytes]:
    """Start a guard that kills `pid` when this process is gone, however it went.

    The guard reads a pipe that only this process holds open. (The kernel's parent-death signal would fire
    already when the starting thread ends.)
    """
    return subprocess.Popen(
        ["sh", "-c", f"cat >{os.devnull}; kill -9 {pid}"], stdin=subprocess.PIPE, start_new_session=True
    )


def _end_process(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        process.stdin.close()

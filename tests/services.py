"""Real services for tests and benchmarks: one Apache Kafka broker, one Redis, one store, each a process of its own.

All listen on loopback only, on a port that nobody held when they started, keep everything in the folder they
are given, and die with the process that started them, also when that is killed. They need no pytest::

    with KafkaBroker(folder) as kafka, RedisServer(folder) as redis:
        consume(kafka.bootstrap, redis.url)

Fault tests use :meth:`Service.down`, which brings the service back on the same port whatever happens inside.
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
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from obstore import list_with_delimiter
from obstore.exceptions import BaseError
from obstore.store import S3Store

REPOSITORY = Path(__file__).resolve().parent.parent
KAFKA_LIBS = REPOSITORY / ".cache" / "kafka" / "libs"
S3_LIBS = REPOSITORY / ".cache" / "s3" / "libs"

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


class KafkaBroker(Service):
    """Apache Kafka 4 in KRaft mode, broker and controller in one process, topics made only when asked for.

    Parameters
    ----------
    folder
        Where its data folder is made.
    settings
        Broker properties that replace or add to the ones below.
    heap
        The Java heap, as ``-Xmx`` takes it.
    proxy_port
        Of a proxy: a second listener, on ``behind_proxy``, says that it is reached there.
    """

    name = "kafka"

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str | int] | None = None,
        heap: str = "768m",
        proxy_port: int | None = None,
    ) -> None:
        super().__init__(folder)
        self.proxy_port, self.behind_proxy = proxy_port, 0
        self.cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._controller_port = 0
        self._settings = dict(settings or {})
        self._heap = heap
        self._formatted = False

    @property
    def bootstrap(self) -> str:
        """The broker's address, ``host:port``."""
        return f"{LOOPBACK}:{self.port}"

    def _choose_ports(self) -> None:
        self.port, self._controller_port, self.behind_proxy = free_ports(3)

    def _command(self) -> list[str]:
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        if not self._formatted:
            self._format_storage(properties)
        return [
            *self._java(f"-Xmx{self._heap}", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
            "kafka.Kafka",
            str(properties),
        ]

    def _properties(self) -> dict[str, str | int]:
        own: dict[str, str | int] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            # The default waits 3 s for more members whenever a group is made, that is in every test.
            "group.initial.rebalance.delay.ms": 0,
            # A restarted broker waits until the session of its former self has run out: 9 s by default.
            "broker.session.timeout.ms": 3_000,
            "broker.heartbeat.interval.ms": 500,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        }
        return own | self._proxied(own) | self._settings

    def _proxied(self, own: Mapping[str, str | int]) -> dict[str, str | int]:
        if self.proxy_port is None:
            return {}
        return {
            "listeners": f"{own['listeners']},PROXIED://{LOOPBACK}:{self.behind_proxy}",
            "advertised.listeners": f"{own['advertised.listeners']},PROXIED://{LOOPBACK}:{self.proxy_port}",
            "listener.security.protocol.map": f"{own['listener.security.protocol.map']},PROXIED:PLAINTEXT",
        }

    def _format_storage(self, properties: Path) -> None:
        done = subprocess.run(
            [
                *self._java("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={self.cluster_id}",
                f"--config={properties}",
                *self._format_options(),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceError(f"kafka's storage could not be formatted\n{done.stdout}{done.stderr}")
        self._formatted = True

    def _format_options(self) -> list[str]:
        """What else is written into new storage."""
        return []

    def _java(self, *options: str) -> list[str]:
        if not any(KAFKA_LIBS.glob("kafka_*.jar")):
            raise ServiceError(f"no Kafka jars in {KAFKA_LIBS}: run make setup")
        logging = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        return ["java", *options, *logging, "-cp", f"{KAFKA_LIBS}/*"]

    def _answers(self) -> bool:
        if not _accepts(self.port):
            return False
        try:
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=5_000)
        except KafkaError:
            return False
        try:
            cluster = admin.describe_cluster()
        except KafkaError:
            return False
        finally:
            admin.close()
        # Another broker may have taken the port first; ours is then about to say so and end.
        return bool(cluster["cluster_id"] == self.cluster_id and cluster["brokers"])


class RedisServer(Service):
    """A redis-server without persistence: what it held is gone after a stop.

    Parameters
    ----------
    folder
        Where its working folder is made.
    """

    name = "redis"

    @property
    def url(self) -> str:
        """The address of database 0, as redis-py takes it."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _choose_ports(self) -> None:
        (self.port,) = free_ports(1)

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": LOOPBACK,
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        return ["redis-server", *(part for name, value in settings.items() for part in (f"--{name}", value))]

    def _client_options(self) -> dict[str, Any]:
        """What a client needs besides the URL."""
        return {}

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5, **self._client_options()) as client:
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.ConnectionError:
            return False


class S3Server(Service):
    """S3Proxy over a folder: an S3-compatible store with one bucket, which keeps its objects through a restart.

    It creates an object if there is none in one step, by a hard link. Of If-Match it compares the tag first and then
    writes, so that two who replace an object in the same millisecond may both be let through: that is emulated.

    Parameters
    ----------
    folder
        Where its data folder is made.
    """

    name = "s3"
    bucket = "tables"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._secret = uuid.uuid4().hex
        (self.folder / "data" / self.bucket).mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a client of it needs."""
        return {
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{self.port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": self._secret,
            "AWS_REGION": "us-east-1",
        }

    def _choose_ports(self) -> None:
        (self.port,) = free_ports(1)

    def _command(self) -> list[str]:
        if not any(S3_LIBS.glob("s3proxy-*.jar")):
            raise ServiceError(f"no jars of S3Proxy in {S3_LIBS}: run make setup")
        properties = self.folder / "s3proxy.conf"
        settings = {
            "s3proxy.endpoint": f"http://{LOOPBACK}:{self.port}",
            "s3proxy.authorization": "aws-v4",
            "s3proxy.identity": "tests",
            "s3proxy.credential": self._secret,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": str(self.folder / "data"),
        }
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-DLOG_LEVEL=warn"]
        return [
            "java",
            *options,
            "-cp",
            f"{S3_LIBS}/*",
            "org.gaul.s3proxy.Main",
            "--properties",
            str(properties),
        ]

    def _answers(self) -> bool:
        # Signed with a secret that no other server knows: only ours lets us in.
        client = S3Store(
            self.bucket,
            endpoint=f"http://{LOOPBACK}:{self.port}",
            access_key_id="tests",
            secret_access_key=self._secret,
            region="us-east-1",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        try:
            list_with_delimiter(client)
        except BaseError:
            return False
        return True


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


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5):
            return True
    except OSError:
        return False


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

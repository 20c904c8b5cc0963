"""Real services for tests and benchmarks: one Apache Kafka broker, one Redis, one store, each a process of its own.

They need no pytest::

    with KafkaBroker(folder) as kafka, RedisServer(folder) as redis:
        consume(kafka.bootstrap, redis.url)

Fault tests use :meth:`~tests.service_process.Service.down`, which brings the service back on the same port whatever
happens inside.
"""

from __future__ import annotations

import socket
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from obstore import list_with_delimiter
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.service_process import LOOPBACK, Service, ServiceError, free_ports

REPOSITORY = Path(__file__).resolve().parent.parent
KAFKA_LIBS = REPOSITORY / ".cache" / "kafka" / "libs"
S3_LIBS = REPOSITORY / ".cache" / "s3" / "libs"


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


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=5):
            return True
    except OSError:
        return False

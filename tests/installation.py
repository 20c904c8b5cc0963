"""An installation for tests: real workers as processes, on a real Kafka and a real Redis, through the command alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from kafka import KafkaAdminClient
from kafka.structs import OffsetAndMetadata
from pyarrow.fs import S3FileSystem, copy_files

from streams.brokers import Brokers
from streams.topics import open_topics
from tests.services import REPOSITORY, KafkaBroker, RedisServer
from tests.waiting import wait_until

KEY = "a key for tests, of 32 bytes ...."
PATIENCE_S = 180.0
WOOLWATCH = str(Path(sys.executable).with_name("woolwatch"))
_TOPICS = (
    *("clicks", "participations", "sightings", "answers", "partials"),
    *("deadletters", "alerts", "labels", "lessons"),
)


class Installation:
    """Config, folders, topics and keys of one test, and the commands on them.

    Parameters
    ----------
    folder
        Holds config, state, tables and logs.
    kafka, redis
        The services.
    prefix
        Begins every topic, group and key.
    config
        Folder of the config; topic names are added to it.
    partitions
        Of all topics.
    """

    def __init__(
        self,
        folder: Path,
        kafka: KafkaBroker,
        redis: RedisServer,
        prefix: str,
        config: Path,
        *,
        partitions: int,
    ) -> None:
        self.folder, self.kafka, self.redis, self._prefix = folder, kafka, redis, prefix
        self.config, self.namespace = config, prefix.rstrip("-")
        self.out, self.state = folder / "out", folder / "state"
        self.store: str | None = None
        """Where the tables are, if not in ``out``; then :meth:`download` brings them there."""
        self.state_store: str | None = None
        """Where the state is, if not in ``state``."""
        self._partitions = str(partitions)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._logs: dict[subprocess.Popen[bytes], Path] = {}
        names = "\n".join(f"  {role}: {prefix}{role}" for role in _TOPICS)
        (config / "topics.yaml").write_text(f"topics:\n{names}\n")

    # -- flags ---------------------------------------------------------------------------------------------------

    def endpoints(self) -> Sequence[str | Path]:
        """Flags that say where Kafka is and whose topics these are."""
        return (
            *("--config", self.config),
            *("--brokers", self.kafka.bootstrap),
            *("--namespace", self.namespace),
            *("--partitions", self._partitions),
        )

    def places(self) -> Sequence[str | Path]:
        """Flags that say where Redis, tables and state are."""
        return ("--redis", self.redis.url, "--out", self.tables, "--state", self._state_place)

    @property
    def _state_place(self) -> str:
        return self.state_store or str(self.state)

    @property
    def tables(self) -> str:
        """What ``--out`` names."""
        return self.store or str(self.out)

    def download(self) -> None:
        """Copy what a reader sees in the store to ``out``, by another client than the product's."""
        assert self.store is not None
        source = f"{self.store.removeprefix('s3://')}"
        endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
        remote = S3FileSystem(endpoint_override=endpoint, scheme="http")
        copy_files(source, str(self.out), source_filesystem=remote)

    # -- commands ------------------------------------------------------------------------------------------------

    def run(
        self, *arguments: str | Path, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        done = subprocess.run(
            [WOOLWATCH, *map(str, arguments)],
            env=self._environment(environment),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def load(self, *files: Path, rate: int | None = None, label_delay: str | None = None) -> None:
        """Publish recordings, at most so many events a second."""
        pace = ("--rate", str(rate)) if rate is not None else ()
        self.run("load", *files, *self.endpoints(), *pace, *_delay(label_delay))

    def replay(
        self, *files: Path, out: Path, batch_size: int = 16_384, label_delay: str | None = None
    ) -> None:
        """Replay recordings with the same config and key."""
        more = ("--batch-size", str(batch_size), *_delay(label_delay))
        self.run("replay", *files, "--config", self.config, "--out", out, *more)

    def reconcile(self, *, with_redis: bool = False) -> dict[str, Any]:
        """The report of reconcile; its exit code must agree with it."""
        redis = ("--redis", self.redis.url) if with_redis else ()
        done = self.run("reconcile", *self.endpoints(), *redis, "--out", self.tables, "--json", check=False)
        assert done.returncode in (0, 1), done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 0) == (not report["problems"])
        return report

    def sightings(self) -> Path:
        """The sightings log as a Parquet file."""
        out = self.folder / "sightings.parquet"
        self.run("sightings", *self.endpoints(), "--state", self._state_place, "--out", out)
        return out

    # -- workers -------------------------------------------------------------------------------------------------

    def start_worker(self, *flags: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker; all get the same flags, and those given overrule them."""
        path = self.folder / f"worker-{len(self._logs) + 1:03d}.log"
        with path.open("wb") as log:
            worker = subprocess.Popen(
                [WOOLWATCH, "worker", *self.endpoints(), *self.places(), *flags],
                env=self._environment(environment),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._workers.append(worker)
        self._logs[worker] = path
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker hard; its children must follow."""
        worker.kill()
        worker.wait(PATIENCE_S)

    def restart_ended(self) -> None:
        """Start a worker again for each that has ended, as a supervisor would."""
        for worker in [worker for worker in self._workers if worker.poll() is not None]:
            self._workers.remove(worker)
            self.start_worker()

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Workers that live."""
        return [worker for worker in self._workers if worker.poll() is None]

    def stop(self, worker: subprocess.Popen[bytes]) -> int:
        """Stop a worker politely; returns its exit code."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(PATIENCE_S)

    def wait_until_judged(self, records: int) -> dict[str, Any]:
        """Wait until the tables account for so many records; the identity must hold all the while."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            report = self.reconcile()
            assert not report["problems"], report
            if sum(source["consumed"] for source in report["sources"]) >= records:
                return report
            assert not self._failed(), self.logs()
        raise AssertionError(f"not judged in {PATIENCE_S} s: {report}\n{self.logs()}")

    def wait_until_more_is_judged(self) -> None:
        """Wait until the tables account for more records than now; the identity must hold all the while."""
        self.wait_until_judged(1 + sum(source["consumed"] for source in self.reconcile()["sources"]))

    def expect_death(self, worker: subprocess.Popen[bytes], *, within_s: float = 60.0) -> None:
        """Wait for a worker that ends by a fault of the test's own, not politely."""
        assert worker.wait(within_s) != 0
        self._workers.remove(worker)

    def move_group_offsets(self, to: int) -> None:
        """Commit this offset for every partition that the engine's group knows, behind its back."""
        admin = KafkaAdminClient(bootstrap_servers=[self.kafka.bootstrap])
        group = f"{self.namespace}-engine"
        try:
            known = admin.list_group_offsets({group: None})[group]
            assert known, "the group has no offsets"
            admin.alter_group_offsets(group, {tp: OffsetAndMetadata(to, "", -1) for tp in known})
        finally:
            admin.close()

    def topics(self, *roles: str) -> list[str]:
        """Kafka's names of topics."""
        return [f"{self._prefix}{role}" for role in roles]

    def published(self) -> int:
        """Records that the event topics hold."""
        with open_topics(Brokers(self.kafka.bootstrap), wait_s=5) as topics:
            return sum(
                end
                for topic in self.topics("clicks", "participations")
                for end in topics.end_offsets(topic).values()
            )

    def logs(self, *, characters: int = 3000) -> str:
        """The ends of the workers' logs."""
        return "\n".join(path.read_text()[-characters:] for path in sorted(self.folder.glob("worker-*.log")))

    def log_of(self, worker: subprocess.Popen[bytes]) -> str:
        """All that one worker has logged."""
        return self._logs[worker].read_text(errors="replace")

    def _failed(self) -> list[subprocess.Popen[bytes]]:
        """Workers that ended, neither politely nor killed by the test."""
        return [worker for worker in self._workers if worker.poll() not in (None, 0, -signal.SIGKILL)]

    def wait_until_logged(self, *texts: str) -> None:
        """Wait until each of these stands in a worker's log; no worker may have failed meanwhile."""

        def logged() -> bool:
            assert not self._failed(), self.logs()
            logs = self.logs(characters=1_000_000)
            return all(text in logs for text in texts)

        wait_until(logged, f"not all of {texts} is logged", patience_s=PATIENCE_S)

    def close(self) -> None:
        """End whatever still runs."""
        for worker in self._workers:
            if worker.poll() is None:
                self.kill(worker)

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "WOOLWATCH_KEY": KEY, "PYTHONPATH": str(REPOSITORY), **more}


class Install(Protocol):
    """The fixture ``install`` of tests/integration."""

    def __call__(self, partitions: int, config: str | None = None, **blocks: str) -> Installation:
        """An installation under this config; without one, that of tests/made_events.py and these files by name."""


def _delay(label_delay: str | None) -> tuple[str, ...]:
    return () if label_delay is None else ("--label-delay", label_delay)

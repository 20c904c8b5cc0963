"""The contender: ``woolwatch worker`` over the same topics, from their beginning, with everything else fresh.

The clock runs from the last claim before the first turn (a moment before the first fetch) until every record
is accounted for in Parquet and the counts of all events are shown, in Parquet and in Redis.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import redis
from confluent_kafka import Consumer, TopicPartition

from benchmarks import topics
from benchmarks.events import FIRST_MS, Events
from benchmarks.outcome import Outcome
from benchmarks.processes import TreeUsage, command, environment, run
from schemas.sightings import Claim, decode_sightings
from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore
from tests.services import KafkaBroker, RedisServer

INTERNAL = ("sightings", "answers", "partials", "deadletters", "labels", "lessons", "alerts")
SIGHTINGS, TABLES, SHOWN = "first turn to last", "verdicts in Parquet", "counts shown"
_POLL_S = 0.1
_PATIENCE_S = 600.0
_STOP_S = 90.0
_SOME_RECORDS = 100


class WorkerError(Exception):
    """The worker failed, or what it made is wrong; the message ends with its last lines."""


@dataclass(frozen=True)
class Setting:
    """What a run needs: services, the events that are loaded, and by which names."""

    kafka: KafkaBroker
    redis: RedisServer
    events: Events
    topics: Mapping[str, str]
    """Names of the event topics by role."""
    config: Path


def measure(setting: Setting, folder: Path, *, workers: int, flags: Sequence[str] = ()) -> Outcome:
    """Run so many workers, with these flags, until all is done, check what they made, and clean up.

    Raises
    ------
    WorkerError
        Not all was done in ten minutes, a worker ended, or what is in the tables is wrong.
    """
    return _Run(setting, folder, workers, flags).measure()


class _Run:
    """One run; its name makes its topics, its Redis keys and its folders its own."""

    def __init__(self, setting: Setting, folder: Path, workers: int, flags: Sequence[str]) -> None:
        self._setting, self._folder, self._workers, self._more = setting, folder, workers, flags
        self._name = folder.name
        self._out, self._log = folder / "out", folder / "worker.log"
        self._names = topics.names_of(INTERNAL, self._name)
        self._redis = redis.Redis.from_url(setting.redis.url)

    def measure(self) -> Outcome:
        self._write_config()
        setting, stages = self._setting, {}
        with ExitStack() as stack:
            broker = stack.enter_context(TreeUsage([setting.kafka.pid]))
            store = stack.enter_context(TreeUsage([setting.redis.pid]))
            running = [self._start(stack) for _ in range(self._workers)]
            usage = stack.enter_context(TreeUsage([process.pid for process in running]))
            stages[TABLES] = self._wait(running, self._all_in_tables)
            last_s = stages[SHOWN] = self._wait(running, self._all_shown)
            self._stop(running)
        first_s, stages[SIGHTINGS] = self._turn_times()
        self._check()
        turns = sum(read_accounts(LocalStore(self._out)).turns.values())
        self._clean()
        return Outcome(
            events=len(setting.events),
            first_s=first_s,
            last_s=last_s,
            cpu_s=usage.cpu_s(first_s, last_s),
            peak_mb=usage.peak_mb,
            stages_s=stages,
            turns=turns,
            broker_cpu_s=broker.cpu_s(first_s, last_s),
            redis_cpu_s=store.cpu_s(first_s, last_s),
        )

    def _write_config(self) -> None:
        shutil.copytree(self._setting.config, self._folder / "config")
        names = {**self._setting.topics, **self._names}
        block = "".join(f"  {role}: {name}\n" for role, name in names.items())
        (self._folder / "config" / "topics.yaml").write_text(f"topics:\n{block}")

    def _flags(self) -> list[str]:
        return [
            f"--config={self._folder / 'config'}",
            f"--brokers={self._setting.kafka.bootstrap}",
            f"--namespace={self._name}",
            f"--out={self._out}",
        ]

    def _start(self, stack: ExitStack) -> subprocess.Popen[bytes]:
        more = [f"--redis={self._setting.redis.url}", f"--state={self._folder / 'state'}", *self._more]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [command("woolwatch"), "worker", *self._flags(), *more],
                env=dict(environment()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        stack.callback(_kill, process)
        return process

    def _wait(self, running: Sequence[subprocess.Popen[bytes]], done: Callable[[], bool]) -> float:
        """When a condition came true."""
        give_up_s = time.time() + _PATIENCE_S
        while not done():
            if any(process.poll() is not None for process in running):
                raise self._failure("a worker ended by itself")
            if time.time() > give_up_s:
                raise self._failure(f"not done after {_PATIENCE_S:.0f} s")
            time.sleep(_POLL_S)
        return time.time()

    def _stop(self, running: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in running:
            process.terminate()
        codes = [process.wait(_STOP_S) for process in running]
        if any(codes):
            raise self._failure(f"stopped workers ended with {codes}")

    # -- is it done ------------------------------------------------------------------------------------------

    def _all_in_tables(self) -> bool:
        consumed = sum(source.outcomes.consumed for source in read_accounts(LocalStore(self._out)).sources)
        return consumed == len(self._setting.events)

    def _all_shown(self) -> bool:
        """Whether events per minute (Parquet) and daily users (Redis) count every event."""
        # Files are replaced meanwhile: each is opened only once.
        files = (self._out / "metrics" / "events").glob("*.parquet")
        counted = sum(pc.sum(pq.ParquetFile(file).read(["count"])["count"]).as_py() or 0 for file in files)
        if counted != len(self._setting.events):
            return False
        return self._daily_users() == self._setting.events.distinct_users and self._redis_has_all()

    def _daily_users(self) -> int:
        date = f"{datetime.fromtimestamp(FIRST_MS / 1000, UTC):%Y-%m-%d}"
        shown = self._redis.hget(f"{{{self._name}}}:dau:-", f"{date}/all_campaigns/-")
        return int(orjson.loads(shown)["gross"]) if isinstance(shown, bytes) else 0

    def _redis_has_all(self) -> bool:
        """Whether the verdicts of every turn are in Redis, too."""
        for partition, turn in read_accounts(LocalStore(self._out)).turns.items():
            position = self._redis.hget(f"{{{self._name}}}:judge:{partition}", "position")
            if not isinstance(position, bytes) or int(position) < turn:
                return False
        return True

    # -- was it right ----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Every event has one verdict, none has two, and the product's own reconciliation agrees."""
        files = [str(file) for file in (self._out / "verdicts").glob("**/*.parquet")]
        rows = pa_dataset.dataset(files, format="parquet").to_table(columns=["event_id"])["event_id"]
        distinct = pc.count_distinct(rows).as_py()
        if not len(rows) == distinct == len(self._setting.events):
            raise self._failure(f"{len(rows)} verdicts of {distinct} of {len(self._setting.events)} events")
        run([command("woolwatch"), "reconcile", *self._flags()])

    def _turn_times(self) -> tuple[float, float]:
        """When the claims stood that the first turn came after, and when the last turn was decided."""
        ends = topics.end_offsets(self._setting.kafka.bootstrap, self._names["sightings"])
        claims_ms: list[int] = []
        turns_ms: list[int] = []
        last_ms: list[int] = []
        for partition, end in enumerate(ends):
            for stamp_ms, value in self._sightings(partition, 0):
                (claims_ms if isinstance(decode_sightings(value), Claim) else turns_ms).append(stamp_ms)
            last_ms += [stamp_ms for stamp_ms, _ in self._sightings(partition, end - 1)]
        first_turn_ms = min(turns_ms)
        return max(ms for ms in claims_ms if ms <= first_turn_ms) / 1000, max(last_ms) / 1000

    def _sightings(self, partition: int, offset: int) -> list[tuple[int, bytes]]:
        """Some records of the log from an offset on, with their times."""
        consumer = Consumer({"bootstrap.servers": self._setting.kafka.bootstrap, "group.id": "nobody"})
        try:
            consumer.assign([TopicPartition(self._names["sightings"], partition, offset)])
            messages = consumer.consume(_SOME_RECORDS, 2.0)
            return [(message.timestamp()[1], message.value() or b"") for message in messages]
        finally:
            consumer.close()

    def _clean(self) -> None:
        internal = [*self._names.values(), f"{self._name}-rollup-blocks-changelog"]
        topics.delete(self._setting.kafka.bootstrap, internal)
        self._redis.flushall()
        shutil.rmtree(self._folder)

    def _failure(self, what: str) -> WorkerError:
        return WorkerError(f"{what}\n{self._log.read_text(errors='replace')[-4000:]}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()

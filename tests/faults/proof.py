"""A run under a fault, and the proof that it harmed nothing: all that was sent is counted again by other means."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import redis
from confluent_kafka import Producer
from redis.exceptions import ResponseError

from schemas.events import PARTICIPATION_EVENTS
from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore
from streams.config_files import read_config
from tests.installation import Installation
from tests.made_events import STEPS, made_events, write_config, write_recording
from tests.recounts import (
    recount_dau,
    recount_features,
    recount_funnel_suspects,
    recount_retention,
    redis_equals_parquet,
    rows_of,
    same_tables,
    verdicts_in_redis_equal_tables,
)
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

_FUNNEL_WITHIN_MS = 24 * 3_600_000
_PATIENCE_S = 300.0
_CHUNK = 100

RECOVERY = "recovery_s"
"""Name under which a test's report holds how long each recovery took."""


class FaultRun:
    """An installation, and everything that was sent to it.

    Parameters
    ----------
    folder
        For config, state, tables, logs and recordings.
    kafka, redis
        The services.
    prefix
        Begins every topic, group and key.
    partitions
        Of all topics.
    notes
        Taken up into the test's report: how long each recovery took.
    """

    def __init__(
        self,
        folder: Path,
        kafka: KafkaBroker,
        redis: RedisServer,
        prefix: str,
        *,
        notes: list[tuple[str, object]],
        partitions: int = 2,
    ) -> None:
        self.folder, self._notes = folder, notes
        config = write_config(folder / "config")
        self.installation = Installation(folder, kafka, redis, prefix, config, partitions=partitions)
        self._recordings: list[Path] = []
        self._sent = self.fed = 0

    def send(self, lines: Sequence[bytes], *, rate: int | None = None) -> None:
        """Publish events, and remember them."""
        recording = self._remember(lines)
        self.installation.load(recording, rate=rate)

    @contextmanager
    def feeding(self, *, seed: int, rate: int = 300) -> Iterator[None]:
        """Publish events at a steady rate for as long as the block runs, and remember them."""
        stop, lines = threading.Event(), list[bytes]()
        failures: list[BaseException] = []

        def feed() -> None:
            try:
                self._feed(stop, lines, seed=seed, rate=rate)
            except BaseException as error:  # noqa: BLE001 - shown in the test's own thread
                failures.append(error)

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_PATIENCE_S)
        assert not thread.is_alive(), "feeding does not end"
        if failures:
            raise failures[0]
        self._remember(lines)

    def _feed(self, stop: threading.Event, lines: list[bytes], *, seed: int, rate: int) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.installation.kafka.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                # The topics may be made only when the first worker starts.
                "topic.metadata.propagation.max.ms": 120_000,
            }
        )
        refused: list[object] = []
        clicks, participations = self.installation.topics("clicks", "participations")
        for chunk in itertools.count():
            made = made_events(_CHUNK, seed=1000 * seed + chunk)
            for line in made:
                event = _read(line)
                topic = participations if event.get("event") in PARTICIPATION_EVENTS else clicks
                producer.produce(
                    topic,
                    line,
                    str(event.get("user_id", "")),
                    on_delivery=lambda error, _: refused.append(error) if error else None,
                )
            assert producer.flush(_PATIENCE_S) == 0, "Kafka does not take events"
            assert not refused, refused[0]
            lines += made
            self.fed += len(made)
            if stop.wait(len(made) / rate):
                return

    def _remember(self, lines: Sequence[bytes]) -> Path:
        recording = self.folder / f"events-{len(self._recordings)}.jsonl"
        self._recordings.append(write_recording(recording, list(lines)))
        self._sent += len(lines)
        return recording

    def wait_until_more_is_fed(self, records: int) -> None:
        """Wait until so many records more than now were published by :meth:`feeding`."""
        goal = self.fed + records
        wait_until(lambda: self.fed >= goal, "nothing is published any more", patience_s=_PATIENCE_S)

    def recover(self) -> None:
        """Call it when a fault ends: waits until all that the topics hold then is in the tables, and notes how long.

        Without any fault that takes 2 to 4 s, the rhythm of commits.
        """
        began_s = time.monotonic()
        goal = self.installation.published()
        wait_until(lambda: self._consumed() >= goal, "the stream does not recover", patience_s=_PATIENCE_S)
        self._notes.append((RECOVERY, time.monotonic() - began_s))

    def recover_with_redis(self) -> None:
        """As :meth:`recover`, until Redis shows the same numbers as the tables, too; nothing may be fed meanwhile."""
        began_s = time.monotonic()
        goal = self.installation.published()

        def recovered() -> bool:
            if self._consumed() < goal:
                return False
            try:
                return bool(redis_equals_parquet(*self._redis_and_tables()))
            except (AssertionError, ResponseError):  # a key of another type is not mended yet
                return False

        wait_until(recovered, "Redis does not recover", patience_s=_PATIENCE_S)
        self._notes.append((RECOVERY, time.monotonic() - began_s))

    def _redis_is_restored(self) -> bool:
        """Whether Redis has all turns that the tables have; it notes what it still lacks."""
        url, namespace, out = self._redis_and_tables()
        with redis.Redis.from_url(url, decode_responses=True) as client:
            return all(
                int(state.get("position", 0)) >= turn and "lacks" not in state
                for partition, turn in read_accounts(LocalStore(out)).turns.items()
                for state in [client.hgetall(f"{{{namespace}}}:judge:{partition}")]
            )

    def _redis_and_tables(self) -> tuple[str, str, Path]:
        return self.installation.redis.url, self.installation.namespace, self.installation.out

    def _consumed(self) -> int:
        sources = read_accounts(LocalStore(self.installation.out)).sources
        return sum(source.outcomes.consumed for source in sources)

    def wait_until_judged(self) -> dict[str, Any]:
        """Wait until the tables account for all that was sent; reconcile must agree all the while."""
        return self.installation.wait_until_judged(self._sent)

    def finish(self, *workers: subprocess.Popen[bytes]) -> None:
        """Wait until all that was sent is judged, stop these workers, each of which must end well, and prove it all."""
        self.wait_until_judged()
        wait_until(self._redis_is_restored, "Redis is not restored from the tables", patience_s=_PATIENCE_S)
        assert [self.installation.stop(worker) for worker in workers] == [0] * len(workers)
        self.prove()

    def prove(self) -> None:
        """Fail unless every event has its one verdict and every number is right; workers must have stopped.

        Compared are: verdicts with a replay of what was sent (as a multiset), features with a recount over the
        sightings log, DAU and funnels with a recount over the verdicts, Redis with Parquet, gross with replay.
        """
        installation = self.installation
        report = installation.reconcile(with_redis=True)
        assert not report["problems"], report
        assert not report["redis"]["waiting"], report
        assert not report["redis"]["absent"], report
        assert sum(source["consumed"] for source in report["sources"]) == self._sent
        offsets = rows_of(installation.out, "verdicts", 'topic, partition, "offset"')
        assert len(offsets) == len(set(offsets))
        config, _ = read_config(installation.config)
        assert recount_features(config, installation.sightings(), installation.out) > 5 * len(offsets)
        assert recount_dau(installation.out, restate_ms=config.restate_ms) > 5
        assert recount_retention(installation.out, days=3, restate_ms=config.restate_ms) >= 3
        assert recount_funnel_suspects(installation.out, STEPS, _FUNNEL_WITHIN_MS) == 6
        assert redis_equals_parquet(*self._redis_and_tables()) > 20
        assert verdicts_in_redis_equal_tables(*self._redis_and_tables()) > 20

        replayed = self.folder / "replayed"
        installation.replay(*self._recordings, out=replayed)
        for table in ("metrics/funnel", "metrics/dau", "metrics/retention"):
            same_tables(installation.out, replayed, table, columns="* exclude (users_suspect, users_clean)")
        sent, got = (
            Counter(rows_of(out, "verdicts", "event_id, event, ts")) for out in (replayed, installation.out)
        )
        assert sent == got


def _read(line: bytes) -> dict[str, Any]:
    """An event; nothing of one that is broken."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}

"""A run under a fault, and the proof that it harmed nothing: all that was sent is counted again by other means."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streams.config_files import read_config
from tests.installation import Installation
from tests.made_events import STEPS, write_config, write_recording
from tests.recounts import (
    recount_dau,
    recount_features,
    recount_funnel_suspects,
    redis_equals_parquet,
    rows_of,
    same_tables,
)
from tests.services import KafkaBroker, RedisServer

_FUNNEL_WITHIN_MS = 24 * 3_600_000
_PATIENCE_S = 300.0
_LOOK_AGAIN_S = 0.2


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
    """

    def __init__(
        self, folder: Path, kafka: KafkaBroker, redis: RedisServer, prefix: str, *, partitions: int = 2
    ) -> None:
        self.folder = folder
        config = write_config(folder / "config")
        self.installation = Installation(folder, kafka, redis, prefix, config, partitions=partitions)
        self._recordings: list[Path] = []
        self._sent = 0

    def send(self, lines: Sequence[bytes], *, rate: int | None = None) -> None:
        """Publish events, and remember them."""
        recording = self._remember(lines)
        self.installation.load(recording, rate=rate)

    @contextmanager
    def sending(self, lines: Sequence[bytes], *, rate: int) -> Iterator[threading.Thread]:
        """Publish events at a steady rate while the block runs; at its end they are all sent."""
        recording = self._remember(lines)
        failures: list[BaseException] = []

        def load() -> None:
            try:
                self.installation.load(recording, rate=rate)
            except BaseException as error:  # noqa: BLE001 - shown in the test's own thread
                failures.append(error)

        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        yield thread
        thread.join(_PATIENCE_S)
        assert not thread.is_alive(), "loading does not end"
        if failures:
            raise failures[0]

    def _remember(self, lines: Sequence[bytes]) -> Path:
        recording = self.folder / f"events-{len(self._recordings)}.jsonl"
        self._recordings.append(write_recording(recording, list(lines)))
        self._sent += len(lines)
        return recording

    def wait_until_more_is_sent(self, records: int) -> None:
        """Wait until the event topics hold so many records more than now."""
        goal = self.installation.published() + records
        deadline_s = time.monotonic() + _PATIENCE_S
        while self.installation.published() < goal:
            assert time.monotonic() < deadline_s, "nothing is sent any more"
            time.sleep(_LOOK_AGAIN_S)

    def wait_until_judged(self) -> dict[str, Any]:
        """Wait until the tables account for all that was sent; reconcile must agree all the while."""
        return self.installation.wait_until_judged(self._sent)

    def prove(self) -> None:
        """Fail unless every event has its one verdict and every number is right; workers must have stopped.

        Compared are: verdicts with a replay of what was sent (as a multiset), features with a recount over the
        sightings log, DAU and funnels with a recount over the verdicts, Redis with Parquet, gross with replay.
        """
        installation = self.installation
        report = installation.reconcile()
        assert not report["problems"], report
        assert sum(source["consumed"] for source in report["sources"]) == self._sent
        offsets = rows_of(installation.out, "verdicts", 'topic, partition, "offset"')
        assert len(offsets) == len(set(offsets))
        config, _ = read_config(installation.config)
        assert recount_features(config, installation.sightings(), installation.out) > 5 * len(offsets)
        assert recount_dau(installation.out, restate_ms=config.restate_ms) > 5
        assert recount_funnel_suspects(installation.out, STEPS, _FUNNEL_WITHIN_MS) == 6
        assert redis_equals_parquet(installation.redis.url, installation.namespace, installation.out) > 20

        replayed = self.folder / "replayed"
        installation.replay(*self._recordings, out=replayed)
        for table in ("metrics/funnel", "metrics/dau"):
            same_tables(installation.out, replayed, table, columns="* exclude (users_suspect, users_clean)")
        sent, got = (
            Counter(rows_of(out, "verdicts", "event_id, event, ts")) for out in (replayed, installation.out)
        )
        assert sent == got

"""Replay: the core over a recording, without a broker and without Redis; the tables come out.

It is one partition and one source: the order of the files and their rows is the judged order. Batches are only how
work is cut; any size gives the same verdicts and tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.entities import entity_keys
from detectors.incident_alerts import IncidentAlerts
from detectors.inquiry import sightings_of
from detectors.judge import Judge
from detectors.lists import NO_LISTS, ListBook
from detectors.shard import Shard
from metrics.kpi import KpiAlerts
from metrics.partition_metrics import PartitionMetrics
from metrics.rollup import Rollup
from schemas.alerts import Alert
from schemas.config import Config
from schemas.decode import decode_json
from schemas.errors import ConfigError, StateError
from schemas.events import RECORDING, TOPICS, EventBatch
from schemas.keys import KeyRing
from schemas.labels import Labels
from schemas.metric_tables import METRIC_SCHEMAS
from schemas.tabular import NO_TOPIC, decode_table
from schemas.verdicts import Outcomes, Verdicts
from sinks.alert_tables import AlertTables
from sinks.local_store import LocalStore
from sinks.metric_files import MetricFiles
from sinks.parquet import ParquetSink
from sinks.store import Store
from streams import recordings
from streams.partition_core import PartitionCore
from streams.recordings import unseen
from streams.routing import topics_of
from streams.sealed import seal_with

log = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 16_384
_COMMIT_ROWS = 200_000
_COMMIT_TURNS = 5_000
_TAIL_ROWS = 65_536
_CLAIM = bytes(16)


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay did; ``kpi_alerts`` in the order in which they were raised, those of one KPI together."""

    outcomes: Outcomes
    flagged: int
    out: Path
    kpi_alerts: tuple[Alert, ...] = ()


@dataclass
class _Totals:
    verdicts: int = 0
    late: int = 0
    duplicates: int = 0
    rejected: int = 0
    flagged: int = 0

    def add(self, verdicts: Verdicts) -> None:
        outcomes = verdicts.outcomes
        self.verdicts += outcomes.verdicts
        self.late += outcomes.late
        self.duplicates += outcomes.duplicates
        self.rejected += outcomes.rejected
        self.flagged += int(np.count_nonzero(verdicts.level[verdicts.late == 0] >= 2))


class Core:
    """Judge, owner and counts of a single partition in one process: what replay and backtest run.

    Parameters
    ----------
    config, ring, lists
        What is judged by.
    label_delay_ms
        How long after its event a recorded label becomes known; None: labels are ignored.
    """

    def __init__(
        self,
        config: Config,
        ring: KeyRing,
        lists: ListBook = NO_LISTS,
        *,
        label_delay_ms: int | None = None,
    ) -> None:
        # A recorded label is known with its event; features are kept only for the labels of repeats.
        self._judge = Judge(
            config, ring, partition=0, owners=1, topics=1, label_horizon_ms=config.lateness_ms, lists=lists
        )
        self._ring, self._label_delay_ms = ring, label_delay_ms
        self._shard = Shard(0, max_keys=config.memory.max_keys, lateness_ms=config.lateness_ms)
        self._core = PartitionCore(self._judge, config, ring, source=0)
        self.metrics, self.incidents = self._core.metrics, self._core.incidents

    def snapshot(self) -> dict[str, Any]:
        """Copies of all state but what labels taught."""
        return {"core": self._core.snapshot(), "shard": self._shard.snapshot()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a snapshot; only right after construction."""
        self._core.restore(state["core"])
        self._shard.restore(state["shard"])

    def forgotten(self) -> dict[str, int]:
        """What memory was too small for (``memory`` in the config), by what it is."""
        return {
            "entities forgotten": self._shard.evicted,
            "event ids forgotten": self._judge.forgotten_event_ids,
            "suspects forgotten": self.metrics.forgotten_suspects,
            "highest sampling level": self.metrics.sampling_level,
        }

    def judge(self, batch: EventBatch) -> Verdicts:
        """Take one batch as one turn."""
        judge, shard = self._judge, self._shard
        if self._label_delay_ms is not None:
            labels = _labels_of(batch, self._ring, self._label_delay_ms)
            judge.take_labels(labels)
            self.metrics.take_labels(labels)
        inquiry = judge.ask(batch)
        answers = shard.take(
            sightings_of(inquiry, 0, judge.plan, topic=0, claim=_CLAIM), lambda _: judge.plan
        )
        if answers is None:
            raise StateError("a new turn of the only judge was taken for a repeat")
        verdicts = self._core.verdicts(inquiry, {0: answers})
        if judge.supervised.memory.tail_rows > _TAIL_ROWS:
            judge.supervised.memory.seal()
            judge.supervised.memory.forget()
        return verdicts


def _labels_of(batch: EventBatch, ring: KeyRing, delay_ms: int) -> Labels:
    """The labels that the rows carry, as they would come on the topic."""
    rows = np.flatnonzero((batch.labels >= 0) & (batch.rejected == 0))
    event, user = (entity_keys(batch, kind, ring)[rows] for kind in ("event_id", "user_id"))
    return Labels(event, user, batch.integers[0][rows] + delay_ms, batch.labels[rows].astype(np.uint8))


def replay(
    paths: Sequence[Path],
    config: Config,
    ring: KeyRing,
    out: Path,
    *,
    lists: ListBook = NO_LISTS,
    batch_size: int = DEFAULT_BATCH_SIZE,
    label_delay_ms: int | None = None,
    progress: Callable[[int], None] = unseen,
) -> ReplaySummary:
    """Judge a recording and write its tables.

    Parameters
    ----------
    paths
        The files, in order.
    config, ring
        What is judged by, and the keys.
    out
        A new or empty folder.
    lists
        What the config's lists contain.
    batch_size
        Rows of a turn; it changes nothing but the speed.
    label_delay_ms
        How long after its event a recorded label becomes known; None: labels are ignored.
    progress
        Told the rows of each turn.

    Raises
    ------
    RecordingError
        A file can not be read.
    ConfigError
        ``out`` holds tables already.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(file="--out", path="$", found=f"{out}, which is not empty", expected="a new folder")
    store = LocalStore(out)
    core, sink, totals = (
        Core(config, ring, lists, label_delay_ms=label_delay_ms),
        ParquetSink(store, 0, key_fingerprint=ring.fingerprint, seal=seal_with(ring)),
        _Totals(),
    )
    sink.open()
    held: list[Verdicts] = []
    rows = 0
    alerts, kpis = IncidentAlerts(config), KpiAlerts(config, sources=1)
    for batch in batches(paths, config, ring, batch_size):
        verdicts = core.judge(batch)
        totals.add(verdicts)
        judge_kpis(kpis, core.metrics, core.metrics.watermark_ms)
        for block in core.incidents.changed_blocks(verdicts.turn):
            alerts.put(block)
        held.append(verdicts)
        rows += len(batch)
        if rows >= _COMMIT_ROWS or len(held) >= _COMMIT_TURNS:
            sink.write(held)
            held, rows = [], 0
        progress(len(batch))
    if held:
        sink.write(held)
    write_metrics(core.metrics, store)
    judge_kpis(kpis, core.metrics, core.metrics.kpis.progress_ms[0])
    write_alerts([*(alert for alert, _ in alerts.due()), *kpis.untold], store, ring)
    outcomes = Outcomes(totals.verdicts, totals.late, totals.duplicates, totals.rejected)
    return ReplaySummary(outcomes, totals.flagged, out, tuple(kpis.untold))


def judge_kpis(kpis: KpiAlerts, metrics: PartitionMetrics, reached_ms: int | None) -> None:
    """Judge the KPI windows that end by then; below the watermark nothing changes, so batches do not matter."""
    for block in metrics.kpi_blocks(metrics.turn):
        kpis.put(block)
    if reached_ms is not None:
        kpis.advance(reached_ms)


def write_metrics(metrics: PartitionMetrics, store: Store) -> None:
    """Write the metric tables of a single partition."""
    rollup, files = Rollup(), MetricFiles(store)
    for block in metrics.all_blocks():
        rollup.put(block)
    for table in METRIC_SCHEMAS:
        files.replace(table, 0, 1, rollup.table(table))


def write_alerts(alerts: Sequence[Alert], store: Store, ring: KeyRing) -> None:
    """Write the alerts of a whole recording: each with the numbers of its end, for nobody waited for its beginning."""
    tables = AlertTables(store, 0, key_fingerprint=ring.fingerprint)
    tables.open()
    tables.write_alerts(alerts, next_=len(alerts))


def batches(paths: Sequence[Path], config: Config, ring: KeyRing, batch_size: int) -> Iterator[EventBatch]:
    """The recording as batches of at most ``batch_size`` rows; offsets count each topic by itself."""
    position = _Position()
    for path in paths:
        for decoded in _decoded(path, config, ring, position):
            for first in range(0, len(decoded), batch_size):
                yield decoded.slice(first, min(first + batch_size, len(decoded)))


@dataclass
class _Position:
    row: int = 0
    offsets: list[int] = field(default_factory=lambda: [0] * len(TOPICS))


def _decoded(path: Path, config: Config, ring: KeyRing, position: _Position) -> Iterator[EventBatch]:
    kind = recordings.format_of(path)[0]
    if kind == recordings.JSONL:
        for lines in recordings.lines(path):
            batch = decode_json(lines, **_place(position, len(lines), config))
            yield _routed(batch, np.full(len(lines), NO_TOPIC, np.int8), config, ring, position)
        return
    for table in recordings.tables(path, config.fields):
        decoded = decode_table(table, csv=kind == recordings.CSV, **_place(position, len(table), config))
        yield _routed(decoded.batch, decoded.topics, config, ring, position)


def _place(position: _Position, rows: int, config: Config) -> dict[str, Any]:
    """What both decoders are told: where the rows stand, and what the config says of fields and names."""
    start = position.row
    position.row += rows
    return {
        "topic": RECORDING,
        "partition": 0,
        "start": start,
        "next": position.row,
        "offsets": np.arange(start, position.row),
        "attributes": config.attributes_used,
        "fields": config.fields,
        "strict_names": config.known_event_names if config.events.strict else None,
    }


def _routed(
    batch: EventBatch, named: NDArray[np.int8], config: Config, ring: KeyRing, position: _Position
) -> EventBatch:
    topics = topics_of(batch, named, config, ring)
    offsets = np.empty(len(batch), np.int64)
    for number in range(len(TOPICS)):
        mine = topics == number
        count = int(np.count_nonzero(mine))
        offsets[mine] = np.arange(position.offsets[number], position.offsets[number] + count)
        position.offsets[number] += count
    return replace(batch, offsets=offsets, topics=topics)

"""What a worker can be watched by: the catalogue of its metrics, and the counters of one process.

A child of the worker sends its parent a :class:`Pulse` a second; :mod:`streams.status_server` serves the last ones.
Metrics are counted by batch, never by event, and no label holds what came with an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.verdicts import LEVELS, Verdicts

NAMESPACE = "woolwatch"
PULSE_S = 1.0


class Metric(NamedTuple):
    """One metric: its kind (``counter`` since the process began, or ``gauge``), its labels, and what it says."""

    kind: str
    labels: tuple[str, ...]
    help: str


METRICS: Mapping[str, Metric] = {
    "events_total": Metric(
        "counter", ("topic", "outcome"), "Records judged: verdict, late, duplicate, rejected."
    ),
    "verdicts_total": Metric("counter", ("level",), "Verdicts by level."),
    "turns_total": Metric(
        "counter", ("partition",), "Turns taken, those taken again after a restart among them."
    ),
    "dead_letters_total": Metric("counter", ("partition",), "Dead letters sent."),
    "rebalances_total": Metric("counter", (), "How often partitions were assigned."),
    "owned_partitions": Metric("gauge", (), "Partitions that this process has."),
    "durable_lag_records": Metric(
        "gauge", ("topic", "partition"), "Records in the log behind the last position that a checkpoint has."
    ),
    "read_lag_records": Metric("gauge", ("topic", "partition"), "Records in the log that are not read yet."),
    "watermark_seconds": Metric(
        "gauge", ("partition",), "Watermark as Unix time; absent before the first event."
    ),
    "checkpoint_age_seconds": Metric(
        "gauge", ("kind", "partition"), "Seconds since the state was last as the checkpoint has it."
    ),
    "waiting_rows": Metric("gauge", ("partition",), "Rows judged that the tables do not have yet."),
    "evictions_total": Metric(
        "counter", ("partition",), "Entities forgotten to make room (memory.max_keys)."
    ),
    "forgotten_event_ids_total": Metric(
        "counter",
        ("partition",),
        "Event ids forgotten within the lateness to make room (memory.max_event_ids).",
    ),
    "forgotten_suspects_total": Metric(
        "counter",
        ("partition",),
        "Users whose verdicts the counts forgot to make room (memory.max_users): clean when they come again.",
    ),
    "sampling_level": Metric(
        "gauge",
        ("partition",),
        "0: all users are counted exactly; L: in some count one in 2^L stands for all.",
    ),
    "keys": Metric("gauge", ("partition",), "Entities that a shard holds."),
    "memory_bytes": Metric("gauge", ("of",), "Memory: of the whole process, of the entities."),
    "kpi_values_ignored_total": Metric(
        "counter",
        (),
        "Values of dimensions, by window, that KPI alerts had no place for since the partitions were taken.",
    ),
    "alert_deliveries_waiting": Metric(
        "gauge", ("channel",), "Alerts that wait for a channel, those that are being sent among them."
    ),
    "alert_deliveries_total": Metric(
        "counter", ("channel", "outcome"), "Deliveries that ended: sent, failed (given up)."
    ),
    "labels_dropped_total": Metric(
        "counter", ("partition",), "Labels dropped because too many wait for their events, or for their time."
    ),
    "config_refused": Metric(
        "gauge", (), "1 while the config in the folder is refused and an older one runs on."
    ),
    "away_seconds": Metric(
        "gauge", ("component",), "How long a component has been waited for; absent when it is there."
    ),
}
"""By name without the namespace. Every sample also has the label ``part``: the process that it comes from."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A value of a metric; ``labels`` in the order of the catalogue."""

    name: str
    labels: tuple[str, ...]
    value: float


class Pulse(msgspec.Struct, frozen=True):
    """What a child tells its parent.

    Parameters
    ----------
    ready
        Its partitions are seated.
    away
        Components that it waits for, with the seconds.
    stalled
        Topic-partitions whose durable position stands still though there is input, with the seconds.
    samples
        The metrics.
    """

    ready: bool
    away: dict[str, float]
    stalled: dict[str, float]
    samples: list[Sample]


class Meters:
    """The counters of one process; they begin at 0 with it."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, tuple[str, ...]]] = Counter()

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Add to a counter."""
        self._counts[name, labels] += by

    def count_turn(self, topic: str, partition: int, verdicts: Verdicts) -> None:
        """Count the outcomes and levels of a turn."""
        outcomes = verdicts.outcomes
        self.count("turns_total", str(partition))
        self.count("events_total", topic, "verdict", by=outcomes.verdicts)
        self.count("events_total", topic, "late", by=outcomes.late)
        self.count("events_total", topic, "duplicate", by=outcomes.duplicates)
        self.count("events_total", topic, "rejected", by=outcomes.rejected)
        on_time = verdicts.level[verdicts.late == 0]
        for number, level in enumerate(LEVELS):
            self.count("verdicts_total", level, by=int((on_time == number).sum()))

    def samples(self) -> Iterator[Sample]:
        """All counters as they are now."""
        for (name, labels), value in self._counts.items():
            yield Sample(name, labels, value)


def process_memory() -> Sample:
    """The memory of this process that is not on disk."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample("memory_bytes", ("process",), pages * 4096)


def as_text(samples: Iterable[tuple[str, Sample]]) -> str:
    """Samples, each with its part, in Prometheus' text format 0.0.4.

    Examples
    --------
    >>> print(as_text([("engine", Sample("verdicts_total", ("pass",), 7))]), end="")
    # HELP woolwatch_verdicts_total Verdicts by level.
    # TYPE woolwatch_verdicts_total counter
    woolwatch_verdicts_total{part="engine",level="pass"} 7
    """
    by_name: dict[str, list[str]] = {}
    for part, sample in samples:
        names = ("part", *METRICS[sample.name].labels)
        pairs = zip(names, (part, *sample.labels), strict=True)
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
        by_name.setdefault(sample.name, []).append(
            f"{NAMESPACE}_{sample.name}{{{labels}}} {sample.value:.17g}"
        )
    lines = []
    for name, metric in METRICS.items():
        if name in by_name:
            lines += [f"# HELP {NAMESPACE}_{name} {metric.help}", f"# TYPE {NAMESPACE}_{name} {metric.kind}"]
            lines += by_name[name]
    return "".join(f"{line}\n" for line in lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

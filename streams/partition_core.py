"""What one judge partition knows under one config: the judge, its counts and its incidents, always taken together.

Pure but for the place where it stands: live and ``replay`` run this same code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from numpy.typing import NDArray

from detectors.incidents import Incidents
from detectors.inquiry import Inquiry
from detectors.judge import Judge
from detectors.lists import ListBook
from metrics.partition_metrics import PartitionMetrics
from schemas.config import Config
from schemas.events import EventBatch
from schemas.keys import KeyRing
from schemas.labels import Labels
from schemas.partials import Block
from schemas.sightings import Answers
from schemas.verdicts import Verdicts

State = Mapping[str, NDArray[Any] | bytes]


class PartitionCore:
    """Judge, counts and incidents of one partition.

    Parameters
    ----------
    judge
        Made for the same config.
    config, ring
        What is judged by.
    source
        Number of the partition, by which the rollup tells its counts from others'.
    """

    def __init__(self, judge: Judge, config: Config, ring: KeyRing, *, source: int) -> None:
        self.judge = judge
        self.metrics = PartitionMetrics(config, ring, source=source, topics=judge.topics)
        self.incidents = Incidents(config, ring, source=source)

    def verdicts(self, inquiry: Inquiry, answers: Mapping[int, Answers]) -> Verdicts:
        """Judge a turn and count it."""
        verdicts = self.judge.judge(inquiry, answers)
        self._count(verdicts)
        self.incidents.update(verdicts)
        return verdicts

    def turn_of_labels(self, batch: EventBatch, labels: Labels) -> Verdicts:
        """Take in labels as a turn of their own, which has no events."""
        verdicts = self.judge.turn_of_labels(batch, labels)
        self.metrics.take_labels(labels)
        self._count(verdicts)
        return verdicts

    @property
    def labels_dropped(self) -> int:
        """Labels for which there was no room, under this config."""
        return self.judge.supervised.dropped + self.metrics.overruled.dropped

    def _count(self, verdicts: Verdicts) -> None:
        on_time = verdicts.late == 0
        self.metrics.update(
            verdicts.batch,
            verdicts.rows[on_time],
            verdicts.user_keys[on_time],
            verdicts.level[on_time],
            turn=verdicts.turn,
            watermark_ms=self.judge.watermark_ms,
        )

    def changed_blocks(self, *, idle: Collection[int]) -> list[Block]:
        """All counts that changed since the last call; ``idle`` are numbers of topics at whose end we stand."""
        turn = self.judge.turn
        return [*self.metrics.changed_blocks(turn, idle=idle), *self.incidents.changed_blocks(turn)]

    def snapshot(self) -> dict[str, NDArray[Any] | bytes]:
        """Copies of all state, as flat arrays."""
        parts = {
            "judge": self.judge.snapshot(),
            "metrics": self.metrics.snapshot(),
            "incidents": self.incidents.snapshot(),
        }
        return {f"{part}/{name}": value for part, state in parts.items() for name, value in state.items()}

    def restore(self, state: State) -> None:
        """Take up a snapshot, also of another config: what is defined alike keeps its state."""
        self.judge.restore(_part(state, "judge"))
        self.metrics.restore(_part(state, "metrics"))
        self.incidents.restore(_part(state, "incidents"))

    def take_over(self, before: PartitionCore) -> None:
        """Go on from where another config stood."""
        self.restore(before.snapshot())
        self.judge.supervised.memory.segments = before.judge.supervised.memory.segments


def new_core(config: Config, ring: KeyRing, *, partition: int, owners: int, lists: ListBook) -> PartitionCore:
    """The core of a judge partition before its first turn."""
    judge = Judge(config, ring, partition=partition, owners=owners, lists=lists)
    return PartitionCore(judge, config, ring, source=partition)


def _part(state: State, part: str) -> dict[str, Any]:
    return {
        name.removeprefix(f"{part}/"): value for name, value in state.items() if name.startswith(f"{part}/")
    }

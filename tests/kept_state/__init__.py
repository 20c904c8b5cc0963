"""States as earlier formats wrote them: a judge's and two shards', in the middle of made events.

A folder for each format holds the checkpoints and the config and events that made them, all as of the code of its time;
they stay as they are. Before a format changes, ``python -m tests.kept_state`` keeps one of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from detectors.entities import entity_keys
from detectors.inquiry import sightings_of
from detectors.lists import NO_LISTS
from detectors.plan import Plan
from detectors.shard import Shard
from schemas.config import Config
from schemas.decode import decode_json
from schemas.events import CLICKS, EventBatch
from schemas.keys import KeyRing
from schemas.labels import Labels, batch_without_events
from schemas.sightings import Claim
from schemas.verdicts import Verdicts
from sinks.local_store import LocalStore
from streams.checkpoints import Checkpoint, CheckpointStore
from streams.partition_core import new_core

FOLDER = Path(__file__).parent
OWNERS, TURN_EVENTS, TURNS = 2, 26, 9
STOPPED_AT = 6
"""How many turns of events the states contain."""
_LABELS_BEFORE = 3
"""The turn of events before which labels come, some of them for events that are still to come."""
_LABEL_DELAY_MS = 45_000
_CLAIM = b"kept state claim"
_RING = KeyRing(b"a key for kept states")


class KeptWork:
    """What a worker with a judge and two shards keeps in its checkpoints, without a broker."""

    def __init__(self, config: Config) -> None:
        self.core = new_core(config, _RING, partition=0, owners=OWNERS, lists=NO_LISTS)
        most = {"max_keys": config.memory.max_keys, "lateness_ms": config.lateness_ms}
        self.shards = [Shard(owner, **most) for owner in range(OWNERS)]
        for shard in self.shards:
            shard.take(Claim(0, _CLAIM), dict[bytes, Plan]().__getitem__)

    def take(self, lines: list[bytes], turns: Iterable[int]) -> list[dict[str, Any]]:
        """Judge turns of the events; returns what came of each: verdicts, and the lessons that it made."""
        found = []
        for turn in turns:
            if turn == _LABELS_BEFORE:
                self.core.turn_of_labels(
                    batch_without_events(partition=0, start=0, next=9, offsets=[], rejections=[]),
                    _labels(_decoded(lines, 0, len(lines))),
                )
            verdicts = self._judge(_decoded(lines, turn * TURN_EVENTS, (turn + 1) * TURN_EVENTS))
            found.append(_plain(verdicts) | {"lessons": repr(self.core.judge.supervised.lessons)})
        return found

    def counts(self) -> list[Any]:
        """The counts that changed since this was asked."""
        return sorted(self.core.changed_blocks(idle=()), key=repr)

    def save(self, root: Path) -> None:
        """Checkpoint all, as seats do."""
        CheckpointStore(LocalStore(root), "judge-0000").save(
            Checkpoint(STOPPED_AT + 1, {}, self.core.snapshot())
        )
        for shard in self.shards:
            store = CheckpointStore(LocalStore(root), f"shard-{shard.owner:04d}")
            store.save(Checkpoint(STOPPED_AT, {}, shard.snapshot()))

    def load(self, root: Path) -> None:
        """Take up such checkpoints."""
        for name, part in (
            ("judge-0000", self.core),
            ("shard-0000", self.shards[0]),
            ("shard-0001", self.shards[1]),
        ):
            checkpoint = CheckpointStore(LocalStore(root), name).load()
            assert checkpoint is not None, name
            part.restore(checkpoint.state)

    def _judge(self, batch: EventBatch) -> Verdicts:
        judge = self.core.judge
        inquiry = judge.ask(batch)
        answers = {
            owner: self.shards[owner].take(
                sightings_of(inquiry, owner, judge.plan, topic=0, claim=_CLAIM, models=(0,)),
                lambda _: judge.plan,
            )
            for owner in inquiry.questions
        }
        return self.core.verdicts(
            inquiry, {owner: answer for owner, answer in answers.items() if answer is not None}
        )


def _decoded(lines: list[bytes], start: int, end: int) -> EventBatch:
    return decode_json(
        lines[start:end], topic=CLICKS, partition=0, start=start, next=end, offsets=np.arange(start, end)
    )


def _labels(batch: EventBatch) -> Labels:
    """Of every second event: whether it came from the farm."""
    rows = np.flatnonzero(batch.rejected == 0)[::2]
    event, user = (entity_keys(batch, kind, _RING)[rows] for kind in ("event_id", "user_id"))
    return Labels(event, user, batch.integers[0][rows] + _LABEL_DELAY_MS, (rows % 3 == 0).astype(np.uint8))


def _plain(verdicts: Verdicts) -> dict[str, Any]:
    """Everything of verdicts but their events, comparable."""
    values = {
        field.name: getattr(verdicts, field.name) for field in fields(verdicts) if field.name != "batch"
    }
    return {
        name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in values.items()
    }

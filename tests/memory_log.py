"""Judge seats on logs in memory: who writes what, and when, is the test's to decide; sinks take everything at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from detectors.lists import NO_LISTS
from detectors.shard import Shard
from schemas.config import Config
from schemas.events import TOPICS
from schemas.keys import KeyRing
from schemas.partials import Block
from schemas.sightings import Answers, decode_sightings
from schemas.verdicts import Verdicts
from sinks.local_store import LocalStore
from streams.batches import TP, Batch
from streams.config_store import ConfigStore
from streams.context import Context
from streams.judge_seat import JudgeSeat
from streams.learning import Tails
from streams.log_tail import Stretch
from streams.settings import Settings

PARTITIONS = 2
_SENT_MS = 2_000_000_000_000


class MemoryLogs:
    """Topics by role and partition, and the owners of entities: each takes a record as soon as it is written.

    Every seat that was ever taken hears all answers, also one that is overtaken: nothing fences who reads.
    """

    def __init__(self, state: Path, config: Config, patch: pytest.MonkeyPatch) -> None:
        self.logs: dict[tuple[str, int], list[Any]] = defaultdict(list)
        self.sunk: dict[int, Verdicts] = {}
        """What the first writer of each turn gave to the sinks."""
        self.state, self.config = state, config
        self.ring, self.configs = KeyRing(b"a key for logs in memory"), ConfigStore(LocalStore(state))
        self.configs.keep(config)
        most = {"max_keys": config.memory.max_keys, "lateness_ms": config.lateness_ms}
        self._owners = [Shard(owner, **most) for owner in range(PARTITIONS)]
        self._answers: list[Answers] = []
        self._seats: list[JudgeSeat] = []
        patch.setattr("streams.judge_seat.Outputs", lambda *_: _Sinks(self.sunk))

    def write(self, role: str, partition: int, value: bytes) -> int:
        """Append a record; returns its offset."""
        log = self.logs[role, partition]
        log.append(SimpleNamespace(offset=len(log), value=value, key=None, timestamp=_SENT_MS))
        if role == "sightings":
            answer = self._owners[partition].take(decode_sightings(value), self.configs.plan)
            if answer is not None and answer.source == 0:
                self._answers.append(answer)
                for seat in self._seats:
                    seat.desk.put(answer, len(self._answers) - 1)
        return len(log) - 1

    async def take_seat(self, way_out: WayOut | None = None) -> JudgeSeat:
        """Somebody becomes the owner of judge 0."""
        context = Context(
            settings=Settings(state=str(self.state)),
            config=self.config,
            ring=self.ring,
            partitions=PARTITIONS,
            configs=self.configs,
            lists=cast("Any", SimpleNamespace(of=lambda _: NO_LISTS)),
            send=way_out or WayOut(self),
            redis=None,
        )
        tails = [cast("Any", _Tail(self.logs[role, 0])) for role in ("labels", "lessons")]
        seat = JudgeSeat(0, context, cast("Any", _Reader(self.logs)), Tails(tails[:1], tails[1]))
        await seat.open()
        for offset in range(seat.answers_start, len(self._answers)):
            seat.desk.put(self._answers[offset], offset)
        self._seats.append(seat)
        return seat

    def forget(self, seat: JudgeSeat) -> None:
        """It hears no answers any more."""
        self._seats.remove(seat)

    async def judge(self, seat: JudgeSeat, start: int, end: int) -> None:
        """Hand a seat the records [start, end) of the first event topic as one batch."""
        records: Sequence[Any] = self.logs[TOPICS[0], 0][start:end]
        await seat.take(Batch(TP(TOPICS[0], 0), records, start=start, next=end, generation=1))


class WayOut:
    """What one process sends; nothing of it arrives while it is asleep."""

    def __init__(self, logs: MemoryLogs) -> None:
        self._logs = logs
        self._awake = asyncio.Event()
        self._awake.set()
        self.sleeps_before = ""
        """A role: before its next record there, the process falls asleep."""
        self.asleep = asyncio.Event()

    def wake(self) -> None:
        """Go on."""
        self.sleeps_before = ""
        self._awake.set()

    async def __call__(
        self, topic: str, partition: int, value: bytes, key: bytes | None = None
    ) -> Awaitable[int]:
        """Publish, as :class:`streams.context.Send` says."""
        assert key is None
        if topic == self.sleeps_before:
            self._awake.clear()
            self.asleep.set()
        await self._awake.wait()
        return _ready(self._logs.write(topic, partition, value))


async def _ready(offset: int) -> int:
    return offset


class _Tail:
    def __init__(self, log: list[Any]) -> None:
        self._log = log

    async def read(self, start: int, end: int) -> Stretch:
        return Stretch(start, end, self._log[start:end])


class _Reader:
    """As streams.log_reader."""

    def __init__(self, logs: dict[tuple[str, int], list[Any]]) -> None:
        self._logs = logs

    async def read(self, role: str, partition: int, start: int, end: int) -> AsyncIterator[Any]:
        for record in self._logs[role, partition][start:end]:
            yield record

    async def beginning(self, role: str, partition: int) -> int:  # noqa: ARG002 - as the reader has it
        return 0

    async def end(self, role: str, partition: int) -> int:
        return len(self._logs[role, partition])

    async def ends(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return {place: len(self._logs[place]) for place in places}

    async def first_positions(self, partition: int) -> dict[str, int]:  # noqa: ARG002
        return dict.fromkeys(TOPICS, 0)

    async def first_label_positions(self, partitions: int) -> list[int]:
        return [0] * partitions

    def caught_up(self, role: str, partition: int) -> bool:  # noqa: ARG002
        return False


class _Sinks:
    """As streams.outputs; the first who brings a turn wins, as in Parquet."""

    waiting_rows = letters_position = 0

    def __init__(self, sunk: dict[int, Verdicts]) -> None:
        self._sunk, self.checkpointed = sunk, 0

    async def open(self, turn: int, **_: Any) -> None:
        self.checkpointed = turn

    async def room(self) -> None:
        return

    def put(self, verdicts: Verdicts) -> None:
        self._sunk.setdefault(verdicts.turn, verdicts)

    async def reach(self, turn: int) -> None:
        assert turn <= len(self._sunk)

    async def publish(self, blocks: Sequence[Block]) -> None:  # noqa: ARG002
        return

    async def close(self) -> None:
        return

    def cancel(self) -> None:
        return

"""CPU time an event of each part of the core, with its state warm, beside ``orjson.loads`` one by one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time_ns
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
import pyarrow.parquet as pq

import detectors.columns
import detectors.judge
import sinks.parquet
from benchmarks.events import make_events
from benchmarks.report import Table, spread
from benchmarks.stopwatch import Stopwatch
from detectors.columns import AnswerReader, Columns, NameFinder
from detectors.dedupe import Dedupe
from detectors.evidence import EvidenceWriter
from detectors.half_space_trees import HalfSpaceForest
from detectors.inquiry import Inquiry, sightings_of
from detectors.judge import Judge
from detectors.rules import RuleProgram
from detectors.shard import Shard
from metrics.partition_metrics import PartitionMetrics
from schemas.config import Config
from schemas.decode import decode_json
from schemas.events import CLICKS
from schemas.keys import KeyRing
from schemas.pseudonyms import Pseudonyms
from schemas.sightings import Answers, decode_answers, decode_sightings, encode_answers, encode_sightings
from schemas.verdicts import Verdicts
from sinks.local_store import LocalStore
from sinks.parquet import ParquetSink
from sinks.redis import RedisSink

PARTS = (
    "decode",
    "entity keys",
    "dedupe",
    "ask: the rest",
    "sightings: encode",
    "sightings: decode",
    "shard",
    "answers: encode",
    "answers: decode",
    "features",
    "rules",
    "trees",
    "score",
    "evidence",
    "pseudonyms",
    "judge: the rest",
    "metrics: count",
    "metrics: blocks",
    "verdict table",
    "Parquet file",
    "Parquet commit",
    "Redis calls",
)
"""In the order of the work."""
_LOADS = "orjson.loads"

_INSIDE: tuple[tuple[Any, str, str], ...] = (
    (detectors.judge, "entity_keys", "entity keys"),
    (Dedupe, "screen", "dedupe"),
    (Columns, "__init__", "features"),
    (AnswerReader, "fill", "features"),
    (Columns, "stack", "rules"),
    (NameFinder, "find", "rules"),
    (RuleProgram, "fired", "rules"),
    (Columns, "named", "trees"),
    (HalfSpaceForest, "score_and_learn", "trees"),
    (detectors.judge, "rule_keep", "score"),
    (detectors.judge, "teaches", "score"),
    (detectors.judge, "combine", "score"),
    (EvidenceWriter, "build", "evidence"),
    (Pseudonyms, "columns", "pseudonyms"),
    (sinks.parquet, "verdict_table", "verdict table"),
    (pq, "write_table", "Parquet file"),
)


class _Case(NamedTuple):
    """How the work is cut: events a turn, and partitions that own entities."""

    batch: int
    owners: int

    @property
    def title(self) -> str:
        return f"{self.batch:,}" if self.owners == 1 else f"{self.batch:,}, {self.owners} owners"


class _Core:
    """One judge, the owners that it asks, its counts and its sinks: what a worker does without a broker."""

    def __init__(self, config: Config, ring: KeyRing, out: Path, *, owners: int) -> None:
        self._config = config
        self._judge = Judge(config, ring, partition=0, owners=owners, topics=1)
        self._shards = [
            Shard(owner, max_keys=config.memory.max_keys, lateness_ms=config.lateness_ms)
            for owner in range(owners)
        ]
        self._metrics = PartitionMetrics(config, ring, source=0, topics=1)
        self._parquet = ParquetSink(LocalStore(out), 0, key_fingerprint=ring.fingerprint)
        self._parquet.open()
        client: Any = _DeafRedis()
        self._redis = RedisSink(client, partition=0, key_fingerprint=ring.fingerprint)
        asyncio.run(self._redis.take_over(epoch=1))
        self._offset = 0

    def work(self, lines: Sequence[bytes], batch: int, watch: Stopwatch) -> None:
        """Judge a slice in batches, then let it out: one Parquet commit, one publication of the counts."""
        with watch.watching(*_INSIDE):
            turns = [self._turn(lines[first : first + batch], watch) for first in range(0, len(lines), batch)]
            watch.call("metrics: blocks", self._publish, turns[-1].turn)
            watch.call("Parquet commit", self._parquet.write, turns)
            watch.call("Redis calls", self._to_redis, turns)

    def _turn(self, values: Sequence[bytes], watch: Stopwatch) -> Verdicts:
        first, last = self._offset, self._offset + len(values)
        self._offset = last
        batch = watch.call(
            "decode",
            decode_json,
            values,
            topic=CLICKS,
            partition=0,
            start=first,
            next=last,
            offsets=np.arange(first, last),
        )
        inquiry = watch.call("ask: the rest", self._judge.ask, batch)
        answers = {owner: self._ask(owner, inquiry, watch) for owner in inquiry.questions}
        verdicts = watch.call("judge: the rest", self._judge.judge, inquiry, answers)
        watch.call("metrics: count", self._count, verdicts)
        return verdicts

    def _ask(self, owner: int, inquiry: Inquiry, watch: Stopwatch) -> Answers:
        plan = self._judge.plan

        def record() -> bytes:
            return encode_sightings(sightings_of(inquiry, owner, plan, topic=0, claim=bytes(16)))

        sightings = watch.call("sightings: decode", decode_sightings, watch.call("sightings: encode", record))
        answers = watch.call("shard", self._shards[owner].take, sightings, lambda _: plan)
        assert answers is not None
        packed = watch.call("answers: encode", encode_answers, answers)
        return watch.call("answers: decode", decode_answers, packed)

    def _count(self, verdicts: Verdicts) -> None:
        on_time = verdicts.late == 0
        self._metrics.update(
            verdicts.batch,
            verdicts.rows[on_time],
            verdicts.user_keys[on_time],
            verdicts.level[on_time],
            turn=verdicts.turn,
            watermark_ms=self._judge.watermark_ms,
        )

    def _publish(self, turn: int) -> int:
        return len(msgspec.msgpack.encode(self._metrics.changed_blocks(turn)))

    def _to_redis(self, turns: Sequence[Verdicts]) -> None:
        asyncio.run(self._redis.write(turns))


class _DeafRedis:
    """Takes every call and answers as Redis would: what is left is the making of the calls."""

    async def function_load(self, code: str, *, replace: bool) -> None:
        assert code
        assert replace

    async def fcall(
        self, function: str, keys: int, state: str, *arguments: str | bytes | int
    ) -> tuple[bytes, int]:
        assert keys == 1
        assert state
        if function == "woolwatch_take_over":
            return b"taken", int(arguments[1])
        return b"written", int(arguments[2])


def measure(
    config: Config, *, warm: int, repeats: int, slice_events: int, report: Callable[[str], None]
) -> list[Table]:
    """Parts by batch size; the sizes take turns, so that a noisy minute meets them all."""
    batches = [_Case(500, 1), _Case(5_000, 1), _Case(20_000, 1)]
    ring = KeyRing(bytes(range(32)))
    one = _measure(config, ring, batches, warm, repeats, slice_events, report)
    four = _measure(config, ring, [_Case(5_000, 4)], warm, repeats, slice_events, report)
    return [_table({**one, **four}, warm, repeats, slice_events)]


Repeat = dict[str, float]
"""Nanoseconds an event of each part that was called."""


def _measure(
    config: Config,
    ring: KeyRing,
    cases: Sequence[_Case],
    warm: int,
    repeats: int,
    slice_events: int,
    report: Callable[[str], None],
) -> dict[_Case, list[Repeat]]:
    report(f"parts: making {warm + repeats * len(cases) * slice_events:,} events")
    events = make_events(warm + repeats * len(cases) * slice_events)
    found: dict[_Case, list[Repeat]] = {case: [] for case in cases}
    with TemporaryDirectory(prefix="woolwatch-bench-") as folder:
        core = _Core(config, ring, Path(folder), owners=cases[0].owners)
        for first in range(0, warm, slice_events):
            size = cases[first // slice_events % len(cases)].batch
            core.work(events.lines(first, min(first + slice_events, warm)), size, Stopwatch())
        report(f"parts: state warm with {warm:,} events")
        rounds = itertools.product(range(repeats), cases)
        for number, (_, case) in enumerate(rounds):
            lines = events.lines(warm + number * slice_events, warm + (number + 1) * slice_events)
            watch = Stopwatch()
            watch.call(_LOADS, _loads_one_by_one, lines)
            core.work(lines, case.batch, watch)
            found[case].append({part: ns / slice_events for part, ns in watch.spent_ns.items()})
    return found


def _loads_one_by_one(lines: Sequence[bytes]) -> None:
    for line in lines:
        orjson.loads(line)


def _table(found: dict[_Case, list[Repeat]], warm: int, repeats: int, slice_events: int) -> Table:
    def row(name: str, value: Callable[[Repeat], float], digits: int = 0) -> list[str]:
        measured = [spread([value(repeat) for repeat in case]) for case in found.values()]
        return [name, *(values.text(digits) for values in measured)]

    return Table(
        title="Parts of the core, ns of CPU an event, by events a turn",
        head=["part", *(case.title for case in found)],
        rows=[
            *(row(part, partial(_part, part)) for part in PARTS),
            row("total", _total),
            row(_LOADS, lambda repeat: repeat[_LOADS]),
            row(f"total / {_LOADS}", lambda repeat: _total(repeat) / repeat[_LOADS], 2),
        ],
        notes=_notes(warm, repeats, slice_events),
    )


def _part(part: str, repeat: Repeat) -> float:
    return repeat.get(part, 0.0)


def _total(repeat: Repeat) -> float:
    return sum(ns for part, ns in repeat.items() if part != _LOADS)


def _notes(warm: int, repeats: int, slice_events: int) -> list[str]:
    measured = (
        f"Median [smallest..largest] of {repeats} repeats of {slice_events:,} new events each, on a state "
        f"that began warm with {warm:,}; CPU time of one thread."
    )
    clock = (
        f"Reading the clock costs {_clock_ns():,.0f} ns, twice for each part and turn; it is in the numbers."
    )
    return [measured, clock]


def _clock_ns(readings: int = 20_000) -> float:
    begin = thread_time_ns()
    for _ in range(readings):
        thread_time_ns()
    return (thread_time_ns() - begin) / readings

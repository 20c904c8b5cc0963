"""The owner of shared entities: a pure function from the sightings log to answers.

A shard takes the records of one sightings partition in the order of the log. Each row is answered with the
state just before it and applied then, so an answer is the same whoever computes it, and however the rows are
cut into turns. Nothing here knows a clock, a broker or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.plan import Plan
from detectors.questions import NO_OTHERS, Questions, arrange
from detectors.slabs import NEVER
from detectors.table_directory import Layout, TableDirectory
from schemas.errors import StateError
from schemas.sightings import Answers, Claim, Sightings

FORMAT = 1
"""Of snapshots."""
Plans = Callable[[bytes], Plan]


@dataclass(slots=True)
class Counters:
    """What a shard did since its state began; part of the state.

    Parameters
    ----------
    turns, rows
        Applied.
    repeats
        Turns that were applied before.
    voids
        Turns under another claim than the newest of their source.
    gaps
        Turns that did not begin where the one before ended, on the source's own partition, where no turn is
        left out: records were lost. (Other owners get only the turns that have rows for them.)
    overlaps
        Repeats that end behind what was applied: the judge cut its turns anew, which it must not; nobody will
        answer the rest of such a turn.
    """

    turns: int = 0
    rows: int = 0
    repeats: int = 0
    voids: int = 0
    gaps: int = 0
    overlaps: int = 0


class Shard:
    """The state of the entities of one owner partition.

    Parameters
    ----------
    owner
        Number of the partition.
    max_keys
        Bound of entities in each state table (detectors.entity_table says what they cost).
    lateness_ms
        How far an event in time may lie behind its source's largest time.
    """

    def __init__(self, owner: int, *, max_keys: int, lateness_ms: int) -> None:
        self.owner = owner
        self.counters = Counters()
        self._directory = TableDirectory(max_keys=max_keys, lateness_ms=lateness_ms)
        self._layouts: dict[bytes, Layout] = {}
        self._claims: dict[int, bytes] = {}
        self._configs: dict[int, bytes] = {}
        self._applied: dict[tuple[int, int], int] = {}
        self._max_ts_ms: dict[tuple[int, int], int] = {}

    def take(self, record: Sightings | Claim, plans: Plans) -> Answers | None:
        """Take the next record of the log.

        Parameters
        ----------
        record
            A turn or a claim.
        plans
            Gives the plan of a config by its hash. Asked when a source turns to a config, and again after a
            restore or when tables changed; never for a record that is not applied. A dictionary's
            ``__getitem__`` will do.

        Returns
        -------
        Answers | None
            For each row and each feature of its kind, the value before the row. None for a claim; for a turn
            under an older claim, or that was applied before (its answer is in the log or will be); for a turn
            without rows, unless the owner is the source itself: there the empty answer is the judge's
            receipt.

        Raises
        ------
        StateError
            The record does not fit its config, or ``plans`` gave another one. The shard must not be used any
            more. Whatever else ``plans`` raises changes nothing: take the record again.
        """
        if isinstance(record, Claim):
            self._claims[record.source] = record.claim
            return None
        if not self._is_due(record):
            return None
        layout = self._layouts.get(record.config)
        if layout is None or self._configs.get(record.source) != record.config:
            layout = self._turn_to(record.source, record.config, plans)
        self._note_applied(record)
        questions = self._arrange(record, layout)
        values = np.empty(questions.answers, np.int64)
        for feed in layout.feeds:
            first, stop = questions.edges[feed.kind], questions.edges[feed.kind + 1]
            if first < stop:
                feed.served.table.apply(
                    questions, first, stop, argument=feed.argument, asked=feed.asked, answers=values
                )
        rows = len(questions.rows)
        self.counters.turns += 1
        self.counters.rows += rows
        if not rows and record.source != self.owner:
            return None
        return Answers(
            topic=record.topic,
            source=record.source,
            owner=self.owner,
            turn=record.turn,
            start=record.start,
            next=record.next,
            rows=rows,
            values=values,
        )

    def applied(self, topic: int, source: int) -> int | None:
        """Offset behind the last turn of a source that was applied; None: none was."""
        return self._applied.get((topic, source))

    def born(self) -> dict[str, int | None]:
        """Since when each definition counts: time in ms of the first event it could see; None: none yet."""
        return {
            definition: served.born_ms
            for served in self._directory.tables
            for definition in served.definitions
        }

    @property
    def keys(self) -> int:
        """Entities held, summed over the tables."""
        return sum(served.table.keys for served in self._directory.tables)

    @property
    def evicted(self) -> int:
        """Entities that the tables forgot to make room for others."""
        return sum(served.table.evicted for served in self._directory.tables)

    @property
    def coarsened(self) -> int:
        """How often the members of an entity were halved."""
        return sum(served.table.coarsened for served in self._directory.tables)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(served.table.nbytes for served in self._directory.tables)

    def snapshot(self) -> dict[str, NDArray[np.generic] | bytes]:
        """Copies of all that later answers depend on: flat arrays, and ``directory``, a JSON object."""
        entries, arrays = self._directory.snapshot()
        directory = {
            "format": FORMAT,
            "owner": self.owner,
            "counters": asdict(self.counters),
            "claims": [(source, claim.hex()) for source, claim in self._claims.items()],
            "sources": [(source, config.hex()) for source, config in self._configs.items()],
            "applied": list(self._applied.items()),
            "max_ts_ms": list(self._max_ts_ms.items()),
            **entries,
        }
        return {"directory": orjson.dumps(directory), **arrays}

    def restore(self, state: Mapping[str, NDArray[np.generic] | bytes]) -> None:
        """Take up a snapshot; no later answer shows that it was made.

        ``max_keys`` and ``lateness_ms`` stay those of this shard: a changed setting holds from here on.

        Raises
        ------
        StateError
            The snapshot is of another format or of another owner.
        """
        directory = orjson.loads(bytes(state["directory"]))
        if (directory["format"], directory["owner"]) != (FORMAT, self.owner):
            raise StateError(
                f"a snapshot of format {directory['format']} and owner {directory['owner']}; "
                f"expected format {FORMAT} and owner {self.owner}"
            )
        self.counters = Counters(**directory["counters"])
        self._claims = {source: bytes.fromhex(claim) for source, claim in directory["claims"]}
        self._configs = {source: bytes.fromhex(config) for source, config in directory["sources"]}
        self._applied = {(topic, source): offset for (topic, source), offset in directory["applied"]}
        self._max_ts_ms = {(topic, source): ts_ms for (topic, source), ts_ms in directory["max_ts_ms"]}
        self._directory.restore(directory, state)
        self._layouts = {}

    def _is_due(self, turn: Sightings) -> bool:
        """Whether a turn is to be applied; counts why not."""
        counters = self.counters
        if self._claims.get(turn.source, turn.claim) != turn.claim:
            counters.voids += 1
            return False
        applied = self._applied_up_to(turn)
        if turn.start < applied:
            counters.repeats += 1
            counters.overlaps += turn.next > applied
            return False
        return True

    def _note_applied(self, turn: Sightings) -> None:
        self.counters.gaps += turn.start > self._applied_up_to(turn) and turn.source == self.owner
        self._applied[turn.topic, turn.source] = turn.next

    def _applied_up_to(self, turn: Sightings) -> int:
        """The offset behind the source's last turn; where it begins with this one, this one's own."""
        return self._applied.get((turn.topic, turn.source), turn.start)

    def _turn_to(self, source: int, config: bytes, plans: Plans) -> Layout:
        """The layout of a config. Where the source turns to it just now, tables are made and others go."""
        plan = plans(config)
        if plan.config != config:
            raise StateError(f"the plan of config {plan.config.hex()} was given; expected {config.hex()}")
        if self._configs.get(source) != config:
            self._configs[source] = config
            self._directory.turn_to(plan, self._configs.values())
            self._layouts = {}
        layout = self._layouts[config] = self._directory.lay_out(plan)
        return layout

    def _arrange(self, turn: Sightings, layout: Layout) -> Questions:
        """Arrange a turn's rows; note its source's largest time and the births of tables."""
        source = (turn.topic, turn.source)
        questions = arrange(
            turn,
            widths=layout.widths,
            names=layout.names,
            members=layout.members,
            max_ts_ms=self._max_ts_ms.get(source, NEVER),
            others_max_ts_ms=min(
                (ts_ms for other, ts_ms in self._max_ts_ms.items() if other != source), default=NO_OTHERS
            ),
        )
        if questions.max_ts_ms != NEVER:
            self._max_ts_ms[source] = questions.max_ts_ms
        if len(turn.ts_ms):
            for feed in layout.feeds:
                if feed.served.born_ms is None:
                    feed.served.born_ms = int(turn.ts_ms[0])
        return questions

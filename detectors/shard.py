"""The owner of shared entities: a pure function from the sightings log to answers.

A shard takes the records of one sightings partition in the order of the log. Each row is answered with the state just
before it and applied then, so an answer is the same whoever computes it, and however the rows are cut into turns.
Nothing here knows a clock, a broker or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.entity_kernels import ANY, EVER
from detectors.entity_table import EntityTable
from detectors.plan import ANY_NAME, Op, Plan, StateFeature
from detectors.questions import NO_OTHERS, Questions, arrange
from detectors.slabs import NEVER
from schemas.errors import StateError
from schemas.sightings import Answers, Claim, Sightings

FORMAT = 1
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
        Turns that did not begin where the one before ended, on the source's own partition, where no turn is left out:
        records were lost.
    overlaps
        Turns that began before and ended behind what was applied: the judge cut its turns anew, which it must not.
        Such a turn is a repeat too, and nobody will answer the rest of it.
    """

    turns: int = 0
    rows: int = 0
    repeats: int = 0
    voids: int = 0
    gaps: int = 0
    overlaps: int = 0


@dataclass(slots=True)
class _Served:
    """One table and what it serves: (entity, op, argument) and the definitions that share it since ``born_ms``."""

    entity: str
    op: Op
    argument: str
    definitions: list[str]
    longest_window_ms: int | None
    timed: bool
    table: EntityTable
    born_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Feed:
    """How turns under one config use one table."""

    table: EntityTable
    kind: int
    argument: int
    asked: NDArray[np.int64]


@dataclass(slots=True)
class _Layout:
    """One config over the tables that there are now."""

    widths: NDArray[np.int64]
    names: int
    members: int
    feeds: list[_Feed]
    unborn: list[_Served]


@dataclass(slots=True)
class _Source:
    """What is known of one judge partition."""

    claim: bytes | None = None
    config: bytes | None = None
    applied: dict[int, int] = field(default_factory=dict)
    max_ts_ms: dict[int, int] = field(default_factory=dict)


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
        self._max_keys, self._lateness_ms = max_keys, lateness_ms
        self._sources: dict[int, _Source] = {}
        self._needs: dict[bytes, frozenset[str]] = {}
        self._tables: list[_Served] = []
        self._layouts: dict[bytes, _Layout] = {}

    def take(self, record: Sightings | Claim, plans: Plans) -> Answers | None:
        """Take the next record of the log.

        Parameters
        ----------
        record
            A turn or a claim.
        plans
            Gives the plan of a config by its hash; asked when a source turns to a config, and again after a restore or
            when the tables changed, never for a record that is not applied. A dictionary's ``__getitem__`` will do.

        Returns
        -------
        Answers | None
            For each row and each of its kind's features, the value before the row. None: a claim; a turn under an
            older claim, or that was applied before (its answer is or will be in the log); a turn without rows, unless
            the owner is the source itself: there its empty answer is the judge's receipt.

        Raises
        ------
        StateError
            The record does not fit its config, or ``plans`` gave another one. The shard must not be used any more.
        """
        source = self._sources.setdefault(record.source, _Source())
        if isinstance(record, Claim):
            source.claim = record.claim
            return None
        if not self._is_due(record, source):
            return None
        layout = self._layouts.get(record.config)
        if layout is None or source.config != record.config:
            layout = self._turn_to(source, record.config, plans)
        questions = self._arrange(record, source, layout)
        answers = np.empty(questions.answers, np.int64)
        for feed in layout.feeds:
            first, stop = questions.edges[feed.kind], questions.edges[feed.kind + 1]
            if first < stop:
                feed.table.apply(
                    questions, first, stop, argument=feed.argument, asked=feed.asked, answers=answers
                )
        self.counters.turns += 1
        self.counters.rows += len(questions.rows)
        if not len(questions.rows) and record.source != self.owner:
            return None
        return Answers(
            topic=record.topic,
            source=record.source,
            owner=self.owner,
            turn=record.turn,
            start=record.start,
            next=record.next,
            rows=len(questions.rows),
            values=answers,
        )

    def applied(self, topic: int, source: int) -> int | None:
        """Offset behind the last turn of a source that was applied; None: none was."""
        known = self._sources.get(source)
        return known.applied.get(topic) if known else None

    def born(self) -> dict[str, int | None]:
        """Since when each definition counts: time in ms of the first event that it could see; None: none yet."""
        return {definition: served.born_ms for served in self._tables for definition in served.definitions}

    @property
    def keys(self) -> int:
        """Entities held, in all tables."""
        return sum(served.table.keys for served in self._tables)

    @property
    def evicted(self) -> int:
        """Entities that tables forgot to make room for others; those of dropped definitions are not counted."""
        return sum(served.table.evicted for served in self._tables)

    @property
    def coarsened(self) -> int:
        """How often the members of an entity were halved, in all tables."""
        return sum(served.table.coarsened for served in self._tables)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(served.table.nbytes for served in self._tables)

    # -- state ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, NDArray[np.generic] | bytes]:
        """Copies of everything that later answers depend on: flat arrays, and ``directory``, a JSON object.

        Cost: one copy of what is held, about 0.2 ms a megabyte.
        """
        state: dict[str, NDArray[np.generic] | bytes] = {"directory": orjson.dumps(self._directory())}
        for number, served in enumerate(self._tables):
            for name, array in served.table.snapshot().items():
                state[f"tables/{number}/{name}"] = array
        return state

    def restore(self, state: dict[str, NDArray[np.generic] | bytes]) -> None:
        """Take up a snapshot; no later answer shows that it was made.

        ``max_keys`` and ``lateness_ms`` stay those of this shard, so a changed setting holds from here on.

        Raises
        ------
        StateError
            The snapshot is of another format or of another owner.
        """
        directory = orjson.loads(bytes(state["directory"]))
        if directory["format"] != FORMAT or directory["owner"] != self.owner:
            raise StateError(
                f"a snapshot of format {directory['format']} of owner {directory['owner']}; "
                f"expected format {FORMAT} of owner {self.owner}"
            )
        self.counters = Counters(**directory["counters"])
        self._sources = {entry["source"]: _source_from(entry) for entry in directory["sources"]}
        self._needs = {
            bytes.fromhex(config): frozenset(needs) for config, needs in directory["configs"].items()
        }
        self._layouts = {}
        self._tables = []
        for number, entry in enumerate(directory["tables"]):
            entry["op"] = Op(entry["op"])
            served = _Served(**entry, table=self._make_table(entry["op"], entry["longest_window_ms"], entry["timed"]))
            arrays = {name: np.asarray(state[f"tables/{number}/{name}"]) for name in ("arena", "lines", "meta")}
            served.table.restore(**arrays)
            self._tables.append(served)

    def _directory(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "owner": self.owner,
            "counters": asdict(self.counters),
            "sources": [_source_entry(number, source) for number, source in self._sources.items()],
            "configs": {config.hex(): sorted(needs) for config, needs in self._needs.items()},
            "tables": [
                {
                    "entity": served.entity,
                    "op": int(served.op),
                    "argument": served.argument,
                    "definitions": served.definitions,
                    "longest_window_ms": served.longest_window_ms,
                    "timed": served.timed,
                    "born_ms": served.born_ms,
                }
                for served in self._tables
            ],
        }

    # -- one turn ------------------------------------------------------------------------------------------------

    def _is_due(self, turn: Sightings, source: _Source) -> bool:
        """Whether a turn is to be applied; counts why not, and remembers that it is."""
        counters = self.counters
        if source.claim is not None and source.claim != turn.claim:
            counters.voids += 1
            return False
        applied = source.applied.get(turn.topic, turn.start)
        if turn.start < applied:
            counters.repeats += 1
            counters.overlaps += turn.next > applied
            return False
        # Another owner's turns have holes by nature: a turn without rows for it is not sent to it.
        counters.gaps += turn.start > applied and turn.source == self.owner
        source.applied[turn.topic] = turn.next
        return True

    def _arrange(self, turn: Sightings, source: _Source, layout: _Layout) -> Questions:
        before = source.max_ts_ms.get(turn.topic, NEVER)
        others = min(
            (
                max_ts_ms
                for other in self._sources.values()
                for topic, max_ts_ms in other.max_ts_ms.items()
                if not (other is source and topic == turn.topic)
            ),
            default=NO_OTHERS,
        )
        questions = arrange(
            turn,
            widths=layout.widths,
            names=layout.names,
            members=layout.members,
            max_ts_ms=before,
            others_max_ts_ms=others,
        )
        if questions.max_ts_ms != NEVER:
            source.max_ts_ms[turn.topic] = questions.max_ts_ms
        if layout.unborn and len(turn.ts_ms):
            for served in layout.unborn:
                served.born_ms = int(turn.ts_ms[0])
            for known in self._layouts.values():
                known.unborn = [served for served in known.unborn if served.born_ms is None]
        return questions

    # -- configs -------------------------------------------------------------------------------------------------

    def _turn_to(self, source: _Source, config: bytes, plans: Plans) -> _Layout:
        """Arrange the tables for a config; new ones where the source has turned to it just now."""
        plan = plans(config)
        if plan.config != config:
            raise StateError(f"the plan of config {plan.config.hex()} was given; expected {config.hex()}")
        if source.config != config:
            source.config = config
            self._needs[config] = frozenset(feature.definition for feature in plan.features)
            used = {known.config for known in self._sources.values()}
            self._needs = {known: needs for known, needs in self._needs.items() if known in used}
            self._keep_tables(frozenset().union(*self._needs.values()))
            self._add_tables(plan)
            self._layouts = {}
        layout = self._layouts[config] = self._lay_out(plan)
        return layout

    def _keep_tables(self, needed: frozenset[str]) -> None:
        """Drop definitions that no source's latest config needs, and tables that serve none any more."""
        for served in self._tables:
            served.definitions = [definition for definition in served.definitions if definition in needed]
        self._tables = [served for served in self._tables if served.definitions]

    def _add_tables(self, plan: Plan) -> None:
        """Give definitions that are not served yet a table: one for all of the same entity, op and argument."""
        served = {definition for table in self._tables for definition in table.definitions}
        new: dict[tuple[str, Op, str], list[StateFeature]] = {}
        for feature in plan.features:
            if feature.definition not in served:
                new.setdefault((feature.entity, feature.op, feature.argument), []).append(feature)
        for (entity, op, argument), features in new.items():
            windows = [feature.window_ms for feature in features if feature.window_ms is not None]
            # A count since ever is a counter and needs no times; distinct members since ever must all be kept.
            keeps_all = op is Op.DISTINCT and len(windows) < len(features)
            longest_window_ms = None if keeps_all else max(windows, default=None)
            self._tables.append(
                _Served(
                    entity=entity,
                    op=op,
                    argument=argument,
                    definitions=list(dict.fromkeys(feature.definition for feature in features)),
                    longest_window_ms=longest_window_ms,
                    timed=bool(windows),
                    table=self._make_table(op, longest_window_ms, bool(windows)),
                )
            )

    def _make_table(self, op: Op, longest_window_ms: int | None, timed: bool) -> EntityTable:
        return EntityTable(
            op,
            max_keys=self._max_keys,
            longest_window_ms=longest_window_ms,
            lateness_ms=self._lateness_ms,
            timed=timed,
        )

    def _lay_out(self, plan: Plan) -> _Layout:
        """Which tables the rows of a config feed: all whose entity and argument it knows, asked or not."""
        feeds, unborn = [], []
        for served in self._tables:
            argument = _argument(served, plan)
            if served.entity in plan.kinds and argument is not None:
                kind = plan.kinds.index(served.entity)
                feeds.append(_Feed(served.table, kind, argument, _asked(served.definitions, plan, kind)))
                if served.born_ms is None:
                    unborn.append(served)
        return _Layout(
            widths=np.array([len(features) for features in plan.features_of_kind], np.int64),
            names=len(plan.names),
            members=len(plan.members),
            feeds=feeds,
            unborn=unborn,
        )


def _argument(served: _Served, plan: Plan) -> int | None:
    """The number of a table's argument under a plan; None where the plan does not carry it."""
    if served.op is not Op.DISTINCT and served.argument == ANY_NAME:
        return ANY
    known = plan.members if served.op is Op.DISTINCT else plan.names
    return known.index(served.argument) if served.argument in known else None


def _asked(definitions: Iterable[str], plan: Plan, kind: int) -> NDArray[np.int64]:
    """The features of a kind that a table with these definitions answers, as kernels read them."""
    served = set(definitions)
    asked = [
        (slot, EVER if feature.window_ms is None else feature.window_ms, feature.exclude_self)
        for slot, feature in enumerate(plan.features[i] for i in plan.features_of_kind[kind])
        if feature.definition in served
    ]
    return np.array(asked, np.int64).reshape(len(asked), 3)


def _source_entry(number: int, source: _Source) -> dict[str, object]:
    return {
        "source": number,
        "claim": source.claim.hex() if source.claim is not None else None,
        "config": source.config.hex() if source.config is not None else None,
        "applied": list(source.applied.items()),
        "max_ts_ms": list(source.max_ts_ms.items()),
    }


def _source_from(entry: dict[str, object]) -> _Source:
    claim, config = entry["claim"], entry["config"]
    return _Source(
        claim=bytes.fromhex(str(claim)) if claim is not None else None,
        config=bytes.fromhex(str(config)) if config is not None else None,
        applied={topic: offset for topic, offset in entry["applied"]},
        max_ts_ms={topic: ts_ms for topic, ts_ms in entry["max_ts_ms"]},
    )

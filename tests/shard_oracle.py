"""A second method for what a shard answers: dictionaries and lists, one event after the other.

It knows neither slabs nor eviction nor sampling: it is exact, so it is compared with where a shard must be.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from detectors.plan import ANY_NAME, Op, Plan, StateFeature
from schemas.sightings import LOOK_ONLY, NO_NAME, NULL_ANSWER, Sightings

HOUR_MS = 3_600_000
START_MS = 1_760_000_000_000
CLAIM = b"claim".ljust(16)


@dataclass(frozen=True)
class Event:
    """One event: keyed hashes of its entities and members by kind; absent ones are not there."""

    ts_ms: int
    name: str
    entities: dict[str, int]
    members: dict[str, int]
    look: bool = False


def feature(
    entity: str, op: Op, argument: str, window_ms: int | None = None, *, exclude_self: bool = False
) -> StateFeature:
    """A feature named by what it counts."""
    definition = f"{entity} {op.name} {argument} {window_ms} {exclude_self}"
    return StateFeature(
        name=definition,
        column=0,
        definition=definition,
        entity=entity,
        op=op,
        argument=argument,
        window_ms=window_ms,
        exclude_self=exclude_self,
    )


def plan_of(features: Sequence[StateFeature], config: int = 1) -> Plan:
    """A plan as detectors.plan.make_plan arranges it, without a config."""
    kinds = tuple(dict.fromkeys(f.entity for f in features))
    timed = [f for f in features if f.op is not Op.DISTINCT and f.argument != ANY_NAME]
    return Plan(
        config=config.to_bytes(16, "big"),
        kinds=kinds,
        members=tuple(dict.fromkeys(f.argument for f in features if f.op is Op.DISTINCT)),
        names=tuple(dict.fromkeys(f.argument for f in timed)),
        features=tuple(features),
        features_of_kind=tuple(
            tuple(i for i, f in enumerate(features) if f.entity == kind) for kind in kinds
        ),
    )


def turn_of(
    events: Sequence[Event],
    plan: Plan,
    *,
    start: int = 0,
    topic: int = 0,
    source: int = 0,
    owner: int = 0,
    owners: int = 1,
    turn: int = 0,
    claim: bytes = CLAIM,
) -> Sightings:
    """The record of these events for one owner: the rows whose entity is the owner's, and all events."""
    rows = [
        (number, kind, entity)
        for number, event in enumerate(events)
        for kind, name in enumerate(plan.kinds)
        if (entity := event.entities.get(name, 0)) and owner_of(entity, owners) == owner
    ]
    return Sightings(
        topic=topic,
        source=source,
        owner=owner,
        turn=turn,
        start=start,
        next=start + len(events),
        claim=claim,
        config=plan.config,
        models=(),
        offset=np.arange(len(events), dtype=np.uint32),
        ts_ms=np.array([event.ts_ms for event in events], np.int64),
        name=np.array(
            [plan.names.index(e.name) if e.name in plan.names else NO_NAME for e in events], np.uint16
        ),
        flags=np.array([LOOK_ONLY if event.look else 0 for event in events], np.uint8),
        members=np.array(
            [[event.members.get(kind, 0) for event in events] for kind in plan.members], np.uint64
        ).reshape(len(plan.members), len(events)),
        event=np.array([row[0] for row in rows], np.uint32),
        kind=np.array([row[1] for row in rows], np.uint8),
        entity=np.array([row[2] for row in rows], np.uint64),
    )


def owner_of(entity: int, owners: int) -> int:
    """Which owner has an entity."""
    return (entity >> 40) % owners


@dataclass
class _Held:
    """What is remembered for one definition, by entity: the latest time of each member, or all times."""

    members: defaultdict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    times: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Oracle:
    """Exact answers for any number of owners at once."""

    plans: dict[int, Plan] = field(default_factory=dict)
    features: dict[str, StateFeature] = field(default_factory=dict)
    held: dict[str, _Held] = field(default_factory=dict)

    def take(self, events: Iterable[Event], plan: Plan, source: int = 0) -> list[list[int]]:
        """Answers to each (event, kind) in record order, a list of answers each."""
        if self.plans.get(source) != plan:
            self.plans[source] = plan
            self.features = {f.definition: f for known in self.plans.values() for f in known.features}
            self.held = {name: self.held.get(name, _Held()) for name in self.features}
        return [answer for event in events for answer in self._one(event, plan)]

    def _one(self, event: Event, plan: Plan) -> list[list[int]]:
        asked = [
            [self._answer(plan.features[i], event) for i in plan.features_of_kind[kind]]
            for kind, name in enumerate(plan.kinds)
            if event.entities.get(name)
        ]
        if not event.look:
            for known in self.features.values():
                self._apply(known, event, plan)
        return asked

    def _answer(self, f: StateFeature, event: Event) -> int:
        since = -(1 << 62) if f.window_ms is None else event.ts_ms - f.window_ms
        held, entity = self.held[f.definition], event.entities[f.entity]
        if f.op is Op.SINCE:
            latest = max(held.times[entity], default=None)
            return NULL_ANSWER if latest is None else (event.ts_ms - latest) * 2
        if f.op is Op.COUNT:
            return 2 * sum(ts_ms >= since for ts_ms in held.times[entity])
        own = event.members.get(f.argument) if f.exclude_self else None
        return 2 * sum(ts_ms >= since for member, ts_ms in held.members[entity].items() if member != own)

    def _apply(self, f: StateFeature, event: Event, plan: Plan) -> None:
        entity = event.entities.get(f.entity)
        if not entity or f.entity not in plan.kinds:
            return
        held = self.held[f.definition]
        if f.op is Op.DISTINCT:
            member = event.members.get(f.argument)
            if member and f.argument in plan.members:
                times = held.members[entity]
                times[member] = max(times.get(member, event.ts_ms), event.ts_ms)
        elif f.argument == ANY_NAME or (f.argument == event.name and event.name in plan.names):
            held.times[entity].append(event.ts_ms)


def some_events(
    count: int, seed: int, *, step_ms: int = 4_000, disorder_ms: int = 3 * HOUR_MS
) -> list[Event]:
    """Events of busy and quiet entities, hours out of order, some late, some without entity or member."""
    draw = random.Random(seed)

    def hashed(kind: int, number: int) -> int:
        return (number * 2_654_435_761 + kind + 1) * 0x9E3779B97F4A7C15 % 2**64 or 1

    events = []
    for i in range(count):
        user = int(draw.random() ** 2 * count / 5)
        # A few devices and addresses are shared by very many users.
        device = user // 2 if draw.random() < 0.7 else int(draw.expovariate(0.2))
        address = int(draw.expovariate(0.02)) if draw.random() < 0.5 else user % 97
        entities = {"device": hashed(0, device), "ip": hashed(1, address), "user": hashed(2, user)}
        members = {"user": hashed(2, user), "device": hashed(0, device)}
        if draw.random() < 0.1:
            del entities["device"], members["device"]
        if draw.random() < 0.05:
            del members["user"]
        events.append(
            Event(
                ts_ms=START_MS + i * step_ms - int(draw.random() ** 3 * disorder_ms),
                name=draw.choice(["view", "view", "click", "participate", "signup", "other"]),
                entities=entities,
                members=members,
                look=draw.random() < 0.07,
            )
        )
    return events


def in_parts(events: Sequence[Event], size: int) -> list[tuple[int, Sequence[Event]]]:
    """Events cut into turns: (start, events)."""
    return [(start, events[start : start + size]) for start in range(0, len(events), size)]


def renamed(f: StateFeature, name: str) -> StateFeature:
    """The same definition under another name."""
    return replace(f, name=name)

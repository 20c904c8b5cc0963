"""What the features of a config need: which entities are asked about, what is counted of each, who answers what.

The plan numbers kinds, members and names; these numbers stand in sightings records beside the config's hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from schemas.config import Config, Feature
from schemas.sightings import HEADS_BYTES, bytes_of_event


class Op(IntEnum):
    """What a state feature does with the events of its entity."""

    DISTINCT = 0
    COUNT = 1
    SINCE = 2


ANY_NAME = "*"


@dataclass(frozen=True, slots=True)
class StateFeature:
    """One feature that is answered from the state of an entity.

    Parameters
    ----------
    name
        The config's name for it, without ``f_``.
    column
        Its place among all features of the config.
    definition
        What it counts, as a string: features of equal definition share state whatever they are called.
    entity
        Kind of the entity.
    op
        What is done.
    argument
        DISTINCT: the kind of what is counted; COUNT and SINCE: the event's name (``*`` counts every event).
    window_ms
        Length of the window; None: ever.
    exclude_self
        DISTINCT: the event's own value does not count.
    """

    name: str
    column: int
    definition: str
    entity: str
    op: Op
    argument: str
    window_ms: int | None
    exclude_self: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The features of one config, arranged for the owners of entities.

    Parameters
    ----------
    config
        Hash of the config, 16 bytes.
    kinds
        Entity kinds that are asked about; a sighting's ``kind`` is an index into it.
    members
        Kinds whose values are counted as distinct.
    names
        Event names that are counted or timed.
    features
        State features, in config order.
    features_of_kind
        For each kind, indexes into ``features`` in the order of the answers.
    """

    config: bytes
    kinds: tuple[str, ...]
    members: tuple[str, ...]
    names: tuple[str, ...]
    features: tuple[StateFeature, ...]
    features_of_kind: tuple[tuple[int, ...], ...]

    def most_events(self, record_bytes: int) -> int:
        """How many events a turn may have, at least 1: no record of it becomes larger, whatever its events are."""
        event_bytes = bytes_of_event(
            members=len(self.members), kinds=len(self.kinds), features=len(self.features)
        )
        return max(1, (record_bytes - HEADS_BYTES) // event_bytes)


def make_plan(config: Config) -> Plan:
    """Arrange the state features of a config."""
    features = tuple(
        _state_feature(name, column, feature)
        for column, (name, feature) in enumerate(config.features.items())
        if feature.entity is not None
    )
    kinds = _unique(feature.entity for feature in features)
    return Plan(
        config=bytes.fromhex(config.hash),
        kinds=kinds,
        members=_unique(f.argument for f in features if f.op is Op.DISTINCT),
        names=_unique(f.argument for f in features if f.op is not Op.DISTINCT and f.argument != ANY_NAME),
        features=features,
        features_of_kind=tuple(
            tuple(i for i, feature in enumerate(features) if feature.entity == kind) for kind in kinds
        ),
    )


def _state_feature(name: str, column: int, feature: Feature) -> StateFeature:
    op = Op[feature.kind.upper()]
    return StateFeature(
        name=name,
        column=column,
        definition=feature.definition(),
        entity=feature.entity or "",
        op=op,
        argument=getattr(feature, feature.kind),
        window_ms=feature.window_ms,
        exclude_self=feature.exclude_self,
    )


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))

"""What ties flagged accounts together: the shared entity of the reason that says most against them.

An event may have several reasons. It counts in one incident alone, or a ring of one device would be told once for
each rule that it breaks: that of its heaviest reason whose rule looks at an entity that users share and the event
has; if there is none, that of its heaviest reason, which then holds all such events of the campaign.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.config import Config, ListSource
from schemas.rule_tree import InputKind, inputs_of

MODEL_PREFIX = "model:"
_OF_ONE_PERSON = frozenset(("user_id", "session_id", "event_id"))
_PSEUDONYM_KINDS = {"device_id": "device", "ip": "ip", "inviter_id": "user"}


@dataclass(frozen=True, slots=True)
class Tie:
    """One reason: its code, the entity that its rule looks at (None: none that users share), its weight."""

    name: str
    entity: str | None
    weight: float


def ties_of(config: Config) -> tuple[Tie, ...]:
    """The reasons of a config, those that say most first; of equal weight in the order of the config."""
    ties = [Tie(name, _shared(source.entity), _weight(source)) for name, source in config.lists.items()]
    ties += [Tie(name, _entity_of_rule(config, name), rule.weight) for name, rule in config.rules.items()]
    ties += [Tie(MODEL_PREFIX + name, None, model.weight) for name, model in config.models.items()]
    return tuple(sorted(ties, key=lambda tie: -tie.weight))


def pseudonym_kind(entity: str) -> str:
    """The kind under which values of an entity get their pseudonym, the same as in the tables where they show it."""
    return _PSEUDONYM_KINDS.get(entity, entity)


def _weight(source: ListSource) -> float:
    return 1.0 if source.kind == "black" else source.weight


def _entity_of_rule(config: Config, name: str) -> str | None:
    """The first shared entity in the rule's condition."""
    condition = config.parsed(config.rules[name]).condition
    used = [config.features[part.name] for part in inputs_of(condition) if part.kind is InputKind.FEATURE]
    return next((entity for feature in used if (entity := _shared(feature.entity)) is not None), None)


def _shared(entity: str | None) -> str | None:
    return None if entity in _OF_ONE_PERSON else entity

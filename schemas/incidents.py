"""What a judge partition knows of an incident: absolute counts, as a block for the rollup.

An *incident* is a reason, what ties the accounts together (a device, an address; or nothing but the reason), a
campaign, and a period of event time: [start, start + period). It follows from each flagged event alone, so nothing
that partitions, batches or crashes decide can split one incident or join two.
"""

from __future__ import annotations

import msgspec

from schemas.errors import StateError
from schemas.partials import Block, BlockKey

INCIDENTS = "incidents"
"""The metric of these blocks."""
UNTIED = "all"
"""The dimension of an incident that no shared entity ties together."""
REST = "rest"
"""The dimension of everything beyond the number of incidents that a partition holds apart."""
MOST_ACCOUNTS_SHOWN = 8


class Incident(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which incident: ``name`` is the reason code, ``dim_value`` a pseudonym (None without an entity)."""

    name: str
    dim: str
    dim_value: str | None
    campaign: str | None
    start_ms: int
    period_ms: int

    @property
    def end_ms(self) -> int:
        """Event time at which its period ends."""
        return self.start_ms + self.period_ms


class IncidentCounts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one partition, or all of them together, counted of one incident.

    Parameters
    ----------
    events, users
        Flagged events, and the accounts they are of; a partition counts at most 1,024 accounts apart.
    review, block
        How many of the events were judged so.
    costing, cost_minor
        Events that cost the campaign something, and what they cost together.
    first_ms, last_ms
        Lowest and highest event time.
    raised_ms
        Event time of the event with which there were enough accounts and events; None: not yet.
    accounts
        Pseudonyms of the first few accounts.
    reasons
        How many of the events had each reason code, ascending by code.
    config_hash
        Of the config that judged the last of them.
    over
        Nothing more is to come: the period and the lateness are past.
    """

    events: int
    users: int
    review: int
    block: int
    costing: int
    cost_minor: int
    first_ms: int
    last_ms: int
    raised_ms: int | None
    accounts: tuple[str, ...]
    reasons: tuple[tuple[str, int], ...]
    config_hash: str
    over: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(IncidentCounts)
_scope_decoder = msgspec.json.Decoder(tuple[str, str | None, int])


def incident_block(incident: Incident, counts: IncidentCounts, *, source: int, turn: int) -> Block:
    """Pack what one partition counted."""
    scope = msgspec.json.encode((incident.dim, incident.dim_value, incident.period_ms)).decode()
    key = BlockKey(INCIDENTS, incident.name, "", incident.start_ms, scope, incident.campaign)
    return Block(key, source, turn, _encoder.encode(counts))


def incident_of(key: BlockKey) -> Incident:
    """Which incident a block is about.

    Raises
    ------
    StateError
        The block is about something else.
    """
    try:
        dim, dim_value, period_ms = _scope_decoder.decode(key.scope)
    except msgspec.DecodeError as error:
        raise StateError(f"a block of {key.metric} is no incident: {error}") from error
    return Incident(key.name, dim, dim_value, key.campaign, key.start_ms or 0, period_ms)


def counts_of(block: Block) -> IncidentCounts:
    """Unpack the counts of a block.

    Raises
    ------
    StateError
        The bytes are something else.
    """
    try:
        return _decoder.decode(block.rows)
    except msgspec.DecodeError as error:
        raise StateError(f"a block of {block.key.name} holds no counts of an incident: {error}") from error


def added(parts: list[IncidentCounts]) -> IncidentCounts:
    """The counts of all partitions together; a user is in one partition, so accounts add up.

    Parameters
    ----------
    parts
        At least one, by ascending source.
    """
    reasons: dict[str, int] = {}
    for name, count in (pair for part in parts for pair in part.reasons):
        reasons[name] = reasons.get(name, 0) + count
    accounts = [account for part in parts for account in part.accounts]
    raised = [part.raised_ms for part in parts if part.raised_ms is not None]
    return IncidentCounts(
        events=sum(part.events for part in parts),
        users=sum(part.users for part in parts),
        review=sum(part.review for part in parts),
        block=sum(part.block for part in parts),
        costing=sum(part.costing for part in parts),
        cost_minor=sum(part.cost_minor for part in parts),
        first_ms=min(part.first_ms for part in parts),
        last_ms=max(part.last_ms for part in parts),
        raised_ms=min(raised, default=None),
        accounts=tuple(accounts[:MOST_ACCOUNTS_SHOWN]),
        reasons=tuple(sorted(reasons.items())),
        config_hash=max(parts, key=lambda part: part.last_ms).config_hash,
        over=all(part.over for part in parts),
    )

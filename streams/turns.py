"""Turns and claims: who judges a partition, and in which order its two topics are taken.

The order in which a judge takes batches of ``clicks[p]`` and ``participations[p]`` is input too. So each turn is
durable on ``sightings[p]`` before it changes anything, and after a restart the turns beyond the checkpoint are taken
again exactly so.

A new owner of partition p first *claims* it: on every other owner's partition, then on ``sightings[p]``. Turns
written under an older claim behind that point are void for everybody. The order (others first, p last; a judge
writes its turn to p first, others after) makes it impossible that a turn is void on p yet counted elsewhere.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from schemas.errors import StateError
from schemas.events import TOPICS
from schemas.sightings import Claim, Sightings, decode_sightings, encode_claim
from streams.batches import Record
from streams.context import Send

CLAIM_BYTES = 16


@dataclass(frozen=True, slots=True)
class Turn:
    """One recorded turn: of topic number ``topic`` the records [start, next), judged as number ``turn``.

    ``offset`` is where it stands on ``sightings[p]``; ``models`` and ``claim`` as in the record.
    """

    turn: int
    topic: int
    start: int
    next: int
    config: bytes
    offset: int
    models: tuple[int, ...] = ()
    claim: bytes = b""

    @property
    def takes_labels(self) -> bool:
        """Whether it takes in labels instead of events."""
        return self.topic >= len(TOPICS)


def new_claim(partition: int) -> Claim:
    """A claim that nobody made before."""
    return Claim(partition, secrets.token_bytes(CLAIM_BYTES))


async def claim_partition(send: Send, claim: Claim, partitions: int) -> int:
    """Claim on every other owner's partition first, on the claim's own last. Returns where the last one stands."""
    others = [
        await send("sightings", owner, encode_claim(claim, owner))
        for owner in range(partitions)
        if owner != claim.source
    ]
    for sent in others:
        await sent
    return await (await send("sightings", claim.source, encode_claim(claim, claim.source)))


async def recorded_turns(
    records: AsyncIterator[Record], *, partition: int, claim: bytes, next_turn: int
) -> list[Turn]:
    """The valid turns of a partition in a stretch of its sightings log, in order.

    Parameters
    ----------
    records
        Those of ``sightings[partition]``, from the checkpoint's log position up to our own claim.
    partition
        Whose turns.
    claim
        The claim in force at the beginning of the stretch; empty when there was none.
    next_turn
        Number of the first turn expected.

    Raises
    ------
    StateError
        The numbers have a hole: the log lost records, or state and log are of different installations.
    """
    turns: list[Turn] = []
    async for message in records:
        record = decode_sightings(message.value or b"")
        if record.source != partition:
            continue
        if isinstance(record, Claim):
            claim = record.claim
        elif record.claim == claim and not (turns and record.turn == turns[-1].turn):  # sent twice by a retry
            turns.append(_turn(record, message.offset))
    expected = list(range(next_turn, next_turn + len(turns)))
    if [turn.turn for turn in turns] != expected:
        raise StateError(
            f"the turns of partition {partition} in the sightings log are "
            f"{[turn.turn for turn in turns[:3]]}…; the checkpoint expects {next_turn} to come next"
        )
    return turns


def _turn(record: Sightings, offset: int) -> Turn:
    return Turn(
        record.turn,
        record.topic,
        record.start,
        record.next,
        record.config,
        offset,
        models=record.models,
        claim=record.claim,
    )

"""The first half of a turn: which rows are judged, and what is asked of the owners of their entities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.plan import Plan
from schemas.events import EventBatch
from schemas.sightings import LOOK_ONLY, Sightings

USER_KIND = "user_id"
_OWNER_BITS = np.uint64(40)


@dataclass(slots=True)
class Inquiry:
    """What one turn asks; j judged rows (verdicts and late ones), in the order of the batch.

    Parameters
    ----------
    turn
        Number of the turn.
    batch
        The events.
    rows
        int64[j]: judged rows of the batch.
    late
        uint8[j]: 1 where the event is late.
    duplicates
        How many rows were dropped as duplicates.
    name
        uint16[j]: index into ``Plan.names``, NO_NAME for all other event names.
    keys
        uint64[kinds, j]: keyed hashes of the entities by ``Plan.kinds``, 0 where absent.
    members
        uint64[members, j]: keyed hashes by ``Plan.members``.
    user_keys, device_keys
        uint64[j].
    questions
        For each owner that is asked, which (row, kind) pairs, in the order of the record.
    """

    turn: int
    batch: EventBatch
    rows: NDArray[np.int64]
    late: NDArray[np.uint8]
    duplicates: int
    name: NDArray[np.uint16]
    keys: NDArray[np.uint64]
    members: NDArray[np.uint64]
    user_keys: NDArray[np.uint64]
    device_keys: NDArray[np.uint64]
    questions: dict[int, Question]


@dataclass(slots=True)
class Question:
    """The rows of one owner: ``row`` uint32[r] indexes the judged rows, ``kind`` uint8[r] the plan's kinds."""

    row: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    entity: NDArray[np.uint64]


def split_by_owner(keys: NDArray[np.uint64], plan: Plan, *, source: int, owners: int) -> dict[int, Question]:
    """Who is asked about what. The judge's own partition is always asked: its record is the turn itself.

    An entity belongs to the partition that its keyed hash names; a user to the partition of the user's events.
    """
    kinds = len(keys)
    flat = np.ascontiguousarray(keys.T).ravel()
    at = np.flatnonzero(flat)
    entity = flat[at]
    kind = (at % max(kinds, 1)).astype(np.uint8)
    row = (at // max(kinds, 1)).astype(np.uint32)
    if owners == 1:
        return {source: Question(row, kind, entity)}
    owner = ((entity >> _OWNER_BITS) % np.uint64(owners)).astype(np.int32)
    if USER_KIND in plan.kinds:
        owner[kind == plan.kinds.index(USER_KIND)] = source
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(owners + 1))
    questions = {}
    for number in range(owners):
        mine = order[edges[number] : edges[number + 1]]
        if len(mine) or number == source:
            questions[number] = Question(row[mine], kind[mine], entity[mine])
    return questions


def sightings_of(
    inquiry: Inquiry, owner: int, plan: Plan, *, topic: int, claim: bytes, models: tuple[int, ...] = ()
) -> Sightings:
    """The record for one owner: only the events that it has rows of."""
    question, batch = inquiry.questions[owner], inquiry.batch
    if len(inquiry.questions) == 1:
        events, event = np.arange(len(inquiry.rows)), question.row
    else:
        events, position = np.unique(question.row, return_inverse=True)
        event = position.astype(np.uint32)
    return Sightings(
        topic=topic,
        source=batch.partition,
        owner=owner,
        turn=inquiry.turn,
        start=batch.start,
        next=batch.next,
        claim=claim,
        config=plan.config,
        models=models,
        offset=(batch.offsets[inquiry.rows[events]] - batch.start).astype(np.uint32),
        ts_ms=batch.integers[0, inquiry.rows[events]],
        name=inquiry.name[events],
        flags=inquiry.late[events] * np.uint8(LOOK_ONLY),
        members=np.ascontiguousarray(inquiry.members[:, events]),
        event=event,
        kind=question.kind,
        entity=question.entity,
    )

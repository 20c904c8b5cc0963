"""What a judge tells the owners of shared entities, and what they answer: packed columns, one record for many rows.

A record on the sightings topic is a *turn* (the header alone, or with rows) or a *claim*. Records begin with a
version byte; a reader refuses versions that it does not know.

Claim: "from here on source partition ``source`` is judged under ``claim``". Sightings under an older claim that come
behind it in the log are void: they are neither counted nor answered, so a judge that was asleep cannot disturb.

Turn: "of ``topic``-``source`` the records [start, next) are judged as turn number ``turn``". It is durable on the
owner partition of the same number before anything is changed; after a restart the turns are taken again exactly so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError

VERSION = 1
TURN_RECORD, CLAIM_RECORD = 1, 2
NO_NAME = 0xFFFF
NULL_ANSWER = np.iinfo(np.int64).min
"""An answer without a value (``since`` of what never happened)."""
LOOK_ONLY = 1
"""Event flag: answer, but count nothing (a late event teaches nothing)."""

HEADS_BYTES = 64 * 1024
"""More than what a record holds besides its columns: heads, numbers of models, the frame that Kafka puts around it."""
_EVENT_BYTES, _MEMBER_BYTES, _ROW_BYTES, _VALUE_BYTES = 15, 8, 13, 8

_HEAD = struct.Struct("<BBBxIIQqq16s16sIIHH")
_ANSWER_HEAD = struct.Struct("<BBxxIIQqqII")


@dataclass(slots=True)
class Sightings:
    """Rows of one turn for one owner partition, e events and r rows.

    Parameters
    ----------
    topic
        Index into schemas.events.TOPICS; beyond them the turn takes in labels, and has no rows: less their number it
        is the partition of the labels.
    source, owner
        Partition of the judge and partition of the owner.
    turn, start, next
        Number of the turn and the offsets that it covers.
    claim
        16 bytes: whose turn this is.
    config
        16 bytes: hash of the config by which kinds, members and names below are numbered.
    models
        Up to which offset of the lessons the turn's supervised models learned: one number, none where there are no such
        models or the judge is the only one and learns by itself.
    offset
        uint32[e]: offset of the event in its topic, less ``start``; so that a recount can name the events.
    ts_ms
        int64[e], event time.
    name
        uint16[e]: index into ``Plan.names``, NO_NAME for an event name that nothing counts.
    flags
        uint8[e]: LOOK_ONLY or 0.
    members
        uint64[members, e]: keyed hashes of what is counted (``Plan.members``), 0 where absent.
    event
        uint32[r]: which of the e events a row is of, ascending.
    kind
        uint8[r]: index into ``Plan.kinds``.
    entity
        uint64[r]: keyed hash of the entity, never 0.
    """

    topic: int
    source: int
    owner: int
    turn: int
    start: int
    next: int
    claim: bytes
    config: bytes
    models: tuple[int, ...]
    offset: NDArray[np.uint32]
    ts_ms: NDArray[np.int64]
    name: NDArray[np.uint16]
    flags: NDArray[np.uint8]
    members: NDArray[np.uint64]
    event: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    entity: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Claim:
    """Source partition ``source`` is judged under ``claim`` (16 bytes) from here on."""

    source: int
    claim: bytes


@dataclass(slots=True)
class Answers:
    """Answers of one owner to one turn.

    ``values`` is int64[...]: for each row of the question in its order, one value for each feature of the row's kind
    in the order of ``Plan.features_of_kind``; a count times two, plus one where it is an estimate; for ``since`` the
    milliseconds times two; NULL_ANSWER for none.
    """

    topic: int
    source: int
    owner: int
    turn: int
    start: int
    next: int
    rows: int
    values: NDArray[np.int64]


def bytes_of_event(*, members: int, kinds: int, features: int) -> int:
    """What an event takes at most in a record of sightings or of answers, if one owner is asked for all kinds."""
    asked = _EVENT_BYTES + _MEMBER_BYTES * members + _ROW_BYTES * kinds
    return max(asked, _VALUE_BYTES * features)


def encode_sightings(sightings: Sightings) -> bytes:
    """Pack a turn: a head of 72 bytes, then the columns one after the other."""
    events, rows = len(sightings.ts_ms), len(sightings.event)
    head = _HEAD.pack(
        VERSION,
        TURN_RECORD,
        sightings.topic,
        sightings.source,
        sightings.owner,
        sightings.turn,
        sightings.start,
        sightings.next,
        sightings.claim,
        sightings.config,
        events,
        rows,
        len(sightings.members),
        len(sightings.models),
    )
    models = np.asarray(sightings.models, np.int64)
    columns = (
        models,
        sightings.ts_ms,
        sightings.members,
        sightings.entity,
        sightings.event,
        sightings.offset,
        sightings.name,
        sightings.flags,
        sightings.kind,
    )
    return head + b"".join(column.tobytes() for column in columns)


def encode_claim(claim: Claim, owner: int) -> bytes:
    """Pack a claim."""
    return _HEAD.pack(
        VERSION, CLAIM_RECORD, 0, claim.source, owner, 0, 0, 0, claim.claim, bytes(16), 0, 0, 0, 0
    )


def decode_sightings(record: bytes) -> Sightings | Claim:
    """Unpack a record of the sightings topic; its columns are read-only views of the bytes.

    Raises
    ------
    StateError
        The record is of an unknown version, or its length does not fit its head.
    """
    if len(record) < _HEAD.size or record[0] != VERSION:
        raise StateError(_unreadable("sightings", record))
    (
        _version,
        what,
        topic,
        source,
        owner,
        turn,
        start,
        next_,
        claim,
        config,
        events,
        rows,
        members,
        models,
    ) = _HEAD.unpack_from(record)
    if what == CLAIM_RECORD:
        return Claim(source, claim)
    reader = _Columns(record, _HEAD.size)
    snapshots = tuple(reader.take(np.int64, models).tolist())
    sightings = Sightings(
        topic=topic,
        source=source,
        owner=owner,
        turn=turn,
        start=start,
        next=next_,
        claim=claim,
        config=config,
        models=snapshots,
        # In the order of the record, which is that of the columns' width.
        ts_ms=reader.take(np.int64, events),
        members=reader.take(np.uint64, members * events).reshape(members, events),
        entity=reader.take(np.uint64, rows),
        event=reader.take(np.uint32, rows),
        offset=reader.take(np.uint32, events),
        name=reader.take(np.uint16, events),
        flags=reader.take(np.uint8, events),
        kind=reader.take(np.uint8, rows),
    )
    reader.done("sightings")
    return sightings


def encode_answers(answers: Answers) -> bytes:
    """Pack the answers of one owner to one turn."""
    head = _ANSWER_HEAD.pack(
        VERSION,
        answers.topic,
        answers.source,
        answers.owner,
        answers.turn,
        answers.start,
        answers.next,
        answers.rows,
        len(answers.values),
    )
    return head + answers.values.tobytes()


def decode_answers(record: bytes) -> Answers:
    """Unpack a record of the answers topic.

    Raises
    ------
    StateError
        The record is of an unknown version, or its length does not fit its head.
    """
    if len(record) < _ANSWER_HEAD.size or record[0] != VERSION:
        raise StateError(_unreadable("answers", record))
    _version, topic, source, owner, turn, start, next_, rows, values = _ANSWER_HEAD.unpack_from(record)
    reader = _Columns(record, _ANSWER_HEAD.size)
    column = reader.take(np.int64, values)
    reader.done("answers")
    return Answers(topic, source, owner, turn, start, next_, rows, column)


Scalar = TypeVar("Scalar", bound=np.generic)


class _Columns:
    """Reads columns off a record, one behind the other."""

    def __init__(self, record: bytes, at: int) -> None:
        self._record, self._at = record, at

    def take(self, dtype: type[Scalar], count: int) -> NDArray[Scalar]:
        size = np.dtype(dtype).itemsize * count
        if self._at + size > len(self._record):
            raise StateError(_unreadable("packed", self._record))
        column = np.frombuffer(self._record, dtype, count, self._at)
        self._at += size
        return column

    def done(self, what: str) -> None:
        if self._at != len(self._record):
            raise StateError(_unreadable(what, self._record))


def _unreadable(what: str, record: bytes) -> str:
    version = record[0] if record else None
    return (
        f"a {what} record of {len(record)} bytes and version {version}: "
        f"expected version {VERSION} and columns that fit its head"
    )

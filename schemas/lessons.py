"""Lessons: features as judged, with the label that came later; what supervised models learn, in the order of one log.

A judge writes the lessons of a turn to the ``lessons`` topic, which has one partition, once they are due. The log's
order is the order of learning for everybody, so a model is a function of how far the log was learned. As on the
sightings, a *claim* makes void what an overtaken owner writes behind it; a repeat has a turn and part that its source
has passed already.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.sightings import Claim

VERSION = 1
LESSON_RECORD, CLAIM_RECORD = 1, 2
RECORD_LESSONS = 1_000
"""Most lessons of a record."""

_HEAD = struct.Struct("<BBxxIQI16s16sII")


@dataclass(frozen=True, slots=True)
class Lessons:
    """n lessons of one turn, or a part of them.

    Parameters
    ----------
    source, turn, part
        Judge partition, its turn, and number of the record among those of the turn.
    claim
        16 bytes: whose turn it was.
    config
        16 bytes: hash of the config by which the inputs are numbered (``detectors.supervised.inputs_of``).
    label
        uint8[n], 0 or 1.
    x
        float64[n, inputs] as they were when judged; NaN is null.
    """

    source: int
    turn: int
    part: int
    claim: bytes
    config: bytes
    label: NDArray[np.uint8]
    x: NDArray[np.float64]


def encode_lessons(lessons: Lessons) -> bytes:
    """Pack lessons: a head of 60 bytes, the labels, the inputs."""
    rows, inputs = lessons.x.shape
    head = _HEAD.pack(
        VERSION,
        LESSON_RECORD,
        lessons.source,
        lessons.turn,
        lessons.part,
        lessons.claim,
        lessons.config,
        rows,
        inputs,
    )
    return head + lessons.label.tobytes() + lessons.x.tobytes()


def encode_lesson_claim(claim: Claim) -> bytes:
    """Pack a claim."""
    return _HEAD.pack(VERSION, CLAIM_RECORD, claim.source, 0, 0, claim.claim, bytes(16), 0, 0)


def decode_lessons(record: bytes) -> Lessons | Claim:
    """Unpack a record of the lessons topic.

    Raises
    ------
    StateError
        The record is of an unknown version, or its length does not fit its head.
    """
    if len(record) < _HEAD.size or record[0] != VERSION:
        raise _unreadable(record)
    _, what, source, turn, part, claim, config, rows, inputs = _HEAD.unpack_from(record)
    if what == CLAIM_RECORD:
        return Claim(source, claim)
    if len(record) != _HEAD.size + rows + 8 * rows * inputs:
        raise _unreadable(record)
    label = np.frombuffer(record, np.uint8, rows, _HEAD.size)
    x = np.frombuffer(record, np.float64, rows * inputs, _HEAD.size + rows).reshape(rows, inputs)
    return Lessons(source, turn, part, claim, config, label, x)


def _unreadable(record: bytes) -> StateError:
    version = record[0] if record else None
    return StateError(
        f"a lessons record of {len(record)} bytes and version {version}: "
        f"expected version {VERSION} and columns that fit its head"
    )

"""Which turns of a log are valid: those under the claim in force when they were written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schemas.errors import StateError
from schemas.sightings import Claim, Sightings, encode_claim, encode_sightings
from streams.turns import Turn, recorded_turns

OLD, NEW = b"o" * 16, b"n" * 16
CONFIG = b"c" * 16


def turn_record(number: int, claim: bytes, *, source: int = 1, topic: int = 0) -> bytes:
    empty = np.zeros(0, np.uint64)
    return encode_sightings(
        Sightings(
            topic=topic,
            source=source,
            owner=1,
            turn=number,
            start=number * 10,
            next=number * 10 + 10,
            claim=claim,
            config=CONFIG,
            models=(),
            offset=empty.astype(np.uint32),
            ts_ms=empty.astype(np.int64),
            name=empty.astype(np.uint16),
            flags=empty.astype(np.uint8),
            members=empty.reshape(0, 0),
            event=empty.astype(np.uint32),
            kind=empty.astype(np.uint8),
            entity=empty,
        )
    )


def read(*values: bytes, claim: bytes = OLD, next_turn: int = 5) -> list[Turn]:
    async def log() -> AsyncIterator[Any]:
        for offset, value in enumerate(values):
            yield SimpleNamespace(offset=offset * 2, value=value)

    return asyncio.run(recorded_turns(log(), partition=1, claim=claim, next_turn=next_turn))


def test_turns_are_read_in_order_with_their_places() -> None:
    turns = read(turn_record(5, OLD), turn_record(6, OLD, topic=1))
    assert turns == [Turn(5, 0, 50, 60, CONFIG, 0, claim=OLD), Turn(6, 1, 60, 70, CONFIG, 2, claim=OLD)]


def test_a_turn_under_an_older_claim_is_void() -> None:
    claimed = encode_claim(Claim(1, NEW), owner=1)
    turns = read(turn_record(5, OLD), claimed, turn_record(6, OLD), turn_record(6, NEW))
    assert [(turn.turn, turn.offset) for turn in turns] == [(5, 0), (6, 6)]


def test_other_partitions_do_not_matter() -> None:
    turns = read(encode_claim(Claim(2, NEW), owner=1), turn_record(9, NEW, source=2), turn_record(5, OLD))
    assert [turn.turn for turn in turns] == [5]


def test_a_record_that_was_sent_twice_is_one_turn() -> None:
    turns = read(turn_record(5, OLD), turn_record(5, OLD), turn_record(6, OLD))
    assert [turn.turn for turn in turns] == [5, 6]


def test_a_hole_in_the_numbers_is_refused() -> None:
    with pytest.raises(StateError, match="expects 5"):
        read(turn_record(6, OLD))

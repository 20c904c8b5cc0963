"""Records of the sightings and answers topics keep every value, and refuse what they do not know."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import StateError
from schemas.sightings import (
    Answers,
    Claim,
    Sightings,
    decode_answers,
    decode_sightings,
    encode_answers,
    encode_claim,
    encode_sightings,
)


def make_sightings(events: int, rows: int, members: int, models: int = 0) -> Sightings:
    rng = np.random.default_rng([events, rows, members])
    return Sightings(
        topic=1,
        source=3,
        owner=2,
        turn=2**40 + 1,
        start=10,
        next=10 + 3 * events,
        claim=bytes(range(16)),
        config=bytes(range(16, 32)),
        models=tuple(range(models)),
        offset=np.arange(events, dtype=np.uint32) * 3,
        ts_ms=rng.integers(-(2**62), 2**62, events),
        name=rng.integers(0, 2**16, events).astype(np.uint16),
        flags=rng.integers(0, 2, events).astype(np.uint8),
        members=rng.integers(0, 2**63, (members, events)).astype(np.uint64) * np.uint64(2),
        event=np.sort(rng.integers(0, max(events, 1), rows)).astype(np.uint32),
        kind=rng.integers(0, 9, rows).astype(np.uint8),
        entity=rng.integers(1, 2**63, rows).astype(np.uint64),
    )


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.integers(0, 2))
def test_a_turn_comes_back_as_it_went(events: int, rows: int, members: int, models: int) -> None:
    sent = make_sightings(events, rows if events else 0, members, models)
    got = decode_sightings(encode_sightings(sent))
    assert isinstance(got, Sightings)
    for name in Sightings.__slots__:
        want, have = getattr(sent, name), getattr(got, name)
        if isinstance(want, np.ndarray):
            assert want.dtype == have.dtype
            assert want.shape == have.shape
            assert (want == have).all()
        else:
            assert want == have


def test_a_claim_comes_back() -> None:
    claim = Claim(7, bytes(range(16)))
    assert decode_sightings(encode_claim(claim, owner=2)) == claim


def test_answers_come_back() -> None:
    sent = Answers(0, 1, 2, 3, 4, 5, 2, np.array([1, -(2**63), 2**62]))
    got = decode_answers(encode_answers(sent))
    assert got.values.tolist() == sent.values.tolist()
    assert (got.topic, got.source, got.owner, got.turn, got.start, got.next, got.rows) == (
        0,
        1,
        2,
        3,
        4,
        5,
        2,
    )


@pytest.mark.parametrize("decode", [decode_sightings, decode_answers])
@pytest.mark.parametrize("record", [b"", b"\x02" + bytes(100), b"\x01"])
def test_an_unknown_record_is_refused(decode: object, record: bytes) -> None:
    with pytest.raises(StateError, match="version"):
        decode(record)  # type: ignore[operator]


def test_a_cut_or_longer_record_is_refused() -> None:
    record = encode_sightings(make_sightings(3, 4, 1))
    for broken in (record[:-1], record + b"\0"):
        with pytest.raises(StateError, match="fit"):
            decode_sightings(broken)

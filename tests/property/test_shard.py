"""Small logs of any shape: a shard answers like the oracle, whatever the cut, owners and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.plan import ANY_NAME, Op
from detectors.shard import Shard
from schemas.sightings import Claim, Sightings, decode_sightings, encode_sightings
from tests.shard_oracle import Event, Oracle, feature, owner_of, plan_of, turn_of

FIRST = plan_of(
    [
        feature("ip", Op.DISTINCT, "user", 50, exclude_self=True),
        feature("ip", Op.DISTINCT, "user"),
        feature("ip", Op.COUNT, "buy", 30),
        feature("user", Op.SINCE, "buy"),
        feature("user", Op.COUNT, ANY_NAME, 100),
    ]
)
SECOND = plan_of(
    [
        feature("user", Op.SINCE, "buy"),
        feature("user", Op.COUNT, "view", 100),
        feature("ip", Op.DISTINCT, "user", 20),
        feature("ip", Op.DISTINCT, "user"),
        feature("user", Op.DISTINCT, "ip", exclude_self=True),
    ],
    config=2,
)
PLANS = {plan.config: plan for plan in (FIRST, SECOND)}

hashes = st.sampled_from([0, 1, 2**40 + 1, 2**40 + 2, 2**63 + 5, 2**64 - 1])
events = st.builds(
    lambda ts_ms, name, ip, user, look: Event(
        ts_ms + 1_000_000, name, {"ip": ip, "user": user}, {"ip": ip, "user": user}, look
    ),
    st.integers(0, 200),
    st.sampled_from(["buy", "view", "other"]),
    hashes,
    hashes,
    st.booleans(),
)
turns = st.lists(
    st.tuples(st.lists(events, max_size=12), st.integers(0, 2), st.integers(0, 1), st.booleans()), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(
    turns=turns,
    owners=st.sampled_from([1, 2, 3]),
    restart_at=st.integers(0, 12),
    switch_at=st.integers(0, 12),
)
def test_answers_equal_the_oracle_through_repeats_restarts_and_a_changed_config(
    turns: list[tuple[list[Event], int, int, bool]], owners: int, restart_at: int, switch_at: int
) -> None:
    oracle = Oracle()
    shards = [Shard(owner, max_keys=1_000, lateness_ms=50) for owner in range(owners)]
    offsets: dict[tuple[int, int], int] = {}
    for number, (part, source, topic, repeated) in enumerate(turns):
        # Sources turn to the new config one after the other.
        plan = SECOND if number >= switch_at + source else FIRST
        start = offsets.get((topic, source), 0)
        offsets[topic, source] = start + len(part)
        truth = iter(oracle.take(part, plan, source))
        got = []
        for owner, shard in enumerate(shards):
            if number == restart_at:
                shards[owner] = Shard(owner, max_keys=1_000, lateness_ms=50)
                shards[owner].restore(shard.snapshot())
            turn = turn_of(
                part, plan, start=start, topic=topic, source=source, owner=owner, owners=owners, turn=number
            )
            got.append(_answers(shards[owner], turn))
            if repeated and part:
                assert shards[owner].take(turn, PLANS.__getitem__) is None
        for event in part:
            for kind in plan.kinds:
                if entity := event.entities[kind]:
                    assert next(got[owner_of(entity, owners)]) == next(truth)
        assert all(next(rest, None) is None for rest in (*got, truth))


def _answers(shard: Shard, turn: Sightings) -> Iterator[list[int]]:
    packed = decode_sightings(encode_sightings(turn))
    assert not isinstance(packed, Claim)
    answers = shard.take(packed, PLANS.__getitem__)
    if answers is None:
        assert not len(turn.event)
        assert turn.source != turn.owner
        return iter([])
    assert (answers.rows, answers.start, answers.next) == (len(turn.event), turn.start, turn.next)
    values = iter(answers.values.tolist())
    plan = PLANS[turn.config]
    rows = [[next(values) for _feature in plan.features_of_kind[kind]] for kind in turn.kind]
    assert next(values, None) is None
    return iter(rows)


@settings(max_examples=100, deadline=None)
@given(
    part=st.lists(events, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    max_keys=st.integers(1, 4),
)
def test_with_few_keys_the_cut_into_turns_still_changes_nothing(
    part: list[Event], cuts: list[int], max_keys: int
) -> None:
    whole, cut = (Shard(0, max_keys=max_keys, lateness_ms=50) for _ in range(2))
    truth = [answer for row in _answers(whole, turn_of(part, FIRST)) for answer in row]
    edges = sorted({0, len(part), *(edge for edge in cuts if edge < len(part))})
    got: list[int] = []
    for start, stop in pairwise(edges):
        got += [
            answer for row in _answers(cut, turn_of(part[start:stop], FIRST, start=start)) for answer in row
        ]
    assert got == truth
    assert (cut.evicted, cut.coarsened, cut.keys) == (whole.evicted, whole.coarsened, whole.keys)

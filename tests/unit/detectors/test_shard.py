from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detectors.plan import ANY_NAME, Op, Plan
from detectors.shard import Plans, Shard
from schemas.errors import StateError
from schemas.sightings import Answers, Claim, Sightings, decode_sightings, encode_sightings
from tests.shard_oracle import (
    HOUR_MS,
    START_MS,
    Event,
    Oracle,
    feature,
    in_parts,
    owner_of,
    plan_of,
    renamed,
    some_events,
    turn_of,
)

FEATURES = [
    feature("device", Op.DISTINCT, "user", exclude_self=True),
    feature("device", Op.DISTINCT, "user", 24 * HOUR_MS, exclude_self=True),
    feature("device", Op.DISTINCT, "user", HOUR_MS),
    feature("ip", Op.DISTINCT, "user", 2 * HOUR_MS, exclude_self=True),
    feature("ip", Op.DISTINCT, "device"),
    feature("ip", Op.COUNT, "participate", HOUR_MS),
    feature("ip", Op.COUNT, "participate"),
    feature("ip", Op.COUNT, ANY_NAME, 3 * HOUR_MS),
    feature("ip", Op.COUNT, ANY_NAME, 10 * 60_000),
    feature("user", Op.COUNT, "click"),
    feature("user", Op.SINCE, "signup"),
    feature("user", Op.SINCE, ANY_NAME),
    feature("user", Op.DISTINCT, "device", HOUR_MS),
]
PLAN = plan_of(FEATURES)
EVENTS = some_events(6_000, seed=3)


def new_shard(owner: int = 0, max_keys: int = 100_000) -> Shard:
    return Shard(owner, max_keys=max_keys, lateness_ms=HOUR_MS)


def plans(*known: Plan) -> Plans:
    return {plan.config: plan for plan in known}.__getitem__


def split(answers: Answers, turn: Sightings, plan: Plan = PLAN) -> list[list[int]]:
    """Answers as one list for each row."""
    edges = np.cumsum([len(plan.features_of_kind[kind]) for kind in turn.kind])
    assert len(answers.values) == (edges[-1] if len(edges) else 0)
    return [part.tolist() for part in np.split(answers.values, edges[:-1])] if len(edges) else []


def ask(shard: Shard, turn: Sightings, plan: Plan = PLAN) -> list[list[int]]:
    answers = shard.take(turn, plans(plan))
    assert answers is not None
    return split(answers, turn, plan)


@pytest.fixture(scope="module")
def truth() -> list[list[int]]:
    return Oracle().take(EVENTS, PLAN)


@pytest.mark.parametrize(("size", "owners"), [(1, 1), (7, 4), (997, 2), (6_000, 1)])
def test_every_answer_equals_the_oracle_however_rows_are_cut_and_owned(
    size: int, owners: int, truth: list[list[int]]
) -> None:
    shards = [new_shard(owner) for owner in range(owners)]
    got: list[list[int]] = []
    for start, events in in_parts(EVENTS, size):
        by_owner = []
        for shard in shards:
            turn = turn_of(events, PLAN, start=start, owner=shard.owner, owners=owners)
            answers = shard.take(turn, plans(PLAN))
            by_owner.append(iter(split(answers, turn)) if answers else iter([]))
        got += [
            next(by_owner[owner_of(event.entities[kind], owners)])
            for event in events
            for kind in PLAN.kinds
            if kind in event.entities
        ]
    assert got == truth


@pytest.mark.parametrize("stop", [1, 2_991, 5_982])
def test_a_snapshot_in_the_middle_changes_no_later_answer(stop: int, truth: list[list[int]]) -> None:
    size, shard, got = 997 if stop > 1 else 1, new_shard(), []
    for start, events in in_parts(EVENTS[:stop], size):
        got += ask(shard, turn_of(events, PLAN, start=start))
    state = shard.snapshot()
    ask(shard, turn_of(EVENTS[stop:], PLAN, start=stop))
    again = new_shard()
    again.restore(state)
    got += ask(again, turn_of(EVENTS[stop:], PLAN, start=stop))
    assert got == truth
    assert again.counters == shard.counters
    assert again.born() == shard.born() == {f.definition: EVENTS[0].ts_ms for f in FEATURES}
    assert_same_state(again, shard)


def assert_same_state(one: Shard, other: Shard) -> None:
    left, right = one.snapshot(), other.snapshot()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert bytes(value) == bytes(right[name]), name


def test_a_record_off_the_wire_is_answered_like_the_one_that_was_packed() -> None:
    turn = turn_of(EVENTS[:300], PLAN)
    packed = decode_sightings(encode_sightings(turn))
    assert isinstance(packed, Sightings)
    assert ask(new_shard(), packed) == ask(new_shard(), turn)


def test_several_windows_and_ever_of_one_pair_share_one_table() -> None:
    shard = new_shard()
    ask(shard, turn_of(EVENTS[:10], PLAN))
    tables = [name for name in shard.snapshot() if name.endswith("/arena")]
    assert len(tables) == len({(f.entity, f.op, f.argument) for f in FEATURES}) == 9


def test_a_definition_under_two_names_is_answered_twice() -> None:
    plan = plan_of([FEATURES[0], renamed(FEATURES[0], "again")])
    rows = ask(new_shard(), turn_of(EVENTS[:500], plan), plan)
    assert all(first == second for first, second in rows)
    assert any(first > 0 for first, _second in rows)


# -- turns and claims
# ----------------------------------------------------------------------------------------------


def test_a_repeated_turn_is_neither_counted_nor_answered() -> None:
    shard, turn = new_shard(), turn_of(EVENTS[:100], PLAN)
    ask(shard, turn)
    before = shard.snapshot()
    assert shard.take(turn, plans(PLAN)) is None
    assert shard.counters.repeats == 1
    assert bytes(before["tables/0/arena"]) == bytes(shard.snapshot()["tables/0/arena"])
    assert shard.applied(0, 0) == 100


def test_a_repeat_that_reaches_further_is_an_alarm() -> None:
    shard = new_shard()
    ask(shard, turn_of(EVENTS[:100], PLAN))
    assert shard.take(turn_of(EVENTS[:150], PLAN), plans(PLAN)) is None
    assert (shard.counters.repeats, shard.counters.overlaps) == (1, 1)


def test_the_two_topics_of_a_partition_have_offsets_of_their_own() -> None:
    shard = new_shard()
    ask(shard, turn_of(EVENTS[:100], PLAN, topic=0))
    assert len(ask(shard, turn_of(EVENTS[:100], PLAN, topic=1))) > 0
    assert shard.counters.repeats == 0
    assert (shard.applied(0, 0), shard.applied(1, 0), shard.applied(1, 7)) == (100, 100, None)


def test_a_hole_between_turns_is_an_alarm_only_on_the_own_partition_and_after_the_first() -> None:
    shard = new_shard(owner=1)
    for start in (50, 70):
        ask(shard, _for(1, 0, start))
    assert shard.counters.gaps == 0
    ask(shard, _for(1, 1, 50))
    assert shard.counters.gaps == 0
    ask(shard, _for(1, 1, 70))
    assert shard.counters.gaps == 1


def _for(owner: int, source: int, start: int, events: Sequence[Event] = EVENTS[:5]) -> Sightings:
    turn = turn_of(events, PLAN, start=start, source=source)
    turn.owner = owner
    return turn


def test_turns_under_an_older_claim_are_void() -> None:
    shard = new_shard()
    old, new = b"o" * 16, b"n" * 16
    ask(shard, turn_of(EVENTS[:10], PLAN, claim=old))
    assert shard.take(Claim(source=0, claim=new), plans()) is None
    assert shard.take(turn_of(EVENTS[10:20], PLAN, start=10, claim=old), plans()) is None
    assert (shard.counters.voids, shard.applied(0, 0)) == (1, 10)
    assert shard.take(turn_of(EVENTS[10:20], PLAN, start=10, claim=old, source=3), plans(PLAN)) is not None
    again = new_shard()
    again.restore(shard.snapshot())
    for either in (shard, again):
        assert either.take(turn_of(EVENTS[10:20], PLAN, start=10, claim=old), plans(PLAN)) is None
        assert either.take(turn_of(EVENTS[10:20], PLAN, start=10, claim=new), plans(PLAN)) is not None


def test_a_turn_without_rows_is_answered_to_the_own_partition_alone() -> None:
    shard = new_shard(owner=2)
    receipt = shard.take(_for(2, 2, 40, []), plans(PLAN))
    assert receipt is not None
    assert (receipt.rows, receipt.values.tolist(), receipt.owner, receipt.source) == (0, [], 2, 2)
    assert (receipt.start, receipt.next) == (40, 40)
    assert shard.take(_for(2, 1, 40, []), plans(PLAN)) is None


def test_looking_changes_nothing() -> None:
    shard = new_shard()
    ask(shard, turn_of(EVENTS[:1_000], PLAN))
    before = shard.snapshot()
    looks = [Event(e.ts_ms, e.name, e.entities, e.members, look=True) for e in EVENTS[1_000:2_000]]
    ask(shard, turn_of(looks, PLAN, start=1_000))
    after = shard.snapshot()
    assert all(bytes(before[name]) == bytes(after[name]) for name in before if name != "directory")


@pytest.mark.parametrize(
    ("column", "value"), [("kind", 3), ("event", 5), ("name", 3), ("members", np.zeros((1, 5), np.uint64))]
)
def test_a_record_that_does_not_fit_its_config_is_refused(column: str, value: object) -> None:
    turn = turn_of(EVENTS[:5], PLAN)
    if column == "members":
        turn.members = value  # type: ignore[assignment]
    else:
        getattr(turn, column)[-1] = value
    with pytest.raises(StateError, match="does not know"):
        new_shard().take(turn, plans(PLAN))


def test_a_plan_of_another_config_is_refused() -> None:
    with pytest.raises(StateError, match="expected 0000"):
        new_shard().take(turn_of(EVENTS[:5], PLAN), lambda _config: plan_of(FEATURES, config=2))


def test_a_snapshot_of_another_owner_or_format_is_refused() -> None:
    state = new_shard(owner=1).snapshot()
    with pytest.raises(StateError, match="owner 1"):
        new_shard(owner=0).restore(state)
    state["directory"] = bytes(state["directory"]).replace(b'"format":1', b'"format":9')
    with pytest.raises(StateError, match="format 9"):
        new_shard(owner=1).restore(state)


# -- a changed config
# ----------------------------------------------------------------------------------------------

CHANGED = plan_of(
    [
        FEATURES[5],
        FEATURES[0],
        feature("device", Op.DISTINCT, "user", 5 * HOUR_MS),
        feature("ip", Op.COUNT, "click", HOUR_MS),
        FEATURES[10],
    ],
    config=2,
)


@pytest.mark.parametrize("size", [1, 997])
def test_unchanged_definitions_keep_their_state_and_new_ones_start_empty(size: int) -> None:
    oracle, shard, half = Oracle(), new_shard(), 3_000
    for plan, part, first in ((PLAN, EVENTS[:half], 0), (CHANGED, EVENTS[half:], half)):
        for start, events in in_parts(part, size):
            turn = turn_of(events, plan, start=first + start)
            answers = shard.take(turn, plans(PLAN, CHANGED))
            assert answers is not None
            assert split(answers, turn, plan) == oracle.take(events, plan)
    assert shard.born() == {
        f.definition: EVENTS[0 if f in FEATURES else half].ts_ms for f in CHANGED.features
    }


def test_while_one_source_still_has_the_old_config_both_are_served() -> None:
    oracle, shard = Oracle(), new_shard()
    for number, (_start, events) in enumerate(in_parts(EVENTS, 250)):
        source = number % 2
        plan = CHANGED if number >= (8 if source else 16) else PLAN
        turn = turn_of(events, plan, start=number * 250, source=source)
        answers = shard.take(turn, plans(PLAN, CHANGED))
        assert answers is not None
        assert split(answers, turn, plan) == oracle.take(events, plan, source)
        if number == 11:
            again = new_shard()
            again.restore(shard.snapshot())
            shard = again
    assert shard.born().keys() == {f.definition for f in CHANGED.features}


def test_a_definition_that_comes_back_starts_empty() -> None:
    oracle, shard, start = Oracle(), new_shard(), 0
    for plan in (PLAN, CHANGED, PLAN):
        events = EVENTS[start : start + 1_000]
        turn = turn_of(events, plan, start=start)
        answers = shard.take(turn, plans(PLAN, CHANGED))
        assert answers is not None
        assert split(answers, turn, plan) == oracle.take(events, plan)
        start += 1_000
    assert shard.born()[FEATURES[3].definition] == EVENTS[2_000].ts_ms
    assert shard.born()[FEATURES[0].definition] == EVENTS[0].ts_ms


def test_a_plan_that_can_not_be_read_yet_changes_nothing() -> None:
    def away(_: bytes) -> Plan:
        raise OSError("the store does not answer")

    shard, untroubled = new_shard(), new_shard()
    for first, stop in ((0, 10), (15, 20)):  # the second one leaves a hole, which is counted once
        turn = turn_of(EVENTS[first:stop], PLAN, start=first)
        shard.restore(shard.snapshot())  # plans are asked again
        with pytest.raises(OSError, match="does not answer"):
            shard.take(turn, away)
        assert ask(shard, turn) == ask(untroubled, turn)
    assert_same_state(shard, untroubled)


def test_plans_are_asked_only_when_they_are_needed() -> None:
    asked: list[bytes] = []

    def give(config: bytes) -> Plan:
        asked.append(config)
        return plans(PLAN, CHANGED)(config)

    shard = new_shard()
    for start, events in in_parts(EVENTS[:500], 50):
        shard.take(turn_of(events, PLAN, start=start), give)
        shard.take(turn_of(events, PLAN, start=start), give)
    assert asked == [PLAN.config]
    shard.take(turn_of(EVENTS[:5], CHANGED, start=500), give)
    assert asked == [PLAN.config, CHANGED.config]


# -- bounds
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restored", [False, True])
def test_evictions_follow_the_sightings_alone(restored: bool) -> None:
    results = []
    for size in (1, 977, 6_000):
        shard, got = new_shard(max_keys=150), []
        for start, events in in_parts(EVENTS, size):
            if restored and start == 977 * 3:
                again = new_shard(max_keys=150)
                again.restore(shard.snapshot())
                shard = again
            got += ask(shard, turn_of(events, PLAN, start=start))
        results.append((got, shard.evicted, shard.coarsened))
        assert shard.evicted > 1_000
        assert shard.keys <= 150 * 9
    assert results[0] == results[1] == results[2]


def test_the_watermark_is_the_lowest_of_all_sources() -> None:
    """What a slower source may still ask for in time is not forgotten, however far the others are."""
    plan = plan_of([feature("ip", Op.DISTINCT, "user", HOUR_MS)])
    shard = new_shard()

    def sighting(source: int, start: int, ts_ms: int, users: range) -> list[list[int]]:
        events = [Event(ts_ms, "view", {"ip": 7}, {"user": user + 1}) for user in users]
        return ask(shard, turn_of(events, plan, start=start, source=source), plan)

    sighting(1, 0, START_MS, range(1_000))
    sighting(0, 0, START_MS + 50 * HOUR_MS, range(1_000, 1_024))
    # The slab is full; source 1 is still at the start, so nothing may go, and the estimate begins.
    assert sighting(0, 24, START_MS + 50 * HOUR_MS, range(1_024, 1_026))[1][0] % 2 == 1

    shard = new_shard()
    sighting(1, 0, START_MS, range(1_000))
    sighting(1, 1_000, START_MS + 49 * HOUR_MS, range(1))
    sighting(0, 0, START_MS + 50 * HOUR_MS, range(1_000, 1_024))
    assert sighting(0, 24, START_MS + 50 * HOUR_MS, range(1_024, 1_026)) == [[24 * 2 + 2], [25 * 2 + 2]]

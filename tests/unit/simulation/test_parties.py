"""What is planted is what the truth says, and each kind looks like itself; so do the crowds that only look bad."""

from __future__ import annotations

import pytest

from simulation.parties import KINDS
from tests.unit.simulation.campaigns import CAMPAIGN, ask, events_of


def test_the_truth_names_every_planted_account_of_every_party() -> None:
    last_ms = events_of(CAMPAIGN)["ts"][-1].as_py()
    planned = {
        f"{KINDS[party.kind]}-{party.number}": party.accounts
        for party in CAMPAIGN.parties()
        if party.begin_ms + party.lasts_ms < last_ms
    }
    told = dict(ask("SELECT truth_party, count(DISTINCT user_id) FROM events WHERE label = 1 GROUP BY 1"))
    assert {party: told[party] for party in planned} == planned
    assert {kind for kind in KINDS if kind} == {party.rpartition("-")[0] for party in told}


def test_the_truth_is_whole_and_of_one_mind() -> None:
    assert ask("""
        SELECT count(*) FROM events WHERE (label = 1) != (truth_kind IS NOT NULL)
            OR (truth_kind IS NULL) != (truth_party IS NULL)
            OR (truth_kind IS NOT NULL AND truth_crowd IS NOT NULL)""") == [(0,)]
    assert ask("""
        SELECT max(n) FROM (SELECT count(DISTINCT (label, truth_kind, truth_party, truth_crowd)) n
            FROM events GROUP BY user_id)""") == [(1,)]
    [(share,)] = ask("SELECT avg(label) FROM events")
    assert 0.08 < share < 0.16


def party_facts(kind: str) -> list[tuple[float, ...]]:
    """By party: accounts, devices, addresses, /24s, phone segments and inviters; each as a share of the accounts."""
    return ask(f"""
        SELECT users, devices / users, ips / users, nets / users, segments / users, inviters / users, spots / users
        FROM (SELECT truth_party, count(DISTINCT user_id)::DOUBLE users, count(DISTINCT device_id) devices,
            count(DISTINCT ip) ips, count(DISTINCT regexp_replace(ip, '[^.:]*$', '')) nets,
            count(DISTINCT phone[:7]) segments, count(DISTINCT inviter_id) inviters,
            count(DISTINCT (round(lat, 2), round(lon, 2))) spots
            FROM events WHERE truth_kind = '{kind}' GROUP BY truth_party)""")


FACTS = ("users", "devices", "addresses", "networks", "segments", "inviters", "spots")
SIGNS = [
    ("device_farm", "devices", 0.05, 0.30),
    ("proxy_pool", "networks", 0.02, 0.25),
    ("proxy_pool", "addresses", 0.6, 1.0),
    ("phone_segment", "segments", 0.01, 0.2),
    ("script", "addresses", 0.2, 0.55),
    ("gps_spoofing", "spots", 0.02, 0.25),
    ("gps_spoofing", "addresses", 0.9, 1.0),
    ("invitation_ring", "inviters", 0.03, 0.15),
]


@pytest.mark.parametrize(("kind", "fact", "least", "most"), SIGNS)
def test_a_kind_shares_what_it_is_known_for(kind: str, fact: str, least: float, most: float) -> None:
    parties = party_facts(kind)
    assert parties
    for party in parties:
        assert least <= party[FACTS.index(fact)] <= most, dict(zip(FACTS, party, strict=True))


def test_a_script_has_the_same_pause_before_everything() -> None:
    spreads = ask("""
        SELECT truth_kind, median(spread) FROM (
            SELECT truth_kind, user_id, stddev(dwell_ms) / avg(dwell_ms) spread
            FROM events WHERE dwell_ms IS NOT NULL GROUP BY ALL HAVING count(*) >= 3) GROUP BY 1""")
    by_kind = dict(spreads)
    assert by_kind.pop("script") < 0.05
    assert min(by_kind.values()) > 0.3


def test_a_ring_invites_in_a_circle() -> None:
    brought = ask(
        "SELECT DISTINCT truth_party, user_id, inviter_id FROM events WHERE truth_kind = 'invitation_ring'"
    )
    for party in {party for party, _, _ in brought}:
        inviter_of = {user: inviter for name, user, inviter in brought if name == party}
        first = at = next(iter(inviter_of.values()))
        circle = [at := inviter_of[at] for _ in set(inviter_of.values())]
        assert at == first, "whoever brought the one who brought ... is the first again"
        assert len(set(circle)) == len(circle) >= 2


def test_some_accounts_are_careful() -> None:
    """On a device of their own, so that little gives them away."""
    devices = ask(
        "SELECT device_id, count(DISTINCT user_id) FROM events WHERE truth_kind = 'device_farm' GROUP BY 1"
    )
    alone = sum(users for _, users in devices if users == 1)
    assert 0.03 < alone / sum(users for _, users in devices) < 0.15


def test_crowds_share_what_looks_bad_and_are_honest() -> None:
    facts = {
        row[0]: row[1:]
        for row in ask("""
            SELECT truth_crowd, count(DISTINCT user_id)::DOUBLE, count(DISTINCT ip), count(DISTINCT device_id),
                max(label)
            FROM events WHERE truth_crowd IS NOT NULL GROUP BY 1""")
    }
    assert set(facts) == {"office", "campus", "carrier_nat", "family_tablet", "popular_inviter"}
    assert all(row[-1] == 0 for row in facts.values())
    for crowd, fewest in (("office", 20), ("campus", 60), ("carrier_nat", 15)):
        users, addresses, devices, _ = facts[crowd]
        assert users / addresses > fewest, crowd
        assert devices == users
    users, _, tablets, _ = facts["family_tablet"]
    assert 2 < users / tablets < 4


def test_no_family_has_more_than_four() -> None:
    assert ask("""
        SELECT max(n) FROM (SELECT count(DISTINCT user_id) n FROM events
            WHERE truth_crowd = 'family_tablet' GROUP BY device_id)""") == [(4,)]

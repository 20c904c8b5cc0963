"""Incidents against a recount in plain Python, in any cut, through snapshots, and when there are too many."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from detectors.incidents import Incidents
from schemas.config import Config, parse_config
from schemas.incidents import REST, UNTIED, Incident, IncidentCounts, counts_of, incident_of
from schemas.keys import KeyRing
from schemas.pseudonyms import Pseudonyms
from schemas.verdicts import LEVELS, Verdicts
from streams.replay import Core, batches
from tests.made_events import CONFIG, made_events, write_recording

RING = KeyRing(bytes(32))
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
_MORE = """
alerts: {min_users: 4, min_events: 9, period: 30m}
lateness: 10m
"""
Counted = dict[Incident, IncidentCounts]


def config_of(text: str = CONFIG + _MORE) -> Config:
    return parse_config({"a.yaml": text.encode()})[0]


def judged(path: Path, config: Config, batch_size: int) -> list[Verdicts]:
    core = Core(config, RING)
    return [core.judge(batch) for batch in batches([path], config, RING, batch_size)]


def counted(incidents: Incidents) -> Counted:
    return {incident_of(block.key): counts_of(block) for block in incidents.changed_blocks(0)}


def count_all(config: Config, turns: list[Verdicts], **more: Any) -> Counted:
    incidents = Incidents(config, RING, source=0, **more)
    found: Counted = {}
    for turn in turns:
        incidents.update(turn)
        found |= counted(incidents)
    assert incidents.missed_events == 0
    return found


def rows_of(turns: list[Verdicts]) -> list[dict[str, Any]]:
    """The verdicts as plain rows, by the events' own text."""
    rows = []
    for turn in turns:
        for i, row in enumerate(turn.rows.tolist()):
            codes = turn.reason_codes[turn.reason_offsets[i] : turn.reason_offsets[i + 1]].tolist()
            rows.append(
                {
                    "ts": int(turn.batch.integers[0, row]),
                    "late": bool(turn.late[i]),
                    "level": LEVELS[turn.level[i]],
                    "user": turn.user[i].tobytes().hex(),
                    "reasons": [turn.reason_names[code] for code in codes],
                    "cost": int(turn.batch.integers[3, row]),
                    **{field: turn.batch.text(field, row) for field in ("device_id", "ip", "campaign")},
                }
            )
    return rows


def recount(rows: list[dict[str, Any]], *, period_ms: int, lateness_ms: int) -> dict[tuple[Any, ...], Any]:
    """By (reason, dim, value, campaign, start): the rule of the ring, then the rule of the one who hurries."""
    pseudonyms = Pseudonyms(RING)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    front = max(row["ts"] for row in rows if not row["late"])
    for row in rows:
        if row["late"] or row["level"] not in ("review", "block"):
            continue
        start = row["ts"] // period_ms * period_ms
        tie: tuple[str, str, str | None]
        if "shared_device" in row["reasons"] and row["device_id"]:
            tie = ("shared_device", "device_id", pseudonyms.pseudonym("device", row["device_id"]))
        elif "from_advert" in row["reasons"] and row["ip"]:
            tie = ("from_advert", "ip", pseudonyms.pseudonym("ip", row["ip"]))
        elif "quick" in row["reasons"]:
            tie = ("quick", UNTIED, None)
        else:
            tie = (row["reasons"][0], UNTIED, None)
        groups[*tie, row["campaign"], start].append(row)
    return {
        (*key, period_ms): {
            "events": len(group),
            "users": len({row["user"] for row in group}),
            "review": sum(row["level"] == "review" for row in group),
            "cost_minor": sum(max(0, row["cost"]) for row in group),
            "first_ms": min(row["ts"] for row in group),
            "last_ms": max(row["ts"] for row in group),
            "raised_ms": raised(group),
            "accounts": tuple(dict.fromkeys(row["user"] for row in group))[:8],
            "reasons": tuple(sorted(count_reasons(group).items())),
            "over": key[4] + period_ms + lateness_ms <= front,
        }
        for key, group in groups.items()
    }


def raised(group: list[dict[str, Any]]) -> int | None:
    for i, row in enumerate(group):
        if i + 1 >= 9 and len({known["user"] for known in group[: i + 1]}) >= 4:
            return int(row["ts"])
    return None


def count_reasons(group: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for row in group:
        for reason in row["reasons"]:
            counts[reason] += 1
    return counts


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = made_events(9000, seed=5)
    for i in range(0, len(lines), 3):
        if lines[i].endswith(b"}") and b'"purchase"' in lines[i]:
            lines[i] = lines[i][:-1] + b', "cost_minor": 900}'
    return write_recording(tmp_path_factory.mktemp("incidents") / "events.jsonl", lines)


def test_they_equal_a_recount(recording: Path) -> None:
    config = config_of()
    turns = judged(recording, config, 1000)
    found = count_all(config, turns)
    wanted = recount(rows_of(turns), period_ms=HOUR_MS // 2, lateness_ms=HOUR_MS // 6)
    assert {tuple(getattr(key, name) for name in key.__struct_fields__) for key in found} == {
        (name, dim, value, campaign, start, period) for name, dim, value, campaign, start, period in wanted
    }
    for key, counts in found.items():
        expected = wanted[key.name, key.dim, key.dim_value, key.campaign, key.start_ms, key.period_ms]
        assert {name: getattr(counts, name) for name in expected} == expected
    assert sum(counts.over for counts in found.values()) > 5
    assert sum(counts.raised_ms is not None for counts in found.values()) > 5
    assert sum(counts.cost_minor for counts in found.values()) > 0


def test_incidents_of_a_campaign_that_ends_are_over_by_the_traffic_of_others(tmp_path: Path) -> None:
    """And stay open for as long as there is none: only events move event time."""
    config, lines = config_of(), made_events(9000, seed=5, broken=False)
    spring, autumn = ([line for line in lines if name in line] for name in (b'"spring"', b'"autumn"'))
    end = len(spring) // 4
    for more, over in (([], False), ([autumn[-1]], True)):
        recording = write_recording(tmp_path / f"{over}.jsonl", spring[:end] + more)
        found = count_all(config, judged(recording, config, 500))
        last_ms = max(key.start_ms for key in found)
        assert {counts.over for key, counts in found.items() if key.start_ms == last_ms} == {over}


@pytest.mark.parametrize("batch_size", [1, 13, 20_000])
def test_cuts_do_not_show(recording: Path, batch_size: int) -> None:
    config = config_of()
    assert count_all(config, judged(recording, config, batch_size)) == count_all(
        config, judged(recording, config, 700)
    )


def test_a_snapshot_goes_on_as_if_nothing_had_been(recording: Path) -> None:
    config = config_of()
    turns = judged(recording, config, 500)
    found: Counted = {}
    incidents = Incidents(config, RING, source=0)
    for turn in turns:
        incidents.update(turn)
        found |= counted(incidents)
        state = incidents.snapshot()
        incidents = Incidents(config, RING, source=0)
        incidents.restore(state)
    assert found == count_all(config, turns)


@pytest.mark.parametrize("batch_size", [1, 900])
def test_too_many_are_counted_together(batch_size: int, tmp_path: Path) -> None:
    config = config_of("""
features: {device_events: {entity: device_id, count: "*"}}
rules: {again: {when: device_events >= 1, weight: 0.9}}
""")
    lines = [
        json.dumps(
            {
                "event_id": f"{i}",
                "event": "x",
                "ts": 1_760_000_000_000,
                "user_id": f"u{i}",
                "device_id": f"d{i % 300}",
            }
        ).encode()
        for i in range(900)
    ]
    turns = judged(write_recording(tmp_path / "many.jsonl", lines), config, batch_size)
    found = count_all(config, turns, most_incidents=1)
    rest = [counts for incident, counts in found.items() if incident.dim == REST]
    assert len(found) == 64 + 1
    assert [(counts.events, counts.users) for counts in rest] == [(2 * (300 - 64), 2 * (300 - 64))]
    assert sum(counts.events for counts in found.values()) == 600
    assert rest[0].accounts == tuple(Pseudonyms(RING).pseudonym("user", f"u{300 + i}") for i in range(64, 72))

"""Alerts of real workers: each incident told once everywhere, though a worker is killed and a channel is dead."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import redis

from schemas.alerts import alert_id
from tests.alert_receiver import receiver
from tests.installation import PATIENCE_S, Install
from tests.made_events import made_events, write_recording
from tests.recounts import rows_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PERIOD_MS, LATENESS_MS = 1_800_000, 600_000
BLOCKS = """
lateness: 10m
alerts:
  period: 30m
  give_up: 1s
  channels:
    ops: {url_env: WOOLWATCH_ALERT_OPS, allow_private: true, allow_plain: true}
    dead: {url_env: WOOLWATCH_ALERT_DEAD, allow_private: true, allow_plain: true}
"""
TIES = (
    ("farm", "device_id"),
    ("shared_device", "device_id"),
    ("quick", "all"),
    ("rented", "ip"),
    ("model:anomaly", "all"),
    ("from_advert", "ip"),
)
"""Reasons in tests/made_events.py by falling weight, and what they look at."""
NOBODY = "http://127.0.0.1:1/"


def recount(out: Path) -> set[tuple[str, str]]:
    """Ids and states of the incidents in the verdicts, counted again."""
    columns = 'epoch_ms(ts), partition, level, "user", device, ip, campaign, reasons'
    groups: dict[tuple[Any, ...], list[tuple[int, int, str]]] = defaultdict(list)
    fronts: dict[int, int] = defaultdict(int)
    for ts, partition, level, user, device, ip, campaign, reasons in rows_of(out, "verdicts", columns):
        fronts[partition] = max(fronts[partition], ts)
        if level not in ("review", "block"):
            continue
        entities = {"device_id": device, "ip": ip}
        shared = [(name, dim) for name, dim in TIES if name in reasons and dim in entities]
        name, dim = (shared or [(name, "all") for name, _ in TIES if name in reasons])[0]
        tie = (name, dim, entities.get(dim))
        groups[*tie, campaign, ts // PERIOD_MS * PERIOD_MS].append((ts, partition, user))
    found = set()
    for (name, dim, value, campaign, start), rows in groups.items():
        if len(rows) < 3 or len({user for _, _, user in rows}) < 3:
            continue
        incident = alert_id(
            "wool_party", name, campaign=campaign, dim=dim, dim_value=value, incident=(start, PERIOD_MS)
        )
        found.add((incident, "open"))
        if all(start + PERIOD_MS + LATENESS_MS <= fronts[partition] for _, partition, _ in rows):
            found.add((incident, "resolved"))
    return found


def read_group(url: str, namespace: str) -> list[tuple[str, str]]:
    """What a consumer group has not read yet, as docs/REDIS.md shows it."""
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    stream = f"{{{namespace}}}:alerts"
    with contextlib.suppress(redis.ResponseError):  # the group is there
        client.xgroup_create(stream, "desk", id="0", mkstream=True)
    told = []
    while batches := client.xreadgroup("desk", "reader-1", {stream: ">"}, count=100):
        for entry, alert in batches[0][1]:
            told.append((alert["id"], alert["state"]))
            client.xack(stream, "desk", entry)
    client.close()
    return told


def test_each_incident_is_told_once_everywhere(install: Install, tmp_path: Path) -> None:
    installation = install(2, alerts=BLOCKS)
    lines = made_events(9000, seed=5)
    halves = [
        write_recording(tmp_path / f"{i}.jsonl", part) for i, part in enumerate((lines[:5000], lines[5000:]))
    ]
    with receiver() as hook:
        channels = {"WOOLWATCH_ALERT_OPS": hook.url, "WOOLWATCH_ALERT_DEAD": NOBODY}
        first = installation.start_worker(**channels)
        installation.load(halves[0])
        assert hook.came.wait(PATIENCE_S), installation.logs()
        told = read_group(installation.redis.url, installation.namespace)
        installation.kill(first)
        worker = installation.start_worker(**channels)
        installation.load(halves[1])
        installation.wait_until_judged(len(lines))
        wanted = recount(installation.out)
        assert len(wanted) > 20
        hook.wait_for({f"{incident}:{state}" for incident, state in wanted}, PATIENCE_S)
        assert installation.stop(worker) == 0
    assert {state for _, state in wanted} == {"open", "resolved"}
    told += read_group(installation.redis.url, installation.namespace)
    assert Counter(told) == Counter(wanted)
    assert Counter(rows_of(installation.out, "alerts", "id, state")) == Counter(wanted)
    assert set(rows_of(installation.out, "alerts", "ts is null or text_zh = '' or text_en = ''")) == {
        (False,)
    }
    ended = Counter(rows_of(installation.out, "deliveries", "id, state, channel, outcome"))
    assert set(ended.values()) == {1}
    assert {(channel, outcome) for _, _, channel, outcome in ended} == {("ops", "sent"), ("dead", "failed")}
    assert {(incident, state) for incident, state, *_ in ended} == wanted
    assert "token" not in installation.logs()


def test_one_partition_tells_what_replay_tells(install: Install, tmp_path: Path) -> None:
    installation = install(1, alerts=BLOCKS)
    lines = [line for line in made_events(9000, seed=5) if b'"signup"' in line or b'"purchase"' in line]
    recording = write_recording(tmp_path / "events.jsonl", lines)
    installation.load(recording)
    worker = installation.start_worker(WOOLWATCH_ALERT_OPS=NOBODY, WOOLWATCH_ALERT_DEAD=NOBODY)
    installation.wait_until_judged(len(lines))
    assert installation.stop(worker) == 0
    installation.replay(recording, out=tmp_path / "replayed")
    live, replayed = (
        Counter(rows_of(out, "alerts", "id, state, ts")) for out in (installation.out, tmp_path / "replayed")
    )
    assert live == replayed
    assert len(live) > 5

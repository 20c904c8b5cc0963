"""Workers on a real Kafka and a real Redis: every event one verdict, every number counted a second time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from streams.config_files import read_config
from tests.installation import Install
from tests.made_events import STEPS, made_events, write_recording
from tests.recounts import (
    recount_dau,
    recount_features,
    recount_funnel_suspects,
    recount_retention,
    redis_equals_parquet,
    rows_of,
    same_tables,
)

pytestmark = pytest.mark.integration

HOUR_MS = 3_600_000
GROSS = "* exclude (users_suspect, users_clean)"


def test_one_partition_equals_replay_to_the_bit(install: Install, tmp_path: Path) -> None:
    installation = install(1)
    # Only participations, so that there is one topic and replay's order is the only one.
    lines = [line for line in made_events(6000) if b'"signup"' in line or b'"purchase"' in line]
    recording = write_recording(tmp_path / "events.jsonl", lines)
    installation.load(recording)
    worker = installation.start_worker()
    installation.wait_until_judged(len(lines))
    assert installation.stop(worker) == 0
    installation.replay(recording, out=tmp_path / "replayed")
    same_tables(
        installation.out,
        tmp_path / "replayed",
        "verdicts",
        "late",
        "metrics/funnel",
        "metrics/dau",
        "metrics/retention",
        "metrics/events",
    )
    assert len(rows_of(installation.out, "verdicts")) > 1500
    reasons = Counter(
        reason for (listed,) in rows_of(installation.out, "verdicts", "reasons") for reason in listed
    )
    assert min(reasons[name] for name in ("staff", "farm", "rented")) >= 5, reasons
    kept = [path.read_bytes() for path in (installation.state / "lists").iterdir()]
    assert len(kept) == 3
    assert not any(b"farm2" in content for content in kept)


def test_two_workers_count_as_one(install: Install, tmp_path: Path) -> None:
    installation = install(3)
    lines = made_events(12_000)
    recording = write_recording(tmp_path / "events.jsonl", lines)
    workers = [installation.start_worker(), installation.start_worker()]
    installation.load(recording)
    report = installation.wait_until_judged(len(lines))
    assert [installation.stop(worker) for worker in workers] == [0, 0]

    assert sum(source["consumed"] for source in report["sources"]) == len(lines)
    config, _ = read_config(installation.config)
    assert recount_features(config, installation.sightings(), installation.out) > 10 * len(lines) / 2
    assert recount_dau(installation.out, restate_ms=config.restate_ms) > 5
    assert recount_retention(installation.out, days=3, restate_ms=config.restate_ms) >= 3
    assert recount_funnel_suspects(installation.out, STEPS, 24 * HOUR_MS) == 6
    assert redis_equals_parquet(installation.redis.url, installation.namespace, installation.out) > 20

    # Against replay: what does not hang on the race between partitions.
    installation.replay(recording, out=tmp_path / "replayed")
    for table in ("metrics/funnel", "metrics/dau", "metrics/retention"):
        same_tables(installation.out, tmp_path / "replayed", table, columns=GROSS)
    ids = [
        Counter(rows_of(out, "verdicts", "event_id, event, ts"))
        for out in (installation.out, tmp_path / "replayed")
    ]
    assert ids[0] == ids[1]

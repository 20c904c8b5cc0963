"""A conversion step that breaks in one channel: told once, and once that it is over, also when workers are killed."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from kafka import KafkaConsumer, TopicPartition

from schemas.alerts import Alert, decode_alert
from schemas.keys import KeyRing
from streams.config_files import read_config
from streams.replay import replay
from tests.installation import KEY, PATIENCE_S, Install, Installation

pytestmark = pytest.mark.integration

PARTITIONS = 3
WINDOW_MS = 20 * 60_000
CONFIG = """
funnels: {conversion: {steps: [click, signup, participate, redeem], within: 24h, by: [channel]}}
kpi_alerts:
  participation: {metric: "funnel.conversion.rate(2, 3)", by: channel, window: 20m, below: 0.3, for: 2}
  clicks:        {metric: events.click.count, window: 20m, below: 1}
"""


def test_one_alert_and_one_notice_through_a_kill(install: Install, tmp_path: Path) -> None:
    installation = install(PARTITIONS, CONFIG)
    recording = tmp_path / "broken.parquet"
    begin = "1767225600000"  # 2026-01-01T00:00Z, the begin of a window
    installation.run(
        *("simulate", "--out", recording, "--events", "20000", "--start", begin, "--duration", "8h"),
        *("--break", "channel=ads, step=participate, from=4h, for=100m"),
    )
    broken_ms = int(begin) + 4 * 3_600_000
    before, after = cut(recording, at_ms=broken_ms + 4 * WINDOW_MS)
    killed = installation.start_worker()
    installation.load(before)
    first = told(installation, "open")
    installation.kill(killed)
    worker = installation.start_worker()
    installation.load(after)
    alerts = told(installation, "open", "resolved")
    assert installation.stop(worker) == 0

    opened, resolved = alerts["open"], alerts["resolved"]
    assert opened == first["open"]
    assert (opened.name, opened.dim, opened.dim_value) == ("participation", "channel", "ads")
    assert opened.since_ms >= broken_ms
    assert broken_ms < opened.ts_ms <= broken_ms + 3 * WINDOW_MS
    assert resolved.id == opened.id
    assert resolved.ts_ms == broken_ms + 5 * WINDOW_MS + 2 * WINDOW_MS
    assert "signup → participate" in opened.title_zh
    assert "below 30.0%" in opened.title_en

    config, _ = read_config(installation.config)
    summary = replay([recording], config, KeyRing(KEY.encode()), tmp_path / "replayed", batch_size=5_000)
    assert summary.kpi_alerts == (opened, resolved)


def cut(recording: Path, *, at_ms: int) -> tuple[Path, Path]:
    """The recording up to a time, and from there on."""
    events = pq.read_table(recording)
    early = pc.less(events["ts"], at_ms)
    parts = recording.with_name("before.parquet"), recording.with_name("after.parquet")
    for path, chosen in zip(parts, (early, pc.invert(early)), strict=True):
        pq.write_table(events.filter(chosen), path)
    return parts


def told(installation: Installation, *states: str) -> dict[str, Alert]:
    """The alerts in the topic, once there is one of each state; whatever else is there must be a repeat of these."""
    topic = f"{installation.namespace}-alerts"
    found: dict[str, Alert] = {}
    consumer = KafkaConsumer(
        bootstrap_servers=installation.kafka.bootstrap, group_id=None, enable_auto_commit=False
    )
    try:
        tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(tps)
        consumer.seek_to_beginning()
        deadline = time.monotonic() + PATIENCE_S / 2
        while time.monotonic() < deadline and not found.keys() >= set(states):
            for records in consumer.poll(200).values():
                for record in records:
                    alert = decode_alert(record.value)
                    if alert.kind != "kpi":
                        continue
                    assert found.setdefault(alert.state, alert) == alert
    finally:
        consumer.close()
    assert found.keys() >= set(states), installation.logs()
    return found

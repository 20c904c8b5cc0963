"""Workers are killed at random and started again: no verdict is lost, doubled or different, no number wrong."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from streams.config_files import read_config
from tests.installation import Installation
from tests.made_events import STEPS, made_events, write_config, write_recording
from tests.recounts import (
    recount_dau,
    recount_features,
    recount_funnel_suspects,
    redis_equals_parquet,
    rows_of,
    same_tables,
)
from tests.services import KafkaBroker, RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(400)]

KILLS = 6
HOUR_MS = 3_600_000


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until_gone(children: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(_alive(child) for child in children):
        assert time.monotonic() < deadline, "a killed worker left children behind"


def test_six_kills_change_nothing(
    tmp_path: Path, kafka: KafkaBroker, redis_server: RedisServer, topic_prefix: str
) -> None:
    draw = random.Random(20261122)
    config_folder = write_config(tmp_path / "config")
    installation = Installation(tmp_path, kafka, redis_server, topic_prefix, config_folder, partitions=2)
    lines = made_events(16_000, seed=3)
    recording = write_recording(tmp_path / "events.jsonl", lines)
    try:
        workers = [installation.start_worker(), installation.start_worker()]
        loading = threading.Thread(
            target=installation.load, args=(recording,), kwargs={"rate": 300}, daemon=True
        )
        loading.start()
        for _ in range(KILLS):
            loading.join(draw.uniform(3.0, 8.0))
            victim = draw.randrange(len(workers))
            while len(children := _children(workers[victim].pid)) < 2:
                assert workers[victim].poll() is None, installation.logs()
            installation.kill(workers[victim])
            _wait_until_gone(children)
            workers[victim] = installation.start_worker()
        loading.join()
        report = installation.wait_until_judged(len(lines))
        assert [installation.stop(worker) for worker in workers] == [0, 0]
    finally:
        installation.close()

    assert sum(source["consumed"] for source in report["sources"]) == len(lines)
    offsets = rows_of(installation.out, "verdicts", 'topic, partition, "offset"')
    assert len(offsets) == len(set(offsets))
    config, _ = read_config(config_folder)
    assert recount_features(config, installation.sightings(), installation.out) > 10 * len(lines) / 2
    assert recount_dau(installation.out, restate_ms=config.restate_ms) > 5
    assert recount_funnel_suspects(installation.out, STEPS, 24 * HOUR_MS) == 6
    assert redis_equals_parquet(installation.redis.url, installation.namespace, installation.out) > 20

    installation.replay(recording, out=tmp_path / "replayed")
    for table in ("metrics/funnel", "metrics/dau"):
        same_tables(
            installation.out, tmp_path / "replayed", table, columns="* exclude (users_suspect, users_clean)"
        )
    sent, got = (
        Counter(rows_of(out, "verdicts", "event_id, event, ts"))
        for out in (tmp_path / "replayed", installation.out)
    )
    assert sent == got

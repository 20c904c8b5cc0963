"""Labels on a real Kafka: learned at their time by every judge, through kills; broken ones become dead letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installation import Install
from tests.labelled_events import CONFIG, labelled_events, write_labelled
from tests.recounts import rows_of, same_tables

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

TABLES = ("verdicts", "late", "metrics/dau")


def test_one_partition_equals_replay_to_the_bit_through_a_kill(install: Install, tmp_path: Path) -> None:
    installation = install(1, CONFIG)
    events = labelled_events(3000)
    parts = [
        write_labelled(tmp_path / f"{first}.jsonl", events[first : first + 1000])
        for first in range(0, len(events), 1000)
    ]
    worker = installation.start_worker()
    installation.load(parts[0], label_delay="1d")
    installation.wait_until_judged(1000)
    installation.kill(worker)
    installation.load(parts[1], label_delay="1d")
    # Dies when the log has the labels' turn and nothing else has.
    installation.expect_death(installation.start_worker(WOOLWATCH_FAULT="labels.recorded:1"), within_s=180)
    worker = installation.start_worker()
    for part in parts[2:]:
        installation.load(part, label_delay="1d")
    installation.wait_until_judged(len(events))
    assert installation.stop(worker) == 0
    installation.replay(*parts, out=tmp_path / "replayed", label_delay="1d")
    same_tables(installation.out, tmp_path / "replayed", *TABLES)
    strengths = {row for (row,) in rows_of(installation.out, "verdicts", "m_labelled")}
    assert len(strengths) > 1000
    assert 0.0 in strengths

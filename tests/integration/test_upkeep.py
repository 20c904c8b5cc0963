"""Compaction and retention of an installation at work: killed, run again, and reconcile agrees all the while."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from sinks.faults import FAULT_VARIABLE
from tests.installation import Install, Installation
from tests.made_events import made_events
from tests.recounts import rows_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DAYS, PASSES, EVENTS = 6, 5, 200


def over_days(seed: int) -> list[bytes]:
    """Events of some days in order; those of a later pass are late, but for the last ones."""
    events = [json.loads(line) for line in made_events(EVENTS, seed, broken=False)]
    for i, event in enumerate(events):
        event["ts"] += i * DAYS * 86_400_000 // EVENTS
    return [json.dumps(event).encode() for event in events]


def keys(installation: Installation) -> list[tuple[Any, ...]]:
    columns = 'topic, "partition", "offset"'
    return sorted(row for table in ("verdicts", "late") for row in rows_of(installation.out, table, columns))


def files(installation: Installation) -> int:
    return len(list(installation.out.glob("verdicts/*/*"))) + len(list(installation.out.glob("late/*/*")))


def told(installation: Installation, *arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        installation.run(*arguments, "--out", installation.out, "--json").stdout
    )
    return report


def test_reconcile_agrees_before_during_and_after(install: Install, tmp_path: Path) -> None:
    installation = install(1)
    worker = installation.start_worker()
    for number in range(PASSES):
        (recording := tmp_path / f"{number}.jsonl").write_bytes(b"\n".join(over_days(number + 1)))
        installation.load(recording)
        installation.wait_until_judged((number + 1) * EVENTS)
    before, many = keys(installation), files(installation)
    would = told(installation, "compact", "--dry-run")

    killed = installation.run(
        "compact", "--out", installation.out, check=False, **{FAULT_VARIABLE: "compact.published:2"}
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(keys(installation)) > len(before), "killed too early to prove anything"
    assert not installation.reconcile()["problems"]

    report = told(installation, "compact")
    assert len(report["finished"]) == 1
    assert len(report["done"]) + 2 == len(would["done"])
    assert keys(installation) == before
    saved = sum(done["files_before"] - done["files_after"] for done in would["done"])
    assert files(installation) == many - saved < many
    assert not installation.reconcile()["problems"]

    gone = sum(done["rows"] for done in told(installation, "expire", "--keep", "2d")["done"])
    after = installation.reconcile()
    assert not after["problems"]
    assert (
        sum(source["expired"] for source in after["sources"])
        == gone
        == len(before) - len(keys(installation))
        > 0
    )
    assert installation.stop(worker) == 0

    max(installation.out.glob("verdicts/*/*.parquet")).unlink()
    assert "are accounted for" in installation.reconcile()["problems"][0], "a real loss is still found"


def test_what_is_wrong_is_said_in_one_sentence(install: Install, tmp_path: Path) -> None:
    installation = install(1)
    for arguments, code, sentence in (
        (("expire", "--out", tmp_path), 2, "Missing option '--keep'"),
        (("compact", "--out", tmp_path, "--settle", "tomorrow"), 2, "expected a duration"),
        (("compact", "--out", tmp_path), 2, "has no log of commits"),
        (("compact", "--out", tmp_path / "none"), 2, "no folder"),
        (("expire", "--out", "s3://bucket/x", "--keep", "1d"), 2, "expected a folder"),
    ):
        done = installation.run(*arguments, check=False)
        assert (done.returncode, sentence in done.stderr, "Traceback" in done.stderr) == (
            code,
            True,
            False,
        ), done

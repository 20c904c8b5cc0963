"""Compaction and retention of an installation at work: killed, run again, and reconcile agrees all the while."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from sinks.faults import FAULT_VARIABLE
from sinks.store import Store
from streams.settings import open_store
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


def seen(installation: Installation) -> list[tuple[Any, ...]]:
    """What a reader who globs sees; with the tables on S3, brought here for that."""
    if installation.store:
        shutil.rmtree(installation.out, ignore_errors=True)
        installation.download()
    columns = 'topic, "partition", "offset"'
    return sorted(row for table in ("verdicts", "late") for row in rows_of(installation.out, table, columns))


def files(store: Store) -> int:
    return len(store.names("verdicts")) + len(store.names("late"))


def told(installation: Installation, *arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(installation.run(*arguments, "--json").stdout)
    return report


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_reconcile_agrees_before_during_and_after(
    install: Install, tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    installation = install(1)
    installation.store = request.getfixturevalue("s3_uri") if place == "s3" else None
    store, out = open_store(installation.tables), ("--out", installation.tables)
    worker = installation.start_worker()
    for number in range(PASSES):
        (recording := tmp_path / f"{number}.jsonl").write_bytes(b"\n".join(over_days(number + 1)))
        installation.load(recording)
        installation.wait_until_judged((number + 1) * EVENTS)
    before, many = seen(installation), files(store)
    would = told(installation, "compact", *out, "--dry-run")

    killed = installation.run("compact", *out, check=False, **{FAULT_VARIABLE: "compact.published:2"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(seen(installation)) > len(before), "killed too early to prove anything"
    assert not installation.reconcile()["problems"]
    if installation.store:
        refused = installation.run("compact", *out, check=False)
        assert (refused.returncode, "is at work on" in refused.stderr) == (3, True)
        store.remove(["_log/upkeep.lease"])  # as when its time is over

    report = told(installation, "compact", *out)
    assert len(report["finished"]) == 1
    assert len(report["done"]) + 2 == len(would["done"])
    assert seen(installation) == before
    saved = sum(done["files_before"] - done["files_after"] for done in would["done"])
    assert files(store) == many - saved < many
    assert not installation.reconcile()["problems"]
    assert judged_again(installation) == len(before)

    gone = sum(done["rows"] for done in told(installation, "expire", *out, "--keep", "2d")["done"])
    after = installation.reconcile()
    assert not after["problems"]
    left = len(seen(installation))
    assert sum(source["expired"] for source in after["sources"]) == gone == len(before) - left > 0
    assert judged_again(installation) == left
    assert installation.stop(worker) == 0

    store.remove(store.names("verdicts")[-1:])
    assert "are accounted for" in installation.reconcile()["problems"][0], "a real loss is still found"


def judged_again(installation: Installation) -> int:
    """How many rows ``replay --from-verdicts`` judges, each as it was."""
    report = installation.folder / "report.json"
    installation.run(
        *("replay", "--from-verdicts", installation.tables),
        *("--state", installation.state, "--json", report),
    )
    found = json.loads(report.read_bytes())
    assert not found["differences"]
    same: int = found["same"]
    return same


def test_what_is_wrong_is_said_in_one_sentence(install: Install, tmp_path: Path) -> None:
    installation = install(1)
    for arguments, code, sentence in (
        (("expire", "--out", tmp_path), 2, "Missing option '--keep'"),
        (("compact", "--out", tmp_path, "--settle", "tomorrow"), 2, "expected a duration"),
        (("compact", "--out", tmp_path), 2, "has no log of commits"),
        (("compact", "--out", tmp_path / "none"), 2, "has no log of commits"),
        (("expire", "--out", "gs://bucket/x", "--keep", "1d"), 2, "expected a folder"),
    ):
        done = installation.run(*arguments, check=False)
        assert (done.returncode, sentence in done.stderr, "Traceback" in done.stderr) == (
            code,
            True,
            False,
        ), done

"""Somebody's own data: a CSV with other column names, a first start at a time."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.installation import Install
from tests.made_events import made_events
from tests.recounts import rows_of, same_tables

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NAMES = {
    "event_id": "id",
    "event": "action",
    "ts": "when",
    "user_id": "uid",
    "device_id": "handset",
    "dwell_ms": "stay",
}


def write_csv(path: Path, lines: list[bytes], *, iso: bool) -> Path:
    """The events under other names, the time as text with a zone."""
    rows = []
    for line in lines:
        event = {NAMES.get(name, name): value for name, value in json.loads(line).items()}
        if iso:
            event["when"] = datetime.fromtimestamp(event["when"] / 1000, UTC).isoformat(
                timespec="milliseconds"
            )
        rows.append(event)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_csv_of_other_names_from_a_time_on(install: Install, tmp_path: Path) -> None:
    fields = "\n".join(f"  {ours}: {theirs}" for ours, theirs in NAMES.items())
    installation = install(1, fields=f"fields:\n{fields}\n")
    # Of one topic, so that their order is the same everywhere.
    lines = [line for line in made_events(2_000, broken=False) if b'"product_view"' in line]
    before, after = lines[:200], lines[200:]
    installation.load(write_csv(tmp_path / "before.csv", before, iso=False))
    # Records go by the clock in whole milliseconds, and the next process takes longer than one to start.
    start = (datetime.now(UTC) + timedelta(milliseconds=1)).isoformat()
    recording = write_csv(tmp_path / "after.csv", after, iso=True)
    installation.load(recording)
    worker = installation.start_worker(WOOLWATCH_FROM=start)
    installation.wait_until_judged(len(after))
    assert installation.stop(worker) == 0
    ids = {event_id for (event_id,) in rows_of(installation.out, "verdicts", "event_id")}
    assert ids == {json.loads(line)["event_id"] for line in after}
    installation.replay(recording, out=tmp_path / "replayed")
    same_tables(installation.out, tmp_path / "replayed", "verdicts", columns='* exclude ("offset")')
    same_tables(installation.out, tmp_path / "replayed", "metrics/funnel", "metrics/dau", "metrics/events")
    # Both topics were asked for the time; the one without a later record begins at its end.
    state = installation.reconcile()["sources"]
    assert {(source["topic"], source["first"]) for source in state} >= {("clicks", len(before))}


def test_a_file_of_seconds_is_noticed_at_once(install: Install, tmp_path: Path) -> None:
    installation = install(1)
    file = tmp_path / "events.csv"
    file.write_text(
        "event_id,event,ts,user_id\n1,click,1767225600,a\n2,click,2026-01-01 00:00:00,b\n3,click,,c\n"
    )
    said = installation.run("load", file, *installation.endpoints())
    assert (
        "2 rows have a ts that will be rejected, the first is 1767225600; expected epoch milliseconds"
        in said.stderr
    )
    assert "1 rows will be rejected, for they have no ts; where your fields" in said.stderr
    assert "published 3 to clicks" in said.stdout


def test_a_file_of_other_names_is_noticed_at_once(install: Install, tmp_path: Path) -> None:
    installation = install(1, fields="fields: {user_id: member, event: what}\n")
    file = tmp_path / "events.csv"
    file.write_text("event_id,what,ts,user_id\n1,click,1767225600000,a\n2,,1767225600000,b\n")
    said = installation.run("load", file, *installation.endpoints())
    assert "2 rows will be rejected, for they have no member, what;" in said.stderr

"""Replay with labels against River itself: each label is learned just before the first row whose time has come."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.config import parse_config
from schemas.keys import KeyRing
from streams.replay import replay
from tests.labelled_events import CONFIG, DAY_MS, INPUTS, labelled_events, river_strengths, write_labelled
from tests.recounts import rows_of, same_tables

RING = KeyRing(bytes(range(32)))


def _replayed(out: Path, recording: Path, *, batch_size: int, delay_ms: int | None) -> Path:
    config, _ = parse_config({"a.yaml": CONFIG.encode()})
    replay([recording], config, RING, out, batch_size=batch_size, label_delay_ms=delay_ms)
    return out


@pytest.mark.parametrize("delay_ms", [0, 5_000_000, DAY_MS])
def test_scores_are_those_of_river_row_by_row(tmp_path: Path, delay_ms: int) -> None:
    events = labelled_events(1200)
    out = _replayed(
        tmp_path / "out", write_labelled(tmp_path / "e.jsonl", events), batch_size=100, delay_ms=delay_ms
    )
    columns = '"offset", epoch_ms(ts), f_device_other_users, dwell_ms, amount_minor, m_labelled'
    rows = sorted(
        [(row[0], False, *row[1:]) for row in rows_of(out, "verdicts", columns)]
        + [(row[0], True, *row[1:]) for row in rows_of(out, "late", columns)]
    )
    assert any(late for _, late, *_ in rows)
    assert len(rows) < len(events)
    judged = [(ts, late, list(values), events[offset].get("label")) for offset, late, ts, *values, _ in rows]
    assert all(len(values) == len(INPUTS) for _, _, values, _ in judged)
    assert [row[-1] for row in rows] == river_strengths(judged, delay_ms)


def test_cuts_change_nothing(tmp_path: Path) -> None:
    recording = write_labelled(tmp_path / "e.jsonl", labelled_events(900))
    outs = [
        _replayed(tmp_path / str(size), recording, batch_size=size, delay_ms=3_600_000)
        for size in (1, 7, 4096)
    ]
    for out in outs[1:]:
        same_tables(outs[0], out, "verdicts", "late", "metrics/dau")
    assert max(rows_of(outs[0], "verdicts", "m_small"))[0] > 0


def test_without_a_delay_labels_are_ignored(tmp_path: Path) -> None:
    recording = write_labelled(tmp_path / "e.jsonl", labelled_events(300))
    out = _replayed(tmp_path / "out", recording, batch_size=64, delay_ms=None)
    assert set(rows_of(out, "verdicts", "m_labelled, m_small")) == {(0.0, 0.0)}


def test_only_what_needs_explaining_names_a_classifier(tmp_path: Path) -> None:
    recording = write_labelled(tmp_path / "e.jsonl", labelled_events(1200))
    out = _replayed(tmp_path / "out", recording, batch_size=512, delay_ms=DAY_MS)
    reasons = {
        (level, "model:labelled" in found) for level, found in rows_of(out, "verdicts", "level, reasons")
    }
    assert ("pass", True) not in reasons
    assert ("observe", True) in reasons
    (evidence,) = rows_of(out, "verdicts", "arg_max(evidence, score)")[0]
    assert '"contributions":{"device_other_users":' in evidence

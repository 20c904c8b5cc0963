"""The score, counted by hand on a table that fits on a page."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import RecordingError
from simulation.score import Group, Kind, as_text, score

# event, user, kind, crowd, level, cost, reasons
ROWS = [
    ("e1", "u1", "script", None, "pass", 300, []),
    ("e2", "u1", "script", None, "block", 500, ["quick"]),
    ("e3", "u2", "script", None, "observe", 700, ["shared"]),
    ("e4", "u3", "device_farm", None, "review", None, ["shared", "quick"]),
    ("e5", "u4", None, "office", "pass", 100, []),
    ("e6", "u5", None, "office", "review", 40, ["shared", "odd"]),
    ("e7", "u6", None, None, "pass", None, ["shared"]),
    ("e8", "u7", None, None, None, 900, []),
]


def write(folder: Path) -> tuple[Path, Path]:
    verdicts = folder / "out" / "verdicts" / "date=2026-03-02"
    verdicts.mkdir(parents=True)
    judged = [row for row in ROWS if row[4] is not None]
    columns = {"event_id": 0, "level": 4, "cost_minor": 5, "reasons": 6}
    pq.write_table(
        pa.table({name: [row[at] for row in judged] for name, at in columns.items()}), verdicts / "a.parquet"
    )
    truth = {"event_id": 0, "user_id": 1, "truth_kind": 2, "truth_crowd": 3}
    pq.write_table(
        pa.table({name: [row[at] for row in ROWS] for name, at in truth.items()}), folder / "t.parquet"
    )
    return folder / "out", folder / "t.parquet"


def test_users_count_once_and_money_where_it_was_stopped(tmp_path: Path) -> None:
    result = score(*write(tmp_path))
    # u5: "shared" caught the farm alone, "odd" nobody that was planted.
    assert result.kinds == (Kind("device_farm", 1, 1, 0.75), Kind("script", 2, 1, 0.25))
    assert [kind.precision for kind in result.kinds] == pytest.approx([1 / 1.75, 1 / 1.25])
    assert result.crowds == (Group("none", 1, 0), Group("office", 2, 1))
    assert (result.planted, result.honest) == (Group("planted", 3, 2), Group("honest", 3, 1))
    assert result.precision == pytest.approx(2 / 3)
    assert result.recall == pytest.approx(2 / 3)
    assert (result.planted_cost_minor, result.prevented_cost_minor, result.refused_cost_minor) == (
        1_500,
        500,
        40,
    )
    text = as_text(result)
    assert "script                 2        1    0.500     0.8000" in text
    assert "15.00, of it prevented 5.00; held back from the honest 0.40" in text


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    out, truth = write(tmp_path)
    with pytest.raises(RecordingError, match="nowhere"):
        score(tmp_path / "nowhere", truth)
    with pytest.raises(RecordingError, match="verdicts"):
        score(out, next((out / "verdicts").rglob("*.parquet")))

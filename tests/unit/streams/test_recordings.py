from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from streams.recordings import raw_events, tables

FIELDS = {"ts": "when", "user_id": "uid", "dwell_ms": "stay", "lat": "y"}


def written(folder: Path, *rows: str) -> Path:
    file = folder / "events.csv"
    file.write_text("\n".join(["id,when,uid,stay,y,note", *rows]) + "\n")
    return file


def test_numbers_of_a_csv_are_found_under_the_names_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "a,1767225600000,7,40,31.5,12")
    ((raw, event),) = next(raw_events([file], FIELDS))
    assert event == {"id": "a", "when": 1767225600000, "uid": "7", "stay": 40, "y": 31.5, "note": "12"}
    assert orjson.loads(raw) == event
    ((_, unmapped),) = next(raw_events([file]))
    assert unmapped is not None
    assert unmapped["when"] == "1767225600000"


@pytest.mark.parametrize(
    ("written_time", "read"),
    [
        ("2026-01-01T00:00:00Z", 1767225600000),
        ("2026-01-01 08:00:00.1239+08:00", 1767225600123),
        ("1969-12-31T23:59:59.9995Z", -1),
        ("1767225600", 1767225600),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00"),
        ("2026-01-01", "2026-01-01"),
        ("yesterday", "yesterday"),
    ],
)
def test_a_time_with_its_zone_is_read_and_no_other_is_guessed(
    tmp_path: Path, written_time: str, read: int | str
) -> None:
    file = written(tmp_path, f"a,{written_time},7,40,,", "b,1767225600000,8,,,")
    (_, first), (_, second) = next(raw_events([file], FIELDS))
    assert first is not None
    assert second is not None
    assert first["when"] == read
    assert second["when"] == 1767225600000
    (table,) = tables(file, FIELDS)
    assert table.column("when").to_pylist() == [str(read), "1767225600000"]

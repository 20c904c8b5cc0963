"""``woolwatch simulate`` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from commands.group import cli
from schemas.errors import ConfigError, RecordingError


def simulate(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(cli, ["simulate", *map(str, arguments)])


def test_a_campaign_begins_when_it_is_told_to(tmp_path: Path) -> None:
    for number, start in enumerate(("2026-03-02T08:00", "2026-03-02T00:00+00:00", "1772409600000")):
        path = tmp_path / f"{number}.parquet"
        done = simulate("--out", path, "--events", 500, "--start", start, "--duration", "1d", "--seed", 3)
        assert done.exit_code == 0, done.output
        assert done.stdout == f"500 events: {path}\ntruth: {tmp_path / f'{number}.truth.parquet'}\n"
    first, *others = (pq.read_table(tmp_path / f"{number}.parquet") for number in range(3))
    assert all(other.equals(first) for other in others)
    assert first["ts"][0].as_py() >= 1_772_409_600_000


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--start", "monday", "expected a time such as"),
        ("--start", "99999999999999999999", "expected a time such as"),
        ("--start", "946684799999", "expected a time such as"),
        ("--duration", "3 days", "expected a duration"),
        ("--events", "0", "0 is not in the range"),
        ("--seed", "-1", "-1 is not in the range"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_do(
    tmp_path: Path, option: str, value: str, expected: str
) -> None:
    done = simulate("--out", tmp_path / "a.parquet", option, value)
    assert done.exit_code == 2
    assert option in done.output
    assert expected in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_break_and_a_wrong_ending_are_errors_of_ours(tmp_path: Path) -> None:
    broken = simulate("--out", tmp_path / "a.parquet", "--break", "channel=tv, step=click, from=1h, for=1h")
    assert isinstance(broken.exception, ConfigError)
    ending = simulate("--out", tmp_path / "a.xlsx")
    assert isinstance(ending.exception, RecordingError)

"""No test disappears unseen: what conftest.py does to skips, expected failures and missing data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import REPOSITORY

MODULE = """
import pytest

def test_passes(): pass

def test_skips(): pytest.skip("no reason")

@pytest.mark.xfail
def test_fails_as_expected(): raise AssertionError

def test_reads_data(data_dir): assert data_dir.is_dir()
"""


def run_pytest(folder: Path, **environment: str) -> tuple[int, str]:
    """The exit code and the output of a run of its own over `MODULE`, with conftest.py as a plugin."""
    (folder / "test_module.py").write_text(MODULE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = recorded\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WOOLWATCH_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(folder)],
        env={**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_skips_pass_where_nothing_is_required(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, WOOLWATCH_DATA=str(tmp_path))
    assert (code, "2 passed, 1 skipped, 1 xfailed" in output) == (0, True), output


def test_skips_and_expected_failures_fail_where_everything_is_required(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, WOOLWATCH_DATA=str(tmp_path), WOOLWATCH_REQUIRE="all")
    assert (code, "2 failed, 2 passed" in output) == (1, True), output


def test_data_that_is_named_but_missing_ends_the_run(tmp_path: Path) -> None:
    code, output = run_pytest(tmp_path, WOOLWATCH_DATA=str(tmp_path / "absent"))
    assert (code, "no recorded data" in output) == (pytest.ExitCode.USAGE_ERROR, True), output

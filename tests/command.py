"""The ``woolwatch`` command as people call it: a process of its own, its output, its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.services import REPOSITORY

PATIENCE_S = 170.0
WOOLWATCH = str(Path(sys.executable).with_name("woolwatch"))


def run_woolwatch(
    *arguments: str | Path, key: bytes, expect: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; it must end with this exit code, and never with a traceback."""
    done = subprocess.run(
        [WOOLWATCH, *map(str, arguments)],
        env={**os.environ, "WOOLWATCH_KEY": key.decode(), "PYTHONPATH": str(REPOSITORY)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done

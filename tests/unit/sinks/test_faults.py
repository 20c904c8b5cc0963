"""The fault points themselves: a test that relies on a kill that does not come would prove nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from sinks.faults import FAULT_VARIABLE, fault_point
from tests.services import REPOSITORY


@pytest.mark.parametrize(("fault", "printed"), [("here", []), ("here:3", ["0", "1"])])
def test_the_named_pass_of_the_named_place_kills(fault: str, printed: list[str]) -> None:
    program = (
        "from sinks.faults import fault_point\n"
        "for number in range(5): fault_point('elsewhere'); fault_point('here'); print(number, flush=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, FAULT_VARIABLE: fault},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == printed


def test_without_the_variable_nothing_happens() -> None:
    fault_point("")
    fault_point("here")

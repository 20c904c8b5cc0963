from __future__ import annotations

import subprocess
import sys

import pytest

from tests.services import REPOSITORY

PROGRAM = """
import atexit, logging, sys
from streams.fatal import stop_process
logging.basicConfig(format="%(levelname)s %(message)s")
atexit.register(print, "tidied up, committed and published")
try:
    raise ValueError("behind it")
except ValueError:
    stop_process("the sentence"{arguments})
"""


@pytest.mark.parametrize(("arguments", "exit_code"), [("", 3), (", exit_code=2", 2)])
def test_the_process_ends_at_once_with_a_sentence_and_its_code(arguments: str, exit_code: int) -> None:
    program = PROGRAM.replace("{arguments}", arguments)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == exit_code
    assert done.stderr.startswith("CRITICAL the sentence\n")
    assert done.stderr.rstrip().endswith("ValueError: behind it")
    assert done.stdout == ""

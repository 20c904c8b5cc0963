"""A worker ends in time, whatever its children do."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

import streams.worker
from streams.worker import _stop_in_order

DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(flush=True); signal.pause()"


async def started(code: str) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    return child


def test_a_child_that_does_not_stop_is_killed_and_the_other_one_ends_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams.worker, "ENGINE_STOP_S", 0.1)

    async def main() -> None:
        engine, rollup = await started(DEAF), await started(POLITE)
        assert await _stop_in_order(engine, rollup) == (0, 7)
        assert engine.returncode == -signal.SIGKILL

    asyncio.run(main())

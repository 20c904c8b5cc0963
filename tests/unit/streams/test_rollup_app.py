"""The rollup's app without a broker: what it waits for before it lets positions follow, and before it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.errors import KafkaTimeoutError

from schemas.config import Config
from streams.rollup import RollupApp, pause_after
from streams.settings import Settings


def rollup(tmp_path: Path) -> RollupApp:
    settings = Settings(out=str(tmp_path), topics={})
    return RollupApp(settings, Config(), partitions=2, key_fingerprint="00")


def test_the_last_flush_waits_for_the_one_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        app, seen, go_on = rollup(tmp_path), list[str](), asyncio.Event()

        async def flush() -> None:
            seen.append("begins")
            await go_on.wait()
            seen.append("ends")

        monkeypatch.setattr(app, "flush", flush)
        app._flushing = asyncio.create_task(app._flush_loop())
        await asyncio.sleep(0)
        last = asyncio.create_task(app._last_flush())
        await asyncio.sleep(0)
        assert seen == ["begins"]
        go_on.set()
        await last
        return seen

    assert asyncio.run(main()) == ["begins", "ends"] * 2


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_a_block_that_the_changelog_lacks_is_noticed_wherever_it_stands(tmp_path: Path, failed: int) -> None:
    async def main() -> None:
        app = rollup(tmp_path)
        app._unsent = [asyncio.get_running_loop().create_future() for _ in range(3)]
        for number, sent in enumerate(app._unsent):
            if number == failed:
                sent.set_exception(KafkaTimeoutError())
            else:
                sent.set_result(None)
        await app._changelog_durable()

    with pytest.raises(KafkaTimeoutError):
        asyncio.run(main())


def test_after_an_outage_numbers_are_shown_soon() -> None:
    assert pause_after(0.01) == 1.0
    assert 1.0 < pause_after(2.0) < 10.0
    assert pause_after(300.0) == 10.0

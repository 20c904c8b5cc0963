"""Watching a config folder: what is taken up, what is refused and told once, what needs a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.config import Config
from schemas.keys import KeyRing
from sinks.local_store import LocalStore
from streams import config_watch
from streams.config_files import read_config
from streams.config_watch import ConfigWatch
from streams.list_store import ListStore

RING = KeyRing(bytes(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "config"
    (made / "lists").mkdir(parents=True)
    (made / "a.yaml").write_text("lists: {l: {kind: grey, entity: user_id, file: lists/l.csv}}")
    (made / "lists" / "l.csv").write_text("value\nu1\n")
    return made


@pytest.fixture
def watch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWatch:
    monkeypatch.setattr(config_watch, "LOOK_S", 0.01)
    return ConfigWatch(folder, read_config(folder)[0], ListStore(LocalStore(tmp_path / "state"), RING))


async def following(changes: AsyncIterator[Config]) -> Config:
    async with asyncio.timeout(30):
        return await anext(changes)


async def refusal(watch: ConfigWatch, changes: AsyncIterator[Config]) -> str:
    """Why the folder is refused, once it is."""
    next_ = asyncio.create_task(following(changes))
    while not watch.refused:
        assert not next_.done()
        await asyncio.sleep(0.01)
    next_.cancel()
    await asyncio.wait([next_])
    return watch.refused


def test_a_changed_file_and_a_changed_list_are_taken_up(
    watch: ConfigWatch, folder: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        changes = watch.changes()
        (folder / "b.yaml").write_text("levels: {observe: 0.2}")
        assert (await following(changes)).levels.observe == 0.2
        (folder / "lists" / "l.csv").write_text("value\nu2\n")
        config = await following(changes)
        assert config == read_config(folder)[0]
        assert (
            ListStore(LocalStore(tmp_path / "state"), RING).content(config.lists["l"].digest)
            == b"value\nu2\n"
        )

    asyncio.run(run())


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("b.yaml", "rules: {r: {when: dwel < 5}}", 'b.yaml: $.rules.r.when: found "dwel"'),
        ("lists/l.csv", "value,expires\nu1,soon\n", "lists/l.csv: line 2, column expires: found"),
        ("b.yaml", "lateness: 2h\nmemory: {max_keys: 5}", "another value of memory, lateness"),
        ("b.yaml", "topics: {clicks: other}", "$.topics: found another value of topics"),
        ("lists/l.csv", None, "$.lists.l.file: found lists/l.csv, which is gone"),
    ],
)
def test_what_is_refused_is_told_once_until_it_is_mended(
    watch: ConfigWatch,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    content: str | None,
    told: str,
) -> None:
    async def run() -> None:
        before = (folder / file).read_text() if (folder / file).exists() else None
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_text(content)
        assert told in await refusal(watch, watch.changes())
        changes = watch.changes()
        watch.look_now()
        if before is None:
            (folder / file).unlink()
        else:
            (folder / file).write_text(before)
        (folder / "c.yaml").write_text("levels: {observe: 0.2}")
        assert (await following(changes)).levels.observe == 0.2
        assert watch.refused == ""

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert "is refused and config" in caplog.text
    assert "good again" in caplog.text


def test_what_stands_still_is_read_once(
    watch: ConfigWatch, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        (folder / "b.yaml").write_text("rules: 5")
        changes = watch.changes()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(changes)

    asyncio.run(run())
    assert len([record for record in caplog.records if "is refused" in record.message]) == 1

"""A worker goes on from the state that an earlier version left, as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.config import config_from_json
from tests.kept_state import FOLDER, STOPPED_AT, TURNS, KeptWork

KEPT = sorted(FOLDER.glob("format_*"))


def test_there_is_one_of_every_earlier_format() -> None:
    assert [folder.name for folder in KEPT] == ["format_1"]


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_it_goes_on_as_one_that_never_stopped(folder: Path) -> None:
    config = config_from_json((folder / "config.json").read_bytes())
    lines = (folder / "events.jsonl").read_bytes().split(b"\n")
    never_stopped, loaded = KeptWork(config), KeptWork(config)
    never_stopped.take(lines, range(STOPPED_AT - 1))
    never_stopped.counts()
    never_stopped.take(lines, [STOPPED_AT - 1])
    loaded.load(folder)
    assert loaded.core.judge.turn == never_stopped.core.judge.turn
    assert loaded.counts() == never_stopped.counts()
    for turn in range(STOPPED_AT, TURNS):
        (expected,) = never_stopped.take(lines, [turn])
        assert len(expected["rows"]) > 0
        assert loaded.take(lines, [turn]) == [expected], turn
    assert loaded.counts() == never_stopped.counts()
    assert [shard.counters for shard in loaded.shards] == [shard.counters for shard in never_stopped.shards]

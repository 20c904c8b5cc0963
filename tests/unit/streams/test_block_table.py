"""The table of blocks: what the changelog has is never older than what it had."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import faust
import pytest

from streams.block_table import BlockTable


@dataclass
class Record:
    """One record of the changelog, as Faust hands it over; the value says how new it is."""

    key: bytes
    value: bytes | None
    partition: int = 0

    @property
    def message(self) -> SimpleNamespace:
        return SimpleNamespace(partition=self.partition, value=self.value)


class Watched(BlockTable):
    """Remembers what it would send."""

    def __init__(self) -> None:
        super().__init__(faust.App("blocks"), name="blocks", partitions=2, turn_of=int)
        self.written: list[tuple[int, bytes, bytes]] = []

    def put_in(self, partition: int, key: bytes, value: bytes) -> None:
        self.written.append((partition, key, value))


@pytest.fixture
def table() -> Watched:
    return Watched()


def test_a_former_owner_sets_nothing_back(table: Watched) -> None:
    table.apply_changelog_batch([Record(b"a", b"7"), Record(b"b", b"1"), Record(b"a", b"5")])
    table.apply_changelog_batch([Record(b"a", b"6"), Record(b"b", b"2", 1)])
    assert dict(table.data) == {b"a": b"7", b"b": b"2"}
    assert table.mend(1) == 0
    assert table.mend(0) == 1
    assert table.mend(0) == 0
    assert table.written == [(0, b"a", b"7")]


def test_an_equal_turn_is_taken_and_what_went_is_gone(table: Watched) -> None:
    table.apply_changelog_batch([Record(b"a", b"7"), Record(b"a", b"07"), Record(b"b", b"3")])
    table.apply_changelog_batch([Record(b"b", b"2"), Record(b"b", None), Record(b"c", None)])
    assert dict(table.data) == {b"a": b"07"}
    assert table.mend(0) == 0

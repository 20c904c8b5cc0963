"""The table of blocks: what the changelog has is never older than what it had."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.tables.recovery import RebalanceAgain

from streams.batches import TP
from streams.block_table import BlockRecovery, BlockTable


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
        self.written: list[tuple[Any, ...]] = []

    def send_changelog(self, *args: Any, **_: Any) -> Any:
        self.written.append(args)


@pytest.fixture
def table() -> Iterator[Watched]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield Watched()
    asyncio.set_event_loop(None)
    loop.close()


def test_a_former_owner_sets_nothing_back(table: Watched) -> None:
    table.apply_changelog_batch([Record(b"a", b"7"), Record(b"b", b"1"), Record(b"a", b"5")])
    table.apply_changelog_batch([Record(b"a", b"6"), Record(b"b", b"2"), Record(b"c", b"1", 1)])
    assert table.values_of(0) == [b"7", b"2"]
    assert table.mend(1) == 0
    assert table.mend(0) == 1
    assert table.mend(0) == 0
    assert table.written == [(0, b"a", b"7")]


def test_an_equal_turn_is_taken_and_what_went_is_gone(table: Watched) -> None:
    table.apply_changelog_batch([Record(b"a", b"7"), Record(b"a", b"07"), Record(b"b", b"3")])
    table.apply_changelog_batch([Record(b"b", b"2"), Record(b"b", None), Record(b"c", None)])
    assert table.values_of(0) == [b"07"]
    assert table.mend(0) == 0


def test_a_key_is_dropped_once(table: Watched) -> None:
    table.put_in(0, b"a", b"1")
    table.drop_in(1, b"a")
    table.drop_in(0, b"a")
    table.drop_in(0, b"a")
    assert table.written == [(0, b"a", b"1"), (0, b"a", None)]
    assert table.values_of(0) == []


def test_a_partition_that_comes_back_has_nothing_of_its_former_life(table: Watched) -> None:
    """Another owner dropped ``a`` meanwhile, and the changelog was compacted: no record says so any more."""
    recovery = BlockRecovery(faust.App("blocks"), faust.App("blocks").tables)
    offsets: Counter[TP] = Counter()
    table.apply_changelog_batch([Record(b"a", b"7"), Record(b"b", b"1", 1)])
    offsets[TP("changelog", 1)] = 12
    recovery._add(table, TP("changelog", 0), offsets)
    recovery._add(table, TP("changelog", 1), offsets)
    assert (table.values_of(0), table.values_of(1)) == ([], [b"1"]), "of the second only the rest is read"


def test_partitions_that_went_leave_the_memory(table: Watched) -> None:
    table.apply_changelog_batch([Record(b"a", b"7"), Record(b"b", b"1", 1)])
    asyncio.get_event_loop().run_until_complete(table.on_recovery_completed({TP("changelog", 1)}, set[TP]()))
    assert (table.values_of(0), table.values_of(1)) == ([], [b"1"])


def test_a_rebalance_right_behind_a_wait_begins_the_recovery_anew(table: Watched) -> None:
    recovery = BlockRecovery(faust.App("blocks"), faust.App("blocks").tables)
    offsets: Counter[TP] = Counter()
    recovery._add(table, TP("changelog", 0), offsets)
    seeking = recovery._seek_offsets(None, {TP("changelog", 0)}, offsets, "active")
    with pytest.raises(RebalanceAgain):
        asyncio.get_event_loop().run_until_complete(seeking)

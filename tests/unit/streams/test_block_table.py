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


def test_an_equal_turn_is_taken_and_what_went_is_gone(table: Watched) -> None:
    table.apply_changelog_batch([Record(b"a", b"7"), Record(b"a", b"07"), Record(b"b", b"3")])
    table.apply_changelog_batch([Record(b"b", b"2"), Record(b"b", None), Record(b"c", None)])
    assert table.values_of(0) == [b"07"]


def test_a_key_is_dropped_once(table: Watched) -> None:
    assert table.take_over(0) == []
    table.put_in(0, b"a", b"1")
    table.drop_in(1, b"a")
    table.drop_in(0, b"a")
    table.drop_in(0, b"a")
    assert [(partition, value) for partition, _, value in table.written] == [(0, b"1"), (0, None)]
    assert len({key for _, key, _ in table.written}) == 1
    assert table.values_of(0) == []


class Lives:
    """Owners one after the other, of one changelog."""

    def __init__(self) -> None:
        self.changelog: list[Record] = []

    def next(self) -> Watched:
        table = Watched()
        table.apply_changelog_batch(self.changelog)
        table.take_over(0)
        return table

    def write(self, table: Watched) -> None:
        """Let all arrive that a table has sent."""
        self.changelog += [Record(key, value, partition) for partition, key, value in table.written]
        table.written.clear()

    def compacted(self) -> list[bytes | None]:
        return [value for value in {each.key: each.value for each in self.changelog}.values() if value]


@pytest.mark.usefixtures("table")
def test_what_a_former_owner_drops_when_it_wakes_is_not_what_the_next_one_set() -> None:
    lives = Lives()
    first = lives.next()
    first.put_in(0, b"a", b"1")
    lives.write(first)
    second = lives.next()
    second.put_in(0, b"a", b"2")
    lives.write(second)
    first.drop_in(0, b"a")
    lives.write(first)
    assert lives.next().values_of(0) == [b"2"]
    assert lives.compacted() == [b"2"]


@pytest.mark.usefixtures("table")
def test_what_a_former_owner_sets_when_it_wakes_is_gone_when_the_next_one_sets_the_key_again() -> None:
    lives = Lives()
    first = lives.next()
    second = lives.next()
    second.put_in(0, b"a", b"2")
    lives.write(second)
    first.put_in(0, b"a", b"1")
    lives.write(first)
    third = lives.next()
    assert third.values_of(0) == [b"2"]
    third.put_in(0, b"a", b"3")
    lives.write(third)
    assert Counter(lives.compacted()) == Counter([b"1", b"2", b"3"])
    third.tidy(0)
    third.tidy(0)
    lives.write(third)
    assert lives.compacted() == [b"3"]
    third.drop_in(0, b"a")
    lives.write(third)
    assert lives.next().values_of(0) == lives.compacted() == []


@pytest.mark.usefixtures("table")
def test_what_is_dropped_before_it_is_tidy_is_dropped_in_every_name() -> None:
    lives = Lives()
    first = lives.next()
    first.put_in(0, b"a", b"1")
    lives.write(first)
    second = lives.next()
    second.put_in(0, b"a", b"2")
    second.drop_in(0, b"a")
    second.tidy(0)
    lives.write(second)
    assert lives.next().values_of(0) == lives.compacted() == []


def test_what_an_earlier_version_wrote_is_taken_over(table: Watched) -> None:
    table.apply_changelog_batch([Record(b"a", b"1"), Record(b"b", b"1")])
    assert table.take_over(0) == [b"1", b"1"]
    table.put_in(0, b"a", b"2")
    table.tidy(0)
    table.drop_in(0, b"b")
    assert [(key[-1:], value) for _, key, value in table.written] == [
        (b"a", b"2"),
        (b"a", None),
        (b"b", None),
    ]
    assert [key for _, key, value in table.written if value is None] == [b"a", b"b"]


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

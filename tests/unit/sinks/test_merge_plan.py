"""Which dates are closed, and which files become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.merge_plan import (
    FileFacts,
    compacted_name,
    ended_before,
    horizon,
    is_compacted,
    is_table_file,
    merges,
)

DAY_MS = 86_400_000
MOST = 512 << 20
DATES = [f"date=1970-01-{day:02d}" for day in range(1, 11)]


def committed(turn: int, size_bytes: int, *, partition: int = 0, schema: bytes = b"s") -> FileFacts:
    return FileFacts(f"p{partition}-{turn:020d}-0.parquet", size_bytes, 1, schema)


def merged_before(step: int, size_bytes: int) -> FileFacts:
    return FileFacts(compacted_name(step, 0), size_bytes, 1, b"s")


def test_a_date_is_closed_by_the_newest_date_and_by_the_clock() -> None:
    assert ended_before(DATES, horizon(DATES, now_ms=2**50), DAY_MS) == DATES[:8]
    assert ended_before(DATES, horizon(DATES, now_ms=5 * DAY_MS), DAY_MS) == DATES[:4]
    assert ended_before(DATES, horizon(DATES, now_ms=5 * DAY_MS - 1), DAY_MS) == DATES[:3]
    assert (
        ended_before([*DATES, "date=9999-12-31"], horizon(["date=9999-12-31"], 5 * DAY_MS), DAY_MS)
        == DATES[:4]
    )
    assert ended_before(["date=1970-02-31", "x", "date=1970-01-01x"], 2**50, DAY_MS) == []
    assert ended_before([], horizon([], now_ms=7), DAY_MS) == []


@pytest.mark.parametrize(
    "name",
    [
        "x.parquet",
        "p1.parquet",
        "../p0-00000000000000000001.parquet",
        "p0-1.parquet",
        "c1-0.parquet",
        "p0-٠.parquet",
    ],
)
def test_other_names_are_not_ours(name: str) -> None:
    assert not is_table_file(name)


def test_files_of_one_schema_become_one_in_order_of_partition_and_turn() -> None:
    files = [
        committed(10, 5, partition=10),
        committed(9, 5, partition=2),
        committed(2, 5, schema=b"t"),
        committed(7, 5),
    ]
    assert merges(files, most_bytes=MOST) == [(files[3], files[1], files[0])]
    assert merges(files[:1], most_bytes=MOST) == []


def test_what_was_merged_is_merged_again_only_when_as_much_has_come() -> None:
    large, late = merged_before(1, 100), [committed(1, 40), committed(2, 40)]
    assert merges([large, *late], most_bytes=MOST) == [tuple(late)]
    assert merges([large, *late, committed(3, 20)], most_bytes=MOST) == [(large, *late, committed(3, 20))]
    assert merges([large, merged_before(2, 80)], most_bytes=MOST) == []
    assert merges([merged_before(1, 100), merged_before(2, 49), merged_before(3, 51)], most_bytes=MOST) == [
        (merged_before(1, 100), merged_before(2, 49), merged_before(3, 51))
    ]


FILES = st.lists(st.tuples(st.integers(1, 80), st.booleans(), st.sampled_from((b"s", b"t"))), max_size=30)


@given(FILES)
def test_plans_come_to_rest_with_few_files_below_the_bound(drawn: list[tuple[int, bool, bytes]]) -> None:
    most = 100
    files = {
        name: FileFacts(name, size, 1, schema)
        for i, (size, compacted, schema) in enumerate(drawn)
        for name in [compacted_name(i, 0) if compacted else committed(i, 1).name]
    }
    total = sum(file.size_bytes for file in files.values())
    for step in range(100, 200):
        groups = merges(files.values(), most_bytes=most)
        if not groups:
            break
        for i, group in enumerate(groups):
            assert len({file.schema for file in group}) == 1
            assert sum(file.size_bytes for file in group) <= most
            for file in group:
                del files[file.name]
            name = compacted_name(step, i)
            files[name] = FileFacts(name, sum(file.size_bytes for file in group), 1, group[0].schema)
    else:
        raise AssertionError("it goes on merging")
    assert sum(file.size_bytes for file in files.values()) == total
    for schema in (b"s", b"t"):
        small = [file for file in files.values() if file.schema == schema and file.size_bytes <= most // 2]
        assert len(small) <= 7, "each of the small ones is larger than all smaller ones together"
        assert sum(not is_compacted(file.name) for file in small) <= 1

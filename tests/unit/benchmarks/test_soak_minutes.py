"""What the soak makes of its minutes: a check of flat memory that can not fail would prove nothing."""

from __future__ import annotations

import pytest

from benchmarks.soak_minutes import Minute, growth, table, what_grew


def minutes_of(*totals_mib: float) -> list[Minute]:
    """Minutes in which two workers held so much together."""
    return [
        Minute(
            sent=60_000,
            on_their_way=3_000 + number,
            memory_mib=[{"worker": 50, "engine": total - 250, "rollup": 100}, {"engine": 60, "rollup": 40}],
            recovery_s=11.0 + number,
        )
        for number, total in enumerate(totals_mib)
    ]


def test_memory_that_fills_and_then_breathes_is_flat() -> None:
    assert what_grew(minutes_of(900, 1_500, 1_900, 2_000, 2_010, 1_950, 2_060, 1_990)) == []


@pytest.mark.parametrize("last", [[2_000, 2_100, 2_200, 2_300], [2_000, 2_000, 2_400, 2_400]])
def test_memory_that_goes_on_growing_is_wrong(last: list[float]) -> None:
    (sentence,) = what_grew(minutes_of(2_000, 2_000, 2_000, 2_000, *last))
    assert "memory grew by" in sentence
    assert f"{last[-1]:,.0f} MiB" in sentence


def test_too_few_minutes_are_not_judged_and_say_so() -> None:
    few = minutes_of(2_000, 2_000, 2_000, 9_000, 9_000, 9_000)
    assert growth([minute.total_mib for minute in few]) is None
    assert what_grew(few) == []
    assert "too short to say" in table(few, sent=360_000, wrong=0)[2]


def test_a_minute_and_the_table_say_what_was_seen() -> None:
    seen = minutes_of(1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_050)
    assert str(seen[0]) == (
        "60,000 sent, 3,000 on their way (5 %), 1,000 MiB (engine 750 + 60, rollup 100 + 40), recovered in 11 s"
    )
    names, _, values = table(seen, sent=480_000, wrong=1)
    assert names.startswith("| events | kills | recovery, s | on their way, % of a minute | memory, MiB |")
    assert values == "| 480,000 | 8 | 14 [11..18] | 5 [5..5] | 1,000 [1,000..1,050] | +4.5 % | 1 |"

"""Numbers in Redis beside those in the metric tables, as one look finds them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from sinks.metric_files import MetricFiles
from sinks.metric_redis import SHOWN_TABLES, shown_fields
from sinks.redis_contents import RedisContents
from sinks.store import Store


class Difference(NamedTuple):
    """A field that Redis shows otherwise than the tables have it; None where there is none."""

    key: str
    field: str
    shown: str | None
    tabled: str | None

    def __str__(self) -> str:
        return (
            f"{self.key} {self.field}: Redis shows {self.shown or 'nothing'}, "
            f"the tables have {self.tabled or 'nothing'}"
        )


class Look(NamedTuple):
    """What one look finds.

    Parameters
    ----------
    compared
        Fields in Redis.
    foreign
        A sentence for each key that is no hash.
    at_rest, in_motion
        What differs although Redis and the tables count up to the same position; and the rest, which may differ: a
        worker shows its numbers in Redis first, and may be killed before it writes the tables.
    """

    compared: int
    foreign: list[str]
    at_rest: set[Difference]
    in_motion: set[Difference]


class _Tabled(NamedTuple):
    """The fields of all tables with their rollup partition, and the position of each of these."""

    fields: dict[tuple[str, str], tuple[str, int]]
    positions: dict[int, int]


async def look_at_numbers(contents: RedisContents, store: Store) -> Look:
    """Compare every field of funnels, daily users and retention, once.

    Raises
    ------
    UnreachableError
        Redis does not answer, or refuses.
    """
    before = await contents.rollup_positions()
    shown = await contents.numbers()
    after = await contents.rollup_positions()
    tabled = await asyncio.to_thread(_read_tables, contents, store)
    moving = {
        partition
        for partition in before.keys() | after.keys() | tabled.positions.keys()
        if not before.get(partition) == after.get(partition) == tabled.positions.get(partition)
    }
    found = Look(len(shown.entries), shown.foreign, set(), set())
    for place in shown.entries.keys() | tabled.fields.keys():
        entry, (value, partition) = shown.entries.get(place), tabled.fields.get(place, (None, None))
        if entry != value:
            moves = partition in moving if partition is not None else bool(moving)
            (found.in_motion if moves else found.at_rest).add(Difference(*place, entry, value))
    return found


def _read_tables(contents: RedisContents, store: Store) -> _Tabled:
    found = _Tabled({}, {})
    for table in SHOWN_TABLES:
        for file in MetricFiles(store).read(table):
            partition = file.rollup_partition
            found.positions[partition] = max(file.position or 0, found.positions.get(partition, 0))
            for field in shown_fields({table: file.rows}, contents.key):
                found.fields[field.key, field.name] = field.value, partition
    return found

"""What came of judging the tables again: counts by config and place, the first differences, what was taken as given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sinks.tables import Table
from streams.kept_configs import KeptConfigs

MOST_DIFFERENCES = 10


class PlaceReport(msgspec.Struct, frozen=True):
    """The rows of one topic-partition that one config judged.

    Parameters
    ----------
    topic, partition
        Which.
    config_hash
        The config.
    first, last
        Lowest and highest offset of these rows: where the next config's begin, the judge switched.
    rows, same
        How many, and how many of them come out the same.
    """

    topic: str
    partition: int
    config_hash: str
    first: int
    last: int
    rows: int
    same: int


class ConfigReport(msgspec.Struct, frozen=True):
    """The rows of one config.

    Parameters
    ----------
    config_hash
        As rows name it.
    rows, same
        How many, and how many of them come out the same.
    missing
        Why they could not be judged again; empty if they could.
    given_lists
        Lists whose hits were taken as recorded, as entries that they have.
    undecided_rules
        Rows by rule where it was taken as recorded that it did not fire.
    """

    config_hash: str
    rows: int
    same: int
    missing: str
    given_lists: tuple[str, ...]
    undecided_rules: dict[str, int]


class Difference(msgspec.Struct, frozen=True):
    """A row that does not come out the same: the columns that differ, as they are recorded and as they are now."""

    table: str
    event_id: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    config_hash: str
    recorded: dict[str, Any]
    again: dict[str, Any]


class Report(msgspec.Struct, frozen=True):
    """The whole answer; ``places`` by topic, partition and offset, ``differences`` at most MOST_DIFFERENCES."""

    rows: int
    same: int
    configs: tuple[ConfigReport, ...]
    places: tuple[PlaceReport, ...]
    differences: tuple[Difference, ...]

    @property
    def exit_code(self) -> int:
        """0 all are the same, 1 some are not, 3 some could not be judged again."""
        if any(config.missing for config in self.configs):
            return 3
        return 0 if self.same == self.rows else 1


class Tally:
    """Counts chunk by chunk; ``kept`` says why a config is missing."""

    def __init__(self, kept: KeptConfigs) -> None:
        self._why = kept.why
        self._undecided: dict[str, Counter[str]] = {}
        self._places: dict[tuple[str, int, str], PlaceReport] = {}
        self._differences: list[Difference] = []

    @property
    def room(self) -> int:
        """How many more differences are told."""
        return MOST_DIFFERENCES - len(self._differences)

    def missing(self, config_hash: str, table: Table) -> None:
        """Count rows whose config is nowhere."""
        self.add(config_hash, table, np.zeros(table.num_rows, np.bool_), {})

    def add(
        self, config_hash: str, table: Table, same: NDArray[np.bool_], undecided: Mapping[str, int]
    ) -> None:
        """Count rows that were judged again."""
        self._undecided.setdefault(config_hash, Counter()).update(undecided)
        offsets = pc.fill_null(table["offset"], -1).to_numpy()
        partitions = pc.fill_null(table["partition"], -1).to_numpy()
        topics = pc.fill_null(table["topic"], "").combine_chunks().dictionary_encode()
        numbers = topics.indices.to_numpy()
        places = partitions.astype(np.int64) * len(topics.dictionary) + numbers
        for place in np.unique(places).tolist():
            partition, number = divmod(place, len(topics.dictionary))
            mine = places == place
            self._add_place(
                PlaceReport(
                    topics.dictionary[number].as_py(),
                    partition,
                    config_hash,
                    int(offsets[mine].min()),
                    int(offsets[mine].max()),
                    int(np.count_nonzero(mine)),
                    int(np.count_nonzero(same[mine])),
                )
            )

    def _add_place(self, more: PlaceReport) -> None:
        key = more.topic, more.partition, more.config_hash
        known = self._places.get(key)
        self._places[key] = (
            more
            if known is None
            else msgspec.structs.replace(
                known,
                first=min(known.first, more.first),
                last=max(known.last, more.last),
                rows=known.rows + more.rows,
                same=known.same + more.same,
            )
        )

    def differ(self, differences: Iterable[Difference]) -> None:
        """Keep differences, as many as there is room for."""
        self._differences += differences

    def report(self, given_lists: Mapping[str, Sequence[str]]) -> Report:
        """What was counted; ``given_lists`` by config."""
        places = sorted(self._places.values(), key=lambda one: (one.topic, one.partition, one.first))
        configs = tuple(
            ConfigReport(
                name,
                sum(one.rows for one in places if one.config_hash == name),
                sum(one.same for one in places if one.config_hash == name),
                self._why.get(name, ""),
                tuple(given_lists.get(name, ())),
                {rule: count for rule, count in undecided.items() if count},
            )
            for name, undecided in self._undecided.items()
        )
        return Report(
            sum(one.rows for one in places),
            sum(one.same for one in places),
            configs,
            tuple(places),
            tuple(self._differences),
        )


def as_text(report: Report) -> str:
    """The report for people."""
    lines = [line for config in report.configs for line in _config_lines(config)]
    lines += ["", *_place_lines(report.places), ""]
    lines += [line for difference in report.differences for line in _difference_lines(difference)]
    different = report.rows - report.same - sum(one.rows for one in report.configs if one.missing)
    unjudged = report.rows - report.same - different
    if different > len(report.differences):
        lines.append(f"... and {different - len(report.differences):,} more")
    end = f"{report.rows:,} rows: {report.same:,} are the same"
    if different:
        end += f", {different:,} are NOT"
    if unjudged:
        end += f", {unjudged:,} can not be judged again: their config is missing"
    return "\n".join([*lines, end])


def _config_lines(config: ConfigReport) -> list[str]:
    lines = [f"config {config.config_hash or '(none named)'}: {config.rows:,} rows, {config.same:,} the same"]
    if config.missing:
        lines.append(f"  is missing: {config.missing}")
    if config.given_lists:
        lines.append(f"  taken as recorded: hits of the lists {', '.join(config.given_lists)}")
    for rule, rows in config.undecided_rules.items():
        lines.append(
            f"  taken as recorded: that {rule} did not fire for {rows:,} rows; it reads what no table keeps"
        )
    return lines


def _place_lines(places: Sequence[PlaceReport]) -> list[str]:
    head = ("topic", "partition", "config", "offsets", "rows", "same")
    cells = [head] + [
        (
            one.topic,
            str(one.partition),
            one.config_hash,
            f"{one.first}–{one.last}",
            f"{one.rows:,}",
            f"{one.same:,}",
        )
        for one in places
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _difference_lines(difference: Difference) -> list[str]:
    place = f"{difference.topic}-{difference.partition} offset {difference.offset}"
    name = _json(difference.event_id)
    lines = [f"{difference.table}/: event {name}, {place}, config {difference.config_hash}:"]
    for column, recorded in difference.recorded.items():
        lines.append(f"  {column} recorded {_json(recorded)}")
        lines.append(f"  {' ' * len(column)} again    {_json(difference.again[column])}")
    return lines


def _json(value: object) -> str:
    """Foreign text as JSON, so that nothing in it moves a terminal."""
    return msgspec.json.encode(value).decode()

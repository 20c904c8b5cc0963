"""Which state tables there are, and which features of which config each of them answers.

State belongs to a feature's *definition*, not to its name and not to a config. A definition that is served
keeps its table through any change of config; new definitions of the same (entity, op, argument) share one
new, empty table from the turn on with which a source turns to them; a table goes when no source's latest
config needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.entity_kernels import ANY, EVER
from detectors.entity_table import EntityTable
from detectors.plan import ANY_NAME, Op, Plan, StateFeature


@dataclass(slots=True)
class ServedTable:
    """A table of (entity, op, argument), and the definitions that share it.

    Parameters
    ----------
    longest_window_ms, timed
        What the table was made for (detectors.entity_table).
    born_ms
        Time of the first event that it could see; None: none yet.
    """

    entity: str
    op: Op
    argument: str
    definitions: list[str]
    longest_window_ms: int | None
    timed: bool
    born_ms: int | None
    table: EntityTable


@dataclass(frozen=True, slots=True)
class Feed:
    """How turns under one config use one table: which rows, what of them, and what is asked."""

    served: ServedTable
    kind: int
    argument: int
    asked: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """One config over the tables that there are now.

    Parameters
    ----------
    widths
        int64[kinds]: how many features a row of each kind asks.
    names, members
        How many of each the config has.
    feeds
        The tables that its turns feed: all whose entity and argument the config knows, whether it asks them
        or not.
    """

    widths: NDArray[np.int64]
    names: int
    members: int
    feeds: tuple[Feed, ...]


class TableDirectory:
    """The tables of one shard.

    Parameters
    ----------
    max_keys, lateness_ms
        Of each table.
    """

    def __init__(self, *, max_keys: int, lateness_ms: int) -> None:
        self._max_keys, self._lateness_ms = max_keys, lateness_ms
        self._needs: dict[bytes, frozenset[str]] = {}
        self.tables: list[ServedTable] = []

    def turn_to(self, plan: Plan, in_use: Iterable[bytes]) -> None:
        """Serve a plan too, and none any more whose config is not in use."""
        self._needs[plan.config] = frozenset(feature.definition for feature in plan.features)
        used = set(in_use)
        self._needs = {config: needs for config, needs in self._needs.items() if config in used}
        self._keep(frozenset().union(*self._needs.values()))
        self._add(plan)

    def lay_out(self, plan: Plan) -> Layout:
        """Arrange the tables for the turns of a plan that is served."""
        feeds = []
        for served in self.tables:
            argument = _argument(served, plan)
            if served.entity in plan.kinds and argument is not None:
                kind = plan.kinds.index(served.entity)
                feeds.append(Feed(served, kind, argument, _asked(served.definitions, plan, kind)))
        return Layout(
            widths=np.array([len(features) for features in plan.features_of_kind], np.int64),
            names=len(plan.names),
            members=len(plan.members),
            feeds=tuple(feeds),
        )

    def snapshot(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """What JSON can hold, and copies of the tables' arrays under ``tables/<number>/``."""
        entries, arrays = [], {}
        for number, served in enumerate(self.tables):
            entries.append({name: getattr(served, name) for name in _ENTRY})
            for name, array in served.table.snapshot().items():
                arrays[f"tables/{number}/{name}"] = array
        configs = {config.hex(): sorted(needs) for config, needs in self._needs.items()}
        return {"configs": configs, "tables": entries}, arrays

    def restore(
        self, directory: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic] | bytes]
    ) -> None:
        """Take up a snapshot; bounds stay those of this directory."""
        self._needs = {
            bytes.fromhex(config): frozenset(needs) for config, needs in directory["configs"].items()
        }
        self.tables = []
        for number, entry in enumerate(directory["tables"]):
            fields = {**entry, "op": Op(entry["op"])}
            table = self._make(fields["op"], entry["longest_window_ms"], timed=entry["timed"])
            table.restore({name: np.asarray(arrays[f"tables/{number}/{name}"]) for name in table.PARTS})
            self.tables.append(ServedTable(**fields, table=table))

    def _keep(self, needed: frozenset[str]) -> None:
        """Drop definitions that are not needed, and tables that serve none any more."""
        for served in self.tables:
            served.definitions = [definition for definition in served.definitions if definition in needed]
        self.tables = [served for served in self.tables if served.definitions]

    def _add(self, plan: Plan) -> None:
        """Give definitions that are not served yet a table, one for all of equal entity, op and argument."""
        known = {definition for served in self.tables for definition in served.definitions}
        new: dict[tuple[str, Op, str], list[StateFeature]] = {}
        for feature in plan.features:
            if feature.definition not in known:
                new.setdefault((feature.entity, feature.op, feature.argument), []).append(feature)
        for (entity, op, argument), features in new.items():
            windows = [feature.window_ms for feature in features if feature.window_ms is not None]
            # A count since ever is a counter and needs no times; distinct members since ever must all be
            # kept.
            keeps_all = op is Op.DISTINCT and len(windows) < len(features)
            longest_window_ms = None if keeps_all else max(windows, default=None)
            self.tables.append(
                ServedTable(
                    entity=entity,
                    op=op,
                    argument=argument,
                    definitions=list(dict.fromkeys(feature.definition for feature in features)),
                    longest_window_ms=longest_window_ms,
                    timed=bool(windows),
                    born_ms=None,
                    table=self._make(op, longest_window_ms, timed=bool(windows)),
                )
            )

    def _make(self, op: Op, longest_window_ms: int | None, *, timed: bool) -> EntityTable:
        return EntityTable(
            op,
            max_keys=self._max_keys,
            longest_window_ms=longest_window_ms,
            lateness_ms=self._lateness_ms,
            timed=timed,
        )


_ENTRY = ("entity", "op", "argument", "definitions", "longest_window_ms", "timed", "born_ms")


def _argument(served: ServedTable, plan: Plan) -> int | None:
    """The number of a table's argument under a plan; None where the plan does not carry it."""
    if served.op is not Op.DISTINCT and served.argument == ANY_NAME:
        return ANY
    known = plan.members if served.op is Op.DISTINCT else plan.names
    return known.index(served.argument) if served.argument in known else None


def _asked(definitions: Iterable[str], plan: Plan, kind: int) -> NDArray[np.int64]:
    """The features of a kind that a table with these definitions answers, as kernels read them."""
    served = set(definitions)
    asked = [
        (slot, EVER if feature.window_ms is None else feature.window_ms, feature.exclude_self)
        for slot, feature in enumerate(plan.features[i] for i in plan.features_of_kind[kind])
        if feature.definition in served
    ]
    return np.array(asked, np.int64).reshape(len(asked), 3)

"""Funnels, daily users and retention in Redis: for each a hash that a dashboard reads whole, with one call.

Values are absolute, and the position is that of the rollup in its log, so a repeat changes nothing and a
former owner is refused. docs/REDIS.md says how keys and fields are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec
import orjson
from redis.asyncio import Redis

from sinks.redis_functions import DEFAULT_NAMESPACE, RedisFunctions
from sinks.tables import Table

CALL_FIELDS = 1000
_NULL = "-"
_ALL = "all"

_encode = msgspec.msgpack.Encoder().encode
_Row: TypeAlias = dict[str, Any]


class ShownField(NamedTuple):
    """Where a row of a metric table stands in Redis, and what it shows."""

    key: str
    name: str
    value: str


class MetricRedis:
    """The numbers of the rollup partitions that this process owns.

    Delivery: the newest numbers; an older one never overwrites a newer one.

    Parameters
    ----------
    client
        Of :func:`sinks.redis_functions.connect`.
    key_fingerprint
        Of the key that made the pseudonyms.
    namespace
        Hash tag of all keys.
    """

    def __init__(self, client: Redis, *, key_fingerprint: str, namespace: str = DEFAULT_NAMESPACE) -> None:
        self._functions = RedisFunctions(client, namespace)
        self._key_fingerprint = key_fingerprint
        self._epochs: dict[int, int] = {}
        self._positions: dict[int, int] = {}

    async def take_over(self, rollup_partition: int, *, epoch: int) -> int:
        """Become the owner of a rollup partition; must come before its first write. Returns the position.

        Parameters
        ----------
        rollup_partition
            Which one.
        epoch
            At least that of every earlier owner.

        Raises
        ------
        FencedError, StateError, UnreachableError
            As :meth:`RedisFunctions.take_over`.
        """
        position = await self._functions.take_over(
            self._state(rollup_partition), epoch=epoch, at_least=0, key_fingerprint=self._key_fingerprint
        )
        self._epochs[rollup_partition], self._positions[rollup_partition] = epoch, position
        return position

    async def write(
        self,
        rollup_partition: int,
        position: int,
        tables: Mapping[str, Table],
        *,
        gone: Mapping[str, Table] | None = None,
    ) -> int:
        """Show rows of metric tables; returns the position that Redis stands at.

        Parameters
        ----------
        rollup_partition
            Whose numbers these are.
        position
            Offset of the partials log up to which they count. If Redis stands beyond it, nothing is written.
        tables
            Rows of ``funnel``, ``dau`` and ``retention`` as CONTRACT 3 has them: those that changed, or all.
        gone
            Rows that are to be shown no more; their numbers do not matter.

        Raises
        ------
        FencedError
            A later owner was here.
        ForgottenError
            Redis lost numbers: take over again, and write all rows.
        UnreachableError
            Redis did not answer, or refused. The same call may be made again.
        """
        from_ = self._positions[rollup_partition]
        if position < from_:
            return from_
        key = self._functions.key
        fields = [
            *shown_fields(tables, key),
            *(field._replace(value="") for field in shown_fields(gone or {}, key)),
        ]
        cuts = [*range(0, len(fields), CALL_FIELDS), len(fields)] if fields else [0, 0]
        for start, stop in pairwise(cuts):
            reached = await self._functions.write(
                "metric_write",
                self._state(rollup_partition),
                self._epochs[rollup_partition],
                from_,
                position if stop == len(fields) else from_,
                _encode(list(zip(*fields[start:stop], strict=True)) or [[], [], []]),
            )
        self._positions[rollup_partition] = reached
        return reached

    async def has_forgotten(self, rollup_partition: int) -> bool:
        """Whether Redis lost numbers of a partition that was taken over; for while none are written.

        Raises
        ------
        UnreachableError
            Redis did not answer.
        """
        position = await self._functions.position(self._state(rollup_partition))
        return position < self._positions[rollup_partition]

    def _state(self, rollup_partition: int) -> str:
        return self._functions.key("rollup", str(rollup_partition))


def shown_fields(tables: Mapping[str, Table], key: Callable[..., str]) -> Iterator[ShownField]:
    """What Redis shows of rows of ``funnel``, ``dau`` and ``retention``; ``key`` makes keys of their parts."""
    for name, table in tables.items():
        field_of = _FIELDS[name]
        for row in table.to_pylist():
            yield field_of(key, row)


def _funnel_field(key: Callable[..., str], row: _Row) -> ShownField:
    return ShownField(
        key("funnel", _part(row["funnel"]), _part(row["campaign"]), _part(row["window"])),
        "/".join((_time(row["window_start"]), _part(row["dim"]), _part(row["dim_value"]), str(row["step"]))),
        _json(row, step_name=row["step_name"]),
    )


def _dau_field(key: Callable[..., str], row: _Row) -> ShownField:
    return ShownField(
        key("dau", _part(row["campaign"])),
        "/".join((_time(row["date"]), _part(row["dim"]), _part(row["dim_value"]))),
        _json(row),
    )


def _retention_field(key: Callable[..., str], row: _Row) -> ShownField:
    return ShownField(
        key("retention", _part(row["campaign"])),
        "/".join((_time(row["cohort_date"]), _part(row["dim"]), str(row["day"]))),
        _json(row),
    )


_FIELDS: dict[str, Callable[[Callable[..., str], _Row], ShownField]] = {
    "funnel": _funnel_field,
    "dau": _dau_field,
    "retention": _retention_field,
}
SHOWN_TABLES = tuple(_FIELDS)


def _json(row: _Row, **more: str) -> str:
    counts = {name: row[f"users_{name}"] for name in ("gross", "suspect", "clean")}
    return orjson.dumps(more | counts).decode()


def _part(value: str | None) -> str:
    """A part of a key or field, with no separator in it; a value that looks like null is told from it."""
    if value is None:
        return _NULL
    return "%2D" if value == _NULL else quote(value, safe="")


def _time(value: datetime | date | None) -> str:
    if value is None:
        return _ALL
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value.isoformat()

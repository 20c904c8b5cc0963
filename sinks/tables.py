"""Verdicts as Arrow tables, column for column as CONTRACT 3 lists them.

Many turns become one table at once: numbers are joined by NumPy, strings are copied out of the batches'
buffers by two short kernels straight into Arrow's own layout, so that no Python object is made for an
event, and little for a turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.events import INTEGER_FIELDS, MAX_EVENT_BYTES, STRING_FIELDS, TOPICS, EventBatch
from schemas.kernels import kernel
from schemas.verdicts import LEVELS, Verdicts

# pyarrow has no types; these names say in signatures what is meant.
Table: TypeAlias = Any
Array: TypeAlias = Any
Schema: TypeAlias = Any

TEXT_COLUMNS = ("event_id", "event", "channel", "campaign", "page", "platform", "variant")
OPTIONAL_INTEGERS = ("dwell_ms", "amount_minor", "cost_minor")
PSEUDONYM_COLUMNS = ("user", "device", "ip")
_DAY_MS = 86_400_000
_GROUP_BYTES = 1 << 30
"""Text of one Arrow array ends below 2 GiB; turns with more bytes behind them become arrays of their own."""

_HEX_PAIRS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
_LEVELS = pa.array(LEVELS)

_FIXED_FIELDS = (
    ("event_id", pa.string()),
    ("event", pa.string()),
    ("ts", pa.timestamp("ms", "UTC")),
    ("topic", pa.string()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("user", pa.string()),
    ("device", pa.string()),
    ("ip", pa.string()),
    ("channel", pa.string()),
    ("campaign", pa.string()),
    ("page", pa.string()),
    ("platform", pa.string()),
    ("variant", pa.string()),
    ("dwell_ms", pa.int64()),
    ("amount_minor", pa.int64()),
    ("cost_minor", pa.int64()),
    ("score", pa.float64()),
    ("level", pa.string()),
    ("reasons", pa.list_(pa.string())),
    ("evidence", pa.string()),
    ("config_hash", pa.string()),
)


def verdict_schema(feature_names: Sequence[str], model_names: Sequence[str]) -> Schema:
    """The schema of ``verdicts/`` and ``late/`` under a config."""
    features = ((f"f_{name}", pa.float64()) for name in feature_names)
    models = ((f"m_{name}", pa.float64()) for name in model_names)
    return pa.schema([*_FIXED_FIELDS, *features, *models])


def verdict_table(verdicts: Sequence[Verdicts]) -> tuple[Table, Table]:
    """The verdicts of some turns of one config as two tables: in time, and late; rows in judged order.

    Parameters
    ----------
    verdicts
        At least one turn; all of the same ``config_hash``.

    Returns
    -------
    Two tables of :func:`verdict_schema`. About 0.3 us a row of 34 columns, and 15 us a turn.

    Raises
    ------
    ValueError
        If there is no turn, or the turns are of different configs.
    """
    if len({turn.config_hash for turn in verdicts}) != 1:
        raise ValueError("expected turns of one config")
    schema = verdict_schema(verdicts[0].feature_names, verdicts[0].model_names)
    rows = pa.concat_tables([_all_rows(group, schema) for group in _groups(verdicts)])
    late = _joined([turn.late for turn in verdicts]) != 0
    if not late.any():
        return rows, rows.slice(0, 0)
    return rows.filter(pa.array(~late)), rows.filter(pa.array(late))


def by_config(verdicts: Sequence[Verdicts]) -> list[list[Verdicts]]:
    """The turns in groups of one config each, in the order in which the configs came."""
    groups: dict[str, list[Verdicts]] = {}
    for turn in verdicts:
        groups.setdefault(turn.config_hash, []).append(turn)
    return list(groups.values())


def by_date(table: Table) -> Iterator[tuple[str, Table]]:
    """Split rows by the UTC date of ``ts``: (``YYYY-MM-DD``, rows in their order), dates ascending."""
    if table.num_rows == 0:
        return
    days = table["ts"].cast(pa.int64()).to_numpy() // _DAY_MS
    if (days == days[0]).all():
        yield _date_text(int(days[0])), table
        return
    order = np.argsort(days, kind="stable")
    table, days = table.take(pa.array(order)), days[order]
    cuts = [0, *(np.flatnonzero(days[1:] != days[:-1]) + 1).tolist(), len(days)]
    for start, stop in pairwise(cuts):
        yield _date_text(int(days[start])), table.slice(start, stop - start)


class EventRows(Protocol):
    """Some rows of a batch: those of a turn, or fewer."""

    @property
    def batch(self) -> EventBatch:
        """The events."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Which of them."""


def text_columns(verdicts: Sequence[EventRows], names: Sequence[str]) -> list[Array]:
    """String fields of the verdicts' events, copied out of the batches; null where absent."""
    columns = np.array([STRING_FIELDS.index(name) for name in names], np.int64)
    ends = np.zeros((len(names), sum(len(turn.rows) for turn in verdicts) + 1), np.int32)
    at = 0
    for turn in verdicts:
        measure_text(turn.batch.lengths, turn.rows, columns, at, ends)
        at += len(turn.rows)
    present = ends[:, 1:] > 0
    np.cumsum(ends, axis=1, out=ends)
    texts = np.empty((int(ends[:, -1].sum(dtype=np.int64)),), np.uint8)
    bases = np.concatenate(([0], np.cumsum(ends[:, -1], dtype=np.int64)))
    at = 0
    for turn in verdicts:
        copy_text(turn.batch.buffer, turn.batch.starts, turn.rows, columns, at, ends, bases, texts)
        at += len(turn.rows)
    return [_string_array(ends[i], texts[bases[i] : bases[i + 1]], present[i]) for i in range(len(names))]


def hex_column(pseudonyms: Sequence[NDArray[np.uint8]]) -> Array:
    """Pseudonyms, uint8[m, 16] each, as 32 hex digits; null where all bytes are zero."""
    joined = _joined(pseudonyms)
    halves = joined.view(np.uint64)
    digits = _HEX_PAIRS[joined].view(np.uint8)
    ends = np.arange(len(joined) + 1, dtype=np.int32) * 32
    return _string_array(ends, digits, (halves[:, 0] | halves[:, 1]) != 0)


def integer_columns(verdicts: Sequence[EventRows]) -> dict[str, NDArray[np.int64]]:
    """The integer fields of the verdicts' events, -1 where absent."""
    joined = np.concatenate([turn.batch.integers[:, turn.rows] for turn in verdicts], axis=1)
    return dict(zip(INTEGER_FIELDS, joined, strict=True))


def level_column(levels: Sequence[NDArray[np.uint8]]) -> Array:
    """The levels by name."""
    return _LEVELS.take(pa.array(_joined(levels)))


class Explained(Protocol):
    """Rows with their reasons, as :class:`schemas.verdicts.Verdicts` has them."""

    @property
    def reason_offsets(self) -> NDArray[np.int32]:
        """As an Arrow list."""

    @property
    def reason_codes(self) -> NDArray[np.int32]:
        """Indexes into the names."""

    @property
    def reason_names(self) -> tuple[str, ...]:
        """What the codes mean."""

    @property
    def evidence_offsets(self) -> NDArray[np.int32]:
        """As an Arrow string."""

    @property
    def evidence_bytes(self) -> NDArray[np.uint8]:
        """JSON."""


def reasons_column(verdicts: Sequence[Explained]) -> Array:
    """The reasons by name, a list for each row; the turns share one config."""
    ends = _list_ends([turn.reason_offsets for turn in verdicts])
    codes = _joined([turn.reason_codes for turn in verdicts])
    names = pa.array(verdicts[0].reason_names, pa.string()).take(pa.array(codes))
    return pa.ListArray.from_arrays(pa.array(ends), names)


def evidence_column(verdicts: Sequence[Explained]) -> Array:
    """The evidence as text, null where there is none."""
    ends = _list_ends([turn.evidence_offsets for turn in verdicts])
    return _string_array(ends, _joined([turn.evidence_bytes for turn in verdicts]), ends[1:] > ends[:-1])


@kernel
def measure_text(
    lengths: NDArray[np.int32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    at: int,
    ends: NDArray[np.int32],
) -> None:
    """Put the length of every string of one turn at ``ends[:, at + 1 :]``."""
    for i in range(columns.shape[0]):
        column = columns[i]
        for j in range(rows.shape[0]):
            ends[i, at + 1 + j] = lengths[column, rows[j]]


@kernel
def copy_text(
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    at: int,
    ends: NDArray[np.int32],
    bases: NDArray[np.int64],
    texts: NDArray[np.uint8],
) -> None:
    """Copy every string of one turn to its place; column i of ``texts`` begins at ``bases[i]``."""
    for i in range(columns.shape[0]):
        column = columns[i]
        for j in range(rows.shape[0]):
            source = np.int64(starts[column, rows[j]])
            target = bases[i] + np.int64(ends[i, at + j])
            for k in range(np.int64(ends[i, at + j + 1]) - np.int64(ends[i, at + j])):
                texts[target + k] = buffer[source + k]


def _all_rows(verdicts: Sequence[Verdicts], schema: Schema) -> Table:
    counts = [len(turn.rows) for turn in verdicts]
    integers = integer_columns(verdicts)
    columns: dict[str, Array] = dict(zip(TEXT_COLUMNS, text_columns(verdicts, TEXT_COLUMNS), strict=True))
    columns |= {name: hex_column([getattr(turn, name) for turn in verdicts]) for name in PSEUDONYM_COLUMNS}
    columns |= {name: pa.array(integers[name], mask=integers[name] < 0) for name in OPTIONAL_INTEGERS}
    columns["ts"] = pa.array(integers["ts"]).cast(pa.timestamp("ms", "UTC"))
    columns["topic"] = _topics(verdicts, counts)
    columns["partition"] = pa.array(
        np.repeat(np.array([turn.batch.partition for turn in verdicts], np.int32), counts)
    )
    columns["offset"] = pa.array(_joined([turn.batch.offsets[turn.rows] for turn in verdicts]))
    columns["score"] = pa.array(_joined([turn.score for turn in verdicts]))
    columns["level"] = level_column([turn.level for turn in verdicts])
    columns["reasons"] = reasons_column(verdicts)
    columns["evidence"] = evidence_column(verdicts)
    columns["config_hash"] = _repeated([turn.config_hash for turn in verdicts], counts)
    columns |= _floats("f_", verdicts[0].feature_names, [turn.features for turn in verdicts])
    columns |= _floats("m_", verdicts[0].model_names, [turn.models for turn in verdicts])
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _groups(verdicts: Sequence[Verdicts]) -> Iterator[list[Verdicts]]:
    """Turns in order, as many together as stay below Arrow's 2 GiB of text; one alone always does."""
    group: list[Verdicts] = []
    group_bytes = 0
    for turn in verdicts:
        text_bytes = min(len(turn.batch.buffer), MAX_EVENT_BYTES * len(turn.rows))  # turns may share a buffer
        turn_bytes = text_bytes + len(turn.evidence_bytes) + 32 * len(turn.rows)
        if group and group_bytes + turn_bytes > _GROUP_BYTES:
            yield group
            group, group_bytes = [], 0
        group.append(turn)
        group_bytes += turn_bytes
    yield group


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts)


def _string_array(ends: NDArray[np.int32], text: NDArray[np.uint8], present: NDArray[np.bool_]) -> Array:
    bitmap = np.packbits(present, bitorder="little")
    return pa.StringArray.from_buffers(
        len(present), pa.py_buffer(ends), pa.py_buffer(text), pa.py_buffer(bitmap)
    )


def _list_ends(offsets: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Arrow list offsets of several parts as those of the whole."""
    lengths = _joined([part[1:] - part[:-1] for part in offsets])
    ends = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    return ends


def _topics(verdicts: Sequence[Verdicts], counts: Sequence[int]) -> Array:
    if any(turn.batch.topics is None for turn in verdicts):
        return _repeated([turn.batch.topic for turn in verdicts], counts)
    codes = _joined([turn.batch.topics[turn.rows] for turn in verdicts if turn.batch.topics is not None])
    return pa.array(TOPICS).take(pa.array(codes))


def _repeated(values: Sequence[str], counts: Sequence[int]) -> Array:
    """Each value as often as its count says."""
    distinct = {value: code for code, value in enumerate(dict.fromkeys(values))}
    codes = np.repeat(np.array([distinct[value] for value in values], np.int32), counts)
    return pa.array(list(distinct), pa.string()).take(pa.array(codes))


def _floats(prefix: str, names: Sequence[str], parts: Sequence[NDArray[np.float64]]) -> dict[str, Array]:
    joined = np.concatenate(parts, axis=1)
    return {
        f"{prefix}{name}": pa.array(values, from_pandas=True)
        for name, values in zip(names, joined, strict=True)
    }


def _date_text(day: int) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y-%m-%d}"

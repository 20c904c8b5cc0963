"""``replay --from-verdicts``: the tables judged again, by the config that each row names, and compared bit for bit.

It reads ``verdicts/`` and ``late/``, file by file, and may run beside the workers; what is
committed meanwhile is not looked at. What is recomputed and what is taken as recorded: :mod:`detectors.rejudge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from detectors.recorded_rows import KEPT_FIELDS, PSEUDONYM_OF, RecordedRows
from detectors.rejudge import Rejudge
from schemas.config import Config
from schemas.errors import ConfigError, StateError
from schemas.events import RECORDING
from schemas.keys import KeyRing
from schemas.tabular import decode_table
from sinks.commit_log import key_of_tables
from sinks.store import Store
from sinks.tables import Array, Schema, Table, evidence_column, level_column, reasons_column, verdict_schema
from sinks.upkeep_journal import UpkeepJournal
from streams.kept_configs import KeptConfigs
from streams.recordings import unseen
from streams.rejudge_report import Difference, Report, Tally

TABLES = ("verdicts", "late")
COMPARED = ("score", "level", "reasons", "evidence")
_CHUNK_ROWS = 32_768
_FIXED_COLUMNS = verdict_schema((), ())


class TableJudge:
    """Judges rows of the tables by one config and tells where they differ."""

    def __init__(self, config: Config, kept: KeptConfigs, ring: KeyRing) -> None:
        self.config = config
        self._rejudge = Rejudge(config, ring, kept.lists(config), kept.values(config))
        self.given_lists, self.rule_names = self._rejudge.given_lists, self._rejudge.rule_names

    def judge(self, table: Table) -> tuple[Table, NDArray[np.bool_], NDArray[np.int64]]:
        """Judge rows again, whatever config they name.

        Parameters
        ----------
        table
            At most 65,536 rows of ``verdicts/`` or ``late/``, with the columns of this config.

        Returns
        -------
        again, same, undecided
            The columns COMPARED as they are now, null in a row that is no event; bool[n]: whether all are bit for bit
            what is recorded; int64[rules], see :class:`detectors.rejudge.Rejudged`.

        Raises
        ------
        StateError
            A column is missing or of another type.
        """
        _check_columns(table.schema, verdict_schema(self.config.feature_names, tuple(self.config.models)))
        table = table.combine_chunks()
        recorded = self._recorded(table)
        rejudged = self._rejudge.judge(recorded)
        judged = [
            pa.array(rejudged.score),
            level_column([rejudged.level]),
            reasons_column([rejudged]),
            evidence_column([rejudged]),
        ]
        again = pa.table(judged, names=list(COMPARED))
        if len(recorded.rows) < table.num_rows:
            place = np.full(table.num_rows, -1)
            place[recorded.rows] = np.arange(len(recorded.rows))
            again = again.take(pa.array(place, mask=place < 0))
        return again, _same(table, again), rejudged.undecided

    def _recorded(self, table: Table) -> RecordedRows:
        """Rows as the core takes them: what a table does not keep of an event is absent."""
        count, config = table.num_rows, self.config
        kept = table.select([*KEPT_FIELDS, "ts"]).append_column("user_id", table["user"])
        batch = decode_table(
            kept,
            topic=RECORDING,
            partition=0,
            start=0,
            next=count,
            offsets=np.arange(count),
            attributes=config.attributes_used,
        ).batch
        rows = np.flatnonzero(batch.rejected == 0)
        if len(rows) < count:
            table = table.take(pa.array(rows))
        return RecordedRows(
            batch,
            rows,
            _numbers(table, [f"f_{name}" for name in config.features]),
            _numbers(table, [f"m_{name}" for name in config.models]),
            table["evidence"].to_pylist(),
            {entity: _texts(table[PSEUDONYM_OF[entity]]) for entity in self._rejudge.known_entities},
        )


def rejudge(
    store: Store,
    kept: KeptConfigs,
    ring: KeyRing,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    progress: Callable[[int], None] = unseen,
) -> Report:
    """Judge the rows of the tables again, each by its own config. About 3 us a row; memory is that of a chunk.

    Parameters
    ----------
    store
        Where the tables are.
    kept
        The configs by hash.
    ring
        Keys of the installation.
    since_ms, until_ms
        Only events of this time: [since, until).
    progress
        Told the rows of each chunk.

    Raises
    ------
    ConfigError
        There are no tables.
    StateError
        They were made with another key, or a file is none of ours.
    """
    judges: dict[str, TableJudge | None] = {}
    tally = Tally(kept)
    for file in table_files(store, ring, since_ms=since_ms, until_ms=until_ms):
        for table in _chunks(store, file, since_ms, until_ms):
            for config_hash, rows in _by_config(table):
                if config_hash not in judges:
                    config = kept.find(config_hash)
                    judges[config_hash] = None if config is None else TableJudge(config, kept, ring)
                if (judge := judges[config_hash]) is None:
                    tally.missing(config_hash, rows)
                    continue
                try:
                    again, same, undecided = judge.judge(rows)
                except StateError as error:
                    raise StateError(f"{file}: {error}") from error
                tally.add(
                    config_hash, rows, same, dict(zip(judge.rule_names, undecided.tolist(), strict=True))
                )
                tally.differ(_differences(file, rows, again, same, most=tally.room))
            progress(table.num_rows)
    return tally.report({name: judge.given_lists for name, judge in judges.items() if judge is not None})


def table_files(
    store: Store, ring: KeyRing, *, since_ms: int | None = None, until_ms: int | None = None
) -> list[str]:
    """Names of the files that may have events of a time, ``verdicts/`` first.

    Raises
    ------
    ConfigError, StateError
        As of :func:`rejudge`.
    """
    journal = UpkeepJournal(store)
    files = {table: journal.view(table).files for table in TABLES}
    if not any(files.values()):
        found = f"{store}, which has no verdicts"
        raise ConfigError(
            file="--from-verdicts", path="$", found=found, expected="the --out of a worker or a replay"
        )
    if key_of_tables(store) not in (None, ring.fingerprint):
        raise StateError(
            f"the tables in {store} were made with another key: set WOOLWATCH_KEY to the one they have"
        )
    first, last = (None if bound is None else f"date={_date(bound)}" for bound in (since_ms, until_ms))
    return [
        name
        for table in TABLES
        for name in files[table]
        if (first is None or name.split("/")[1] >= first) and (last is None or name.split("/")[1] <= last)
    ]


def _date(ts_ms: int) -> str:
    return f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d}"


def _chunks(store: Store, name: str, since_ms: int | None, until_ms: int | None) -> Iterator[Table]:
    """The rows of a file within the time, some at once."""
    try:
        with store.open(name) as source, pq.ParquetFile(source) as file:
            _check_columns(file.schema_arrow, _FIXED_COLUMNS)
            for chunk in file.iter_batches(batch_size=_CHUNK_ROWS):
                table = pa.Table.from_batches([chunk])
                if since_ms is not None or until_ms is not None:
                    table = table.filter(_within(table, since_ms, until_ms))
                if table.num_rows:
                    yield table
    except (OSError, pa.ArrowException, StateError) as error:
        raise StateError(f"{name} is no table of this version: {error}") from error


def _within(table: Table, since_ms: int | None, until_ms: int | None) -> Array:
    ts_ms = table["ts"].cast(pa.int64())
    holds = pa.array(np.ones(table.num_rows, np.bool_))
    if since_ms is not None:
        holds = pc.and_(holds, pc.greater_equal(ts_ms, since_ms))
    if until_ms is not None:
        holds = pc.and_(holds, pc.less(ts_ms, until_ms))
    return holds


def _by_config(table: Table) -> Iterator[tuple[str, Table]]:
    """The rows by the config that they name; a row that names none names ``""``."""
    hashes = pc.fill_null(table["config_hash"], "")
    distinct = pc.unique(hashes).to_pylist()
    for config_hash in distinct:
        yield config_hash, table if len(distinct) == 1 else table.filter(pc.equal(hashes, config_hash))


def _check_columns(found: Schema, expected: Schema) -> None:
    for field in expected:
        place = found.get_field_index(field.name)
        if place < 0 or not found.field(place).type.equals(field.type):
            what = "no column" if place < 0 else f"a column of {found.field(place).type}"
            raise StateError(f"found {what} {field.name}; expected {field.type}")


def _numbers(table: Table, names: Sequence[str]) -> NDArray[np.float64]:
    """float64[names, n]; null is NaN."""
    columns = np.empty((len(names), table.num_rows))
    for place, name in enumerate(names):
        columns[place] = table[name].to_numpy()
    return columns


def _texts(column: Array) -> NDArray[np.bytes_]:
    """Pseudonyms as S32[n]; what is none can not be one of those looked for, and is cut."""
    return np.array(pc.fill_null(column, "").cast(pa.binary()).to_pylist(), "S32")


def _same(table: Table, again: Table) -> NDArray[np.bool_]:
    """bool[n]: rows whose columns are all what they were, floats bit by bit."""
    same = np.ones(table.num_rows, np.bool_)
    for name in COMPARED:
        before, now = table[name], again[name]
        if name == "score" and before.null_count == now.null_count == 0:
            same &= before.to_numpy().view(np.int64) == now.to_numpy().view(np.int64)
        elif not before.equals(now):
            pairs = zip(before.to_pylist(), now.to_pylist(), strict=True)
            same &= np.array([one == other for one, other in pairs], np.bool_)
    return same


def _differences(
    file: str, table: Table, again: Table, same: NDArray[np.bool_], *, most: int
) -> Iterator[Difference]:
    """The first rows that differ, with what differs in them."""
    for row in np.flatnonzero(~same)[:most].tolist():
        before, now = (one.slice(row, 1).to_pylist()[0] for one in (table, again))
        yield Difference(
            table=file.partition("/")[0],
            event_id=before["event_id"],
            topic=before["topic"],
            partition=before["partition"],
            offset=before["offset"],
            config_hash=before["config_hash"],
            recorded={name: before[name] for name in COMPARED if before[name] != now[name]},
            again={name: now[name] for name in COMPARED if before[name] != now[name]},
        )

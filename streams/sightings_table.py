"""The sightings log as a table, so that anybody can count the features of a run again.

One row for each sighting that counts, in the order in which its owner took them: turns under an overtaken claim and
repeats are left out by the rules of :mod:`detectors.shard`, applied here anew to the records.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detectors.plan import Plan
from schemas.events import TOPICS
from schemas.sightings import LOOK_ONLY, NO_NAME, Claim, Sightings, decode_sightings
from streams.batches import Record
from streams.config_store import ConfigStore
from streams.ranges import read_range
from streams.security import kafka_brokers
from streams.settings import Settings
from streams.topics import open_topics

SCHEMA = pa.schema(
    [
        ("owner", pa.int32()),
        ("log_offset", pa.int64()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("turn", pa.int64()),
        ("ts", pa.timestamp("ms", "UTC")),
        ("event", pa.string()),
        ("look_only", pa.bool_()),
        ("kind", pa.string()),
        ("entity", pa.uint64()),
        ("members", pa.map_(pa.string(), pa.uint64())),
    ]
)


async def write_sightings(settings: Settings, out: Path) -> int:
    """Write the log, as far as it reaches now, to a Parquet file; returns the number of rows.

    Parameters
    ----------
    settings
        Brokers, topic names, and the state folder with the configs by hash.
    out
        The file.

    Raises
    ------
    UnreachableError
        Kafka did not answer.
    StateError
        A config of the log is not kept in the state folder.
    """
    brokers = kafka_brokers(settings)
    topic, configs, rows = settings.topic("sightings"), ConfigStore(settings.state_store), 0
    with open_topics(brokers, wait_s=settings.wait_s) as topics:
        begins, ends = topics.begin_offsets(topic), topics.end_offsets(topic)
    with pq.ParquetWriter(out, SCHEMA) as writer:
        for tp in sorted(begins):
            log = read_range(brokers, tp, begins[tp], ends[tp])
            async for offset, sightings in _counted(log):
                table = _table(tp.partition, offset, sightings, configs.plan(sightings.config))
                writer.write_table(table)
                rows += len(table)
    return rows


async def _counted(log: AsyncIterator[Record]) -> AsyncIterator[tuple[int, Sightings]]:
    """The records of one owner's log that count, with their offsets."""
    claims: dict[int, bytes] = {}
    applied: dict[tuple[int, int], int] = {}
    async for message in log:
        record = decode_sightings(message.value or b"")
        if isinstance(record, Claim):
            claims[record.source] = record.claim
            continue
        if record.topic >= len(TOPICS):
            continue  # labels: the turn sees nobody
        source = (record.topic, record.source)
        overtaken = claims.get(record.source, record.claim) != record.claim
        if overtaken or record.start < applied.get(source, record.start):
            continue
        applied[source] = record.next
        yield message.offset, record


def _table(owner: int, log_offset: int, record: Sightings, plan: Plan) -> Any:
    at = record.event
    rows = len(at)
    names = np.array([*plan.names, None], object)
    name = np.where(record.name == NO_NAME, len(plan.names), record.name)
    columns = [
        np.full(rows, owner, np.int32),
        np.full(rows, log_offset, np.int64),
        [TOPICS[record.topic]] * rows,
        np.full(rows, record.source, np.int32),
        record.start + record.offset[at].astype(np.int64),
        np.full(rows, record.turn, np.int64),
        record.ts_ms[at].astype("datetime64[ms]"),
        names[name[at]],
        (record.flags[at] & LOOK_ONLY) != 0,
        np.array(plan.kinds, object)[record.kind] if rows else [],
        record.entity,
        list(_members(record, plan)),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _members(record: Sightings, plan: Plan) -> Iterator[list[tuple[str, int]]]:
    values = record.members.T.tolist()
    for event in record.event.tolist():
        yield [(kind, key) for kind, key in zip(plan.members, values[event], strict=True) if key]

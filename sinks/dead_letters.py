"""What was no event, kept so that a person can see why, and no thief can read what.

A dead letter says where the record stood, what was wrong with it, and its length and digest; at most the
first 64 KiB of the original go along, sealed. Live it is a record of the ``deadletters`` topic, in a replay
a row of the table.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from schemas.events import TOPICS, EventBatch, Rejection
from sinks.tables import Schema, Table

DEAD_LETTER_SCHEMA: Schema = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("code", pa.string()),
        ("path", pa.string()),
        ("expected", pa.string()),
        ("length", pa.int64()),
        ("sha256", pa.string()),
        ("sealed", pa.binary()),
        ("record_ts", pa.timestamp("ms", "UTC")),
    ]
)


class Seal(Protocol):
    """Encrypts what came in, bound to its place; ``schemas.sealing.seal`` under a key ring."""

    def __call__(self, topic: str, partition: int, offset: int, sha256: bytes, raw: bytes, /) -> bytes:
        """Return the sealed bytes."""
        ...


def dead_letters(
    batch: EventBatch, seal: Seal, *, record_ts_ms: NDArray[np.int64] | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the Kafka records for the broken rows of a batch; a repeat has the same key.

    Parameters
    ----------
    batch
        Where the rejections are.
    seal
        Closes the originals.
    record_ts_ms
        int64[len(batch)]: the records' own timestamps; None where there are none.
    """
    for rejection in batch.rejections:
        letter = _letter(batch, rejection, record_ts_ms)
        sealed = b64encode(_sealed(batch, rejection, seal)).decode()
        key = f"{letter['topic']}/{letter['partition']}/{letter['offset']}".encode()
        yield key, orjson.dumps({**letter, "sealed": sealed})


def dead_letter_table(batches: Sequence[EventBatch], seal: Seal) -> Table:
    """The broken rows of some batches by :data:`DEAD_LETTER_SCHEMA`; ``record_ts`` is null."""
    letters = [
        {**_letter(batch, rejection, None), "sealed": _sealed(batch, rejection, seal)}
        for batch in batches
        for rejection in batch.rejections
    ]
    return pa.Table.from_pylist(letters, schema=DEAD_LETTER_SCHEMA)


def _letter(
    batch: EventBatch, rejection: Rejection, record_ts_ms: NDArray[np.int64] | None
) -> dict[str, object]:
    return {
        "topic": _topic(batch, rejection),
        "partition": batch.partition,
        "offset": int(batch.offsets[rejection.row]),
        "code": rejection.code.name.lower(),
        "path": rejection.path,
        "expected": rejection.expected,
        "length": rejection.length,
        "sha256": rejection.sha256.hex(),
        "record_ts": None if record_ts_ms is None else int(record_ts_ms[rejection.row]),
    }


def _sealed(batch: EventBatch, rejection: Rejection, seal: Seal) -> bytes:
    offset = int(batch.offsets[rejection.row])
    return seal(_topic(batch, rejection), batch.partition, offset, rejection.sha256, rejection.raw)


def _topic(batch: EventBatch, rejection: Rejection) -> str:
    return batch.topic if batch.topics is None else TOPICS[batch.topics[rejection.row]]

"""Dead letters as Kafka records and as rows."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import orjson

from schemas.events import RECORDING, EventBatch
from sinks.dead_letters import dead_letter_table, dead_letters
from tests.unit.sinks.turns import made_turn

SECRET = b"13800138000"


def broken_batch() -> EventBatch:
    for number in range(100):
        batch = made_turn(number, start=70).turn.batch
        if len(batch.rejections) >= 2:
            rejections = tuple(replace(rejection, raw=SECRET) for rejection in batch.rejections)
            return replace(batch, rejections=rejections)
    raise AssertionError("no batch with two broken rows")


def seal(topic: str, partition: int, offset: int, sha256: bytes, raw: bytes, /) -> bytes:
    """Not a cipher: it shows what it was called with, and the original only turned round."""
    return f"{topic} {partition} {offset} {sha256.hex()} ".encode() + raw[::-1]


def test_a_record_says_where_and_why_and_keeps_the_original_sealed() -> None:
    batch = broken_batch()
    record_ts_ms = np.arange(len(batch), dtype=np.int64) + 1_600_000_000_000

    records = list(dead_letters(batch, seal, record_ts_ms=record_ts_ms))

    assert len(records) == len(batch.rejections)
    for (key, value), rejection in zip(records, batch.rejections, strict=True):
        offset = 70 + rejection.row
        assert key == f"{batch.topic}/3/{offset}".encode()
        assert SECRET not in value
        assert orjson.loads(value) == {
            "topic": batch.topic,
            "partition": 3,
            "offset": offset,
            "code": "bad_ip",
            "path": "$.ip",
            "expected": "an IP address",
            "length": rejection.length,
            "sha256": rejection.sha256.hex(),
            "record_ts": 1_600_000_000_000 + rejection.row,
            "sealed": base64.b64encode(seal(batch.topic, 3, offset, rejection.sha256, SECRET)).decode(),
        }


def test_a_repeat_is_equal_and_a_missing_timestamp_is_null() -> None:
    batch = broken_batch()
    records = list(dead_letters(batch, seal))
    assert records == list(dead_letters(batch, seal))
    assert orjson.loads(records[0][1])["record_ts"] is None


def test_a_batch_without_broken_rows_has_none() -> None:
    batch = made_turn(0, only_verdicts=True).turn.batch
    assert list(dead_letters(batch, seal)) == []
    assert dead_letter_table([batch], seal).num_rows == 0


def test_rows_hold_what_records_hold() -> None:
    batches = [broken_batch(), made_turn(1, only_verdicts=True).turn.batch]
    rows = dead_letter_table(batches, seal).to_pylist()
    for row, (_, value) in zip(rows, dead_letters(batches[0], seal), strict=True):
        sealed = base64.b64encode(row["sealed"]).decode()
        assert {**row, "sealed": sealed} == orjson.loads(value)


def test_a_row_of_a_recording_is_placed_in_its_own_topic() -> None:
    batch = broken_batch()
    batch = replace(batch, topic=RECORDING, topics=np.ones(len(batch), np.uint8))
    assert {row["topic"] for row in dead_letter_table([batch], seal).to_pylist()} == {"participations"}
    key, value = next(iter(dead_letters(batch, seal)))
    assert key.startswith(b"participations/3/")
    assert base64.b64decode(orjson.loads(value)["sealed"]).startswith(b"participations 3 ")

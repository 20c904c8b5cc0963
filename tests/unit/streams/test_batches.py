from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from faust.transport.drivers.aiokafka import Consumer
from faust.types import AppT

from streams.batches import TP, Batch

PLACE = TP("clicks", 3)


@dataclass
class FakeRecord:
    """As aiokafka's, which Batch knows only by its attributes."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0
    topic: str = "clicks"
    partition: int = 3
    headers: tuple[tuple[str, bytes], ...] = ()


def batch_of(*records: FakeRecord, start: int = 0, next: int = 100) -> Batch:
    return Batch(PLACE, records, start=start, next=next, generation=7)


def test_columns_are_those_of_the_records() -> None:
    batch = batch_of(FakeRecord(4, b"a", b"k", 1_000), FakeRecord(9, None, None, 2_000))
    assert batch.values() == [b"a", b""]
    assert batch.keys() == [b"k", None]
    assert batch.offsets().tolist() == [4, 9]
    assert batch.timestamps_ms().tolist() == [1_000, 2_000]
    assert batch.offsets().dtype == batch.timestamps_ms().dtype == np.int64


def test_bytes_are_those_of_the_values() -> None:
    assert batch_of(FakeRecord(0, b"abc", b"key"), FakeRecord(1, None), FakeRecord(2, b"de")).nbytes == 5


def test_what_is_in_a_batch_stays_out_of_its_description() -> None:
    assert repr(batch_of(FakeRecord(4, b"13800000000"))) == "Batch(clicks-3 [0, 100), 1 records)"


def test_after_a_position_only_the_rest_is_left() -> None:
    batch = batch_of(*[FakeRecord(offset, b"x") for offset in (10, 20, 30)], start=5, next=40)
    assert batch.after(5) is batch
    rest = batch.after(20)
    assert (rest.start, rest.next, rest.generation, rest.tp) == (20, 40, 7, PLACE)
    assert rest.offsets().tolist() == [20, 30]


def test_after_its_end_a_batch_is_empty_and_claims_nothing_beyond() -> None:
    rest = batch_of(FakeRecord(10, b"x"), start=5, next=40).after(90)
    assert (rest.start, rest.next, len(rest)) == (40, 40, 0)
    assert rest.offsets().shape == (0,)
    assert rest.timestamp == 0


def test_faust_makes_a_message_of_a_batch_and_gives_the_batch_back() -> None:
    class Application:
        consumer_generation_id = 7

    consumer = Consumer.__new__(Consumer)
    consumer.app = cast("AppT", Application())
    batch = batch_of(FakeRecord(50, b"x", timestamp=2_500), start=40)
    message = consumer._to_message(PLACE, batch)
    given_back: object = message.value
    assert given_back is batch
    assert (message.offset, message.timestamp, message.tp, message.key) == (40, 2.5, PLACE, None)

"""A batch: the records that one fetch brought of one partition, and the range of offsets it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from faust.types import TP

__all__ = ["TP", "Batch", "Record"]


class Record(Protocol):
    """What a record shows, parsed or wrapped by the client."""

    @property
    def offset(self) -> int:
        """Its place in the log."""

    @property
    def timestamp(self) -> int:
        """Epoch milliseconds, by producer or broker."""

    @property
    def key(self) -> bytes | None:
        """None where it has none."""

    @property
    def value(self) -> bytes | None:
        """None is a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """In the producer's order."""


class Batch:
    """Records of one partition, in the order of their offsets; it covers the offsets [start, next).

    The range is wider than the records: transaction markers, aborted records and what compaction removed lie
    in it too. A batch begins where the one before it ended, so the ranges leave no hole, also after a
    restart.

    Faust makes a message of whatever the client hands it, so a batch also answers as one record that has the
    batch for its value: that is what ``offset``, ``timestamp``, ``key``, ``value`` and the rest are for.

    Parameters
    ----------
    records
        As the client gave them; kept, not copied.
    start, next
        First offset of the range, and the offset after it.
    generation
        Of the consumer group, as it was when the batch was read. A rebalance makes the batch stale.
    """

    __slots__ = ("generation", "nbytes", "next", "partition", "records", "start", "topic")

    timestamp_type = 0
    key = None
    checksum = None
    serialized_key_size = 0
    serialized_value_size = 0
    headers: tuple[tuple[str, bytes], ...] = ()

    def __init__(self, tp: TP, records: Sequence[Record], *, start: int, next: int, generation: int) -> None:
        self.topic, self.partition = tp
        self.records = records
        self.start = start
        self.next = next
        self.generation = generation
        self.nbytes = sum([len(record.value) for record in records if record.value is not None])

    def __repr__(self) -> str:
        """Return the place of the batch, never what is in it."""
        return f"Batch({self.topic}-{self.partition} [{self.start}, {self.next}), {len(self)} records)"

    def __len__(self) -> int:
        """Return the number of records, which may be smaller than the range."""
        return len(self.records)

    @property
    def tp(self) -> TP:
        """Topic and partition, as a key."""
        return TP(self.topic, self.partition)

    @property
    def offset(self) -> int:
        """For Faust: the start of the range."""
        return self.start

    @property
    def timestamp(self) -> int:
        """For Faust: epoch milliseconds of the last record, 0 when there is none."""
        return self.records[-1].timestamp if self.records else 0

    @property
    def value(self) -> Any:
        """For Faust: the batch itself."""
        return self

    def values(self) -> list[bytes]:
        """Return the records' values; a tombstone's is ``b""``."""
        return [record.value or b"" for record in self.records]

    def keys(self) -> list[bytes | None]:
        """Return the records' keys, None where a record has none."""
        return [record.key for record in self.records]

    def offsets(self) -> npt.NDArray[np.int64]:
        """Return the records' offsets, ascending, int64[len(batch)]."""
        return np.array([record.offset for record in self.records], dtype=np.int64)

    def timestamps_ms(self) -> npt.NDArray[np.int64]:
        """Return the records' own timestamps, epoch milliseconds, int64[len(batch)]."""
        return np.array([record.timestamp for record in self.records], dtype=np.int64)

    def after(self, position: int) -> Batch:
        """Return the part of the batch from `position` on, for a reader whose state stands there already.

        A position at or below the start returns the batch itself; one at or beyond ``next`` an empty batch.
        """
        if position <= self.start:
            return self
        kept = [record for record in self.records if record.offset >= position]
        start = min(position, self.next)
        return Batch(self.tp, kept, start=start, next=self.next, generation=self.generation)

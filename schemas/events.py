"""What an event is, and how a batch of them is held: as columns over the bytes that came in.

There is no Python object per event. A string stays where it is, as (start, length) into one buffer; numbers stand
in flat arrays; a broken row keeps its place with an error code, so that its neighbours go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

STRING_FIELDS = (
    "event_id",
    "event",
    "user_id",
    "device_id",
    "ip",
    "phone",
    "channel",
    "campaign",
    "page",
    "platform",
    "variant",
    "inviter_id",
    "session_id",
)
INTEGER_FIELDS = ("ts", "dwell_ms", "amount_minor", "cost_minor")
FLOAT_FIELDS = ("lat", "lon")
LABEL_FIELD = "label"
KNOWN_FIELDS = (*STRING_FIELDS, *INTEGER_FIELDS, *FLOAT_FIELDS, LABEL_FIELD)
REQUIRED_FIELDS = ("event_id", "event", "ts", "user_id")

CLICKS, PARTICIPATIONS = "clicks", "participations"
TOPICS = (CLICKS, PARTICIPATIONS)
RECORDING = "recording"
"""The source of a replay: one partition, whose rows belong to both topics."""
PARTICIPATION_EVENTS = frozenset(
    ("signup", "participate", "redeem", "purchase", "install", "refund", "complaint")
)

MAX_EVENT_BYTES = 64 * 1024
MAX_ATTRIBUTES = 32
MAX_INTEGER = 1 << 53
EARLIEST_TS_MS = 946_684_800_000
"""2000-01-01T00:00:00Z: what lies before is a timestamp in seconds, or none at all."""
FUTURE_TOLERANCE_MS = 5 * 60 * 1000
ABSENT_INTEGER = -1
BUFFER_PADDING = 16
"""Bytes behind the last string in a batch's buffer, so that kernels may read whole words."""


class RejectCode(IntEnum):
    """Why a record is no event. 0 is not a rejection; the names go into dead letters in lower case."""

    OK = 0
    TOO_LARGE = 1
    NOT_UTF8 = 2
    NOT_JSON = 3
    NOT_AN_OBJECT = 4
    TOO_DEEP = 5
    MISSING = 6
    WRONG_TYPE = 7
    OUT_OF_RANGE = 8
    TOO_LONG = 9
    TOO_MANY_ATTRIBUTES = 10
    BAD_IP = 11
    HALF_COORDINATE = 12
    TOO_OLD = 13
    IN_THE_FUTURE = 14
    UNKNOWN_EVENT = 15


@dataclass(frozen=True, slots=True)
class Rejection:
    """One broken row: where in the batch, why, and the bytes as they came.

    Parameters
    ----------
    row
        Index into the batch.
    code
        The reason.
    path
        JSON path of the culprit (``$.lat``), ``$`` for the record as a whole.
    expected
        What would have been right, in plain words; never the value that was found.
    raw
        The first 64 KiB of the original.
    length
        Bytes of the whole original.
    sha256
        Digest of the whole original, 32 bytes.
    """

    row: int
    code: RejectCode
    path: str
    expected: str
    raw: bytes
    length: int
    sha256: bytes


@dataclass(slots=True)
class EventBatch:
    """Events of one topic-partition as columns; n rows, one for each record in [start, next) that exists.

    Parameters
    ----------
    topic, partition
        The source. ``topic`` is the role (``clicks`` or ``participations``), not the broker's name for it.
    start, next
        The offsets that the batch covers, half open; compaction and transaction markers leave holes in ``offsets``.
    offsets
        int64[n], ascending.
    buffer
        uint8[...], what the spans point into, with BUFFER_PADDING readable bytes behind.
    starts, lengths
        int32[fields, n]: spans of STRING_FIELDS and then of ``attributes`` that are strings. Length 0: absent.
        ``ip`` is canonical text here.
    integers
        int64[4, n] in the order of INTEGER_FIELDS; -1: absent.
    floats
        float64[2, n]: lat, lon; NaN: absent.
    attributes
        Names of the attributes that the config uses; others are checked and counted but not kept.
    attribute_numbers
        float64[attributes, n]: those that are numbers or booleans (1, 0); NaN: absent or a string.
    labels
        int8[n]: 0, 1 or -1 for absent. Only recordings have them.
    rejected
        uint8[n]: RejectCode.
    rejections
        One for each row whose ``rejected`` is not OK, in row order.
    topics
        uint8[n]: index into TOPICS of each row; None where all rows are of ``topic``. A replay is one source (its
        ``topic`` is RECORDING) whose rows belong to both; then ``offsets`` count each topic by itself.
    """

    topic: str
    partition: int
    start: int
    next: int
    offsets: NDArray[np.int64]
    buffer: NDArray[np.uint8]
    starts: NDArray[np.int32]
    lengths: NDArray[np.int32]
    integers: NDArray[np.int64]
    floats: NDArray[np.float64]
    attributes: tuple[str, ...]
    attribute_numbers: NDArray[np.float64]
    labels: NDArray[np.int8]
    rejected: NDArray[np.uint8]
    rejections: tuple[Rejection, ...]
    topics: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """Rows, broken ones included."""
        return len(self.offsets)

    def text(self, field: str, row: int) -> str | None:
        """One string field of one row; None when absent. For rare rows only: it makes a Python object."""
        column = string_column(field, self.attributes)
        length = int(self.lengths[column, row])
        if length == 0:
            return None
        start = int(self.starts[column, row])
        return self.buffer[start : start + length].tobytes().decode()

    def slice(self, first: int, last: int) -> EventBatch:
        """Rows [first, last) as views; offsets ``start`` and ``next`` move by rows, so only dense batches are cut."""
        at = slice(first, last)
        return EventBatch(
            topic=self.topic,
            partition=self.partition,
            start=self.start + first,
            next=self.start + last,
            offsets=self.offsets[at],
            buffer=self.buffer,
            starts=self.starts[:, at],
            lengths=self.lengths[:, at],
            integers=self.integers[:, at],
            floats=self.floats[:, at],
            attributes=self.attributes,
            attribute_numbers=self.attribute_numbers[:, at],
            labels=self.labels[at],
            rejected=self.rejected[at],
            rejections=tuple(
                replace(rejection, row=rejection.row - first)
                for rejection in self.rejections
                if first <= rejection.row < last
            ),
            topics=None if self.topics is None else self.topics[at],
        )


def string_column(field: str, attributes: tuple[str, ...]) -> int:
    """Row of ``EventBatch.starts`` that holds a string field or ``attrs.<name>``."""
    if field.startswith("attrs."):
        return len(STRING_FIELDS) + attributes.index(field[len("attrs.") :])
    return STRING_FIELDS.index(field)


def default_topic(event: str) -> str:
    """Topic of an event name that the config does not place (CONTRACT 1)."""
    return PARTICIPATIONS if event in PARTICIPATION_EVENTS else CLICKS

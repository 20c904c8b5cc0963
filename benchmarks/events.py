"""Events to measure with: seeded, as a campaign's events are shaped, 268 bytes and 14 fields each.

200,000 users, 150,000 devices and 60,000 addresses, Zipf-distributed. A user mostly comes by one device and
one address; 2,000 events a second of event time, out of order by up to 2 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

USERS, DEVICES, ADDRESSES = 200_000, 150_000, 60_000
EVENTS_PER_S = 2_000
FIRST_MS = 1_767_571_200_000
"""2026-01-05, 00:00 UTC: all events are of one day, and none is of the future."""
SHUFFLE_MS = 2_000
NAMES = ("view", "click", "participate")
NAME_SHARES = (0.7, 0.2, 0.1)
PAGES = ("/landing", "/home", "/item", "/cart", "/pay", "/done")
CHANNELS, CAMPAIGNS = 12, 8

_SLICE = 50_000


@dataclass(frozen=True)
class Events:
    """Columns of the events, in the order in which they are sent."""

    ts_ms: NDArray[np.int64]
    name: NDArray[np.int64]
    user: NDArray[np.int64]
    device: NDArray[np.int64]
    address: NDArray[np.int64]
    channel: NDArray[np.int64]
    campaign: NDArray[np.int64]
    page: NDArray[np.int64]
    dwell_ms: NDArray[np.int64]
    amount_minor: NDArray[np.int64]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]

    def __len__(self) -> int:
        """How many."""
        return len(self.ts_ms)

    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        """Events [first, last) as a producer would write them."""
        columns = (getattr(self, field)[first:last].tolist() for field in self.__dataclass_fields__)
        return [_row(number, *row) for number, row in enumerate(zip(*columns, strict=True), first)]

    def lines(self, first: int = 0, last: int | None = None) -> list[bytes]:
        """Events [first, last) as JSON."""
        stop = len(self) if last is None else last
        # Copied: what orjson returns keeps the memory of its first, larger buffer.
        return [
            bytes(memoryview(orjson.dumps(row)))
            for begin in range(first, stop, _SLICE)
            for row in self.rows(begin, min(begin + _SLICE, stop))
        ]

    @property
    def distinct_users(self) -> int:
        """How many different users there are: what DAU must show."""
        return len(np.unique(self.user))


def _row(
    number: int,
    ts_ms: int,
    name: int,
    user: int,
    device: int,
    address: int,
    channel: int,
    campaign: int,
    page: int,
    dwell_ms: int,
    amount_minor: int,
    lat: float,
    lon: float,
) -> dict[str, Any]:
    return {
        "event_id": f"e{number:08d}",
        "event": NAMES[name],
        "ts": ts_ms,
        "user_id": f"u{user:06d}",
        "device_id": f"d{device:06d}",
        "ip": f"10.{address >> 12}.{address >> 6 & 63}.{address & 63}",
        "phone": f"138{user:08d}",
        "lat": lat,
        "lon": lon,
        "dwell_ms": dwell_ms,
        "channel": f"c{channel:02d}",
        "campaign": f"campaign-spring-{campaign}",
        "page": PAGES[page],
        "amount_minor": amount_minor,
    }


def make_events(count: int, *, seed: int = 7) -> Events:
    """Draw the events; those of a smaller count are not a prefix of those of a larger one."""
    rng = np.random.default_rng(seed)
    home_device, home_address = rng.integers(0, DEVICES, USERS), rng.integers(0, ADDRESSES, USERS)
    user = _zipf(rng, USERS, count, 0.5)
    at_home, by_own_device = rng.random(count) < 0.70, rng.random(count) < 0.85
    return Events(
        ts_ms=FIRST_MS
        + SHUFFLE_MS
        + np.arange(count) * 1000 // EVENTS_PER_S
        - rng.integers(0, SHUFFLE_MS + 1, count),
        name=rng.choice(len(NAMES), count, p=NAME_SHARES),
        user=user,
        device=np.where(by_own_device, home_device[user], _zipf(rng, DEVICES, count, 0.5)),
        address=np.where(at_home, home_address[user], _zipf(rng, ADDRESSES, count, 0.6)),
        channel=_zipf(rng, CHANNELS, count, 0.7),
        campaign=rng.integers(1, CAMPAIGNS + 1, count),
        page=rng.integers(0, len(PAGES), count),
        dwell_ms=rng.gamma(2.0, 2500, count).astype(np.int64),
        amount_minor=rng.integers(0, 5000, count),
        lat=np.round(18 + 36 * rng.random(count), 4),
        lon=np.round(73 + 62 * rng.random(count), 4),
    )


def _zipf(rng: np.random.Generator, size: int, count: int, exponent: float) -> NDArray[np.int64]:
    """Rank r has weight r ** -exponent; ranks are shuffled, so that numbers carry no order."""
    weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count))
    return rng.permutation(size)[ranks]


def write_jsonl(events: Events, path: Path) -> None:
    """The events as a recording in JSONL; without events an empty file."""
    with path.open("wb") as file:
        for first, last in _slices(len(events)):
            file.writelines(line + b"\n" for line in events.lines(first, last))


def write_parquet(events: Events, path: Path) -> None:
    """The events as a recording in Parquet; without events a file that has only the schema."""
    schema = pa.Table.from_pylist(make_events(1).rows(0, 1)).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first, last in _slices(len(events)):
            writer.write_table(pa.Table.from_pylist(events.rows(first, last), schema=schema))


def _slices(count: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, _SLICE):
        yield first, min(first + _SLICE, count)

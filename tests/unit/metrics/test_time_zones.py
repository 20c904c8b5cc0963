from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pytest

from metrics.time_zones import DAY_MS, zone_offsets

# Clocks that change at midnight (Beirut, Havana), by half an hour (Lord Howe), twice a year around Ramadan
# (Casablanca), and an island that left out a whole day at the end of 2011 (Apia).
ZONES = [
    "UTC",
    "Asia/Shanghai",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Beirut",
    "America/Havana",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Pacific/Apia",
]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS, LAST_MS = 946_684_800_000, 2_200_000_000_000


def local_day(name: str, ts_ms: int) -> int:
    moment = EPOCH + timedelta(milliseconds=ts_ms)
    return moment.astimezone(ZoneInfo(name)).date().toordinal() - EPOCH.date().toordinal()


@pytest.mark.parametrize("name", ZONES)
def test_dates_are_those_of_zoneinfo(name: str) -> None:
    generator = random.Random(name)
    moments = [generator.randrange(FIRST_MS, LAST_MS) for _ in range(3_000)]
    changes = zone_offsets(name).since_ms
    moments += [int(change) + d for change in changes if change > FIRST_MS for d in (-1, 0, 1)]
    found = zone_offsets(name).days(np.array(moments))
    assert found.tolist() == [local_day(name, ts_ms) for ts_ms in moments]


@pytest.mark.parametrize("name", ZONES)
def test_a_date_ends_with_its_last_millisecond(name: str) -> None:
    zone = zone_offsets(name)
    changes = [ts_ms for ts_ms in zone.since_ms.tolist() if ts_ms > FIRST_MS]
    around = [ts_ms + d * DAY_MS for ts_ms in [*changes, FIRST_MS + DAY_MS, LAST_MS] for d in (-1, 0, 1)]
    days = sorted({local_day(name, ts_ms) for ts_ms in around})
    for day, end_ms in zip(days, zone.day_ends(np.array(days)).tolist(), strict=True):
        assert local_day(name, end_ms - 1) <= day
        assert all(local_day(name, end_ms + d) > day for d in (0, 1, 1_800_000, 3_600_000, 7_200_000))


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        zone_offsets("Mars/Olympus")

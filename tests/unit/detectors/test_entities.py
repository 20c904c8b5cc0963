"""Entities of events: equal keys exactly for equal entities, by a plain second reading of each."""

from __future__ import annotations

import ipaddress
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import h3
import numpy as np
import pytest

from detectors.entities import entity_keys
from detectors.phone_segments import segment_of, segments_of
from schemas.decode import decode_json
from schemas.events import EventBatch
from schemas.keys import KeyRing

RING = KeyRing(b"k" * 32)
PLAIN = {"event_id": "e", "event": "click", "ts": 1_760_000_000_000, "user_id": "u"}


def batch_of(rows: Sequence[Mapping[str, object]], attributes: tuple[str, ...] = ()) -> EventBatch:
    raw = [json.dumps({**PLAIN, **row}).encode() for row in rows]
    return decode_json(
        raw,
        topic="clicks",
        partition=0,
        start=0,
        next=len(raw),
        offsets=np.arange(len(raw)),
        attributes=attributes,
    )


def assert_keys_stand_for(keys: list[int], values: list[object]) -> None:
    """0 for None, and one key for each value."""
    known: dict[object, set[int]] = defaultdict(set)
    for key, value in zip(keys, values, strict=True):
        assert (key == 0) == (value is None)
        known[value].add(key)
    assert all(len(found) == 1 for found in known.values())
    assert len(set(keys)) == len(known)


@pytest.mark.parametrize(
    "kind", ["event_id", "user_id", "device_id", "inviter_id", "channel", "phone", "variant"]
)
def test_string_fields_are_known_by_their_text(kind: str) -> None:
    values = ["a", "b", "a", "微", "a" * 60]
    batch = batch_of([{kind: value} for value in values])
    keys = entity_keys(batch, kind, RING).tolist()
    assert_keys_stand_for(keys, list(values))
    assert keys[0] == RING.key_of(kind, "a")


def test_absent_and_rejected_are_no_entity() -> None:
    sound: dict[str, object] = {
        "device_id": "d",
        "ip": "1.2.3.4",
        "phone": "13800138000",
        "lat": 1,
        "lon": 2,
        "a": 1,
    }
    batch = batch_of([sound, {}, sound | {"ts": 5}], attributes=("a",))
    assert batch.rejected.tolist()[:2] == [0, 0]
    assert batch.rejected[2] != 0
    for kind in ("device_id", "ip", "phone_segment", "ip_prefix_24", "gps_cell", "attrs.a"):
        keys = entity_keys(batch, kind, RING).tolist()
        assert keys[0] != 0
        assert keys[1:] == [0, 0]
    assert entity_keys(batch, "user_id", RING).tolist()[2] == 0


def test_attributes_are_known_by_text_or_number() -> None:
    values = ["5", 5, 5.0, 5.5, True, 1, False, -0.0, None, "", 9_007_199_254_740_993, 9_007_199_254_740_992]
    same = ["5", 5.0, 5.0, 5.5, 1.0, 1.0, 0.0, 0.0, None, None, "9007199254740993", "9007199254740992"]
    batch = batch_of([{"x": value} for value in values], attributes=("y", "x"))
    assert_keys_stand_for(entity_keys(batch, "attrs.x", RING).tolist(), list(same))


def test_ip_prefixes_are_of_one_version_each() -> None:
    texts = [
        "10.1.2.3",
        "10.1.2.200",
        "10.1.3.3",
        "::ffff:10.1.2.9",
        "2001:db8:1:2::3",
        "2001:db8:1:ffff::",
        "2001:db8:2::",
    ]
    batch = batch_of([{"ip": text} for text in texts] + [{}])
    expected: dict[int, list[object]] = {4: [], 6: []}
    for text in [*texts, None]:
        address = ipaddress.ip_address(text) if text else None
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        for version, bits in ((4, 24), (6, 48)):
            own = address is not None and address.version == version
            expected[version].append(ipaddress.ip_network(f"{address}/{bits}", strict=False) if own else None)
    assert_keys_stand_for(entity_keys(batch, "ip_prefix_24", RING).tolist(), expected[4])
    assert_keys_stand_for(entity_keys(batch, "ip_prefix_48", RING).tolist(), expected[6])


def test_gps_cells_are_h3_of_resolution_8() -> None:
    places: list[tuple[float, float] | None] = [
        (31.2304, 121.4737),
        (31.2305, 121.4738),
        (31.3, 121.5),
        (-33.9, 18.4),
        (90, 180),
        (0.0, -0.0),
        None,
    ]
    batch = batch_of([{"lat": place[0], "lon": place[1]} if place else {} for place in places])
    cells = [h3.latlng_to_cell(*place, 8) if place else None for place in places]
    assert len({*cells}) == 6
    assert_keys_stand_for(entity_keys(batch, "gps_cell", RING).tolist(), list(cells))


PHONES = {
    "13800138000": 1380013,
    "+8613800138000": 1380013,
    "+86 138-0013-8000": 1380013,
    "0086 138 0013 8000": 1380013,
    "86(138)00138000": 1380013,
    "(138) 0013 8000": 1380013,
    "010-8888 8888": 1088888,
    "+86 10 8888 8888": 1088888,
    "0755 8888 8888": 7558888,
    "4001234567": 4001234,
    "+44 20 7946 0958": 2079460,
    "0044 20 7946 0958": 2079460,
    "+1 (415) 555-0100": 4155550,
    "+39 06 698 1234": 669812,  # national numbers of Italy keep their 0: 0669812
    "138****8000": None,
    "138001": None,
    "12345": None,
    "not a phone": None,
    "+999 12345678": None,
    "13800138000 ext. 5": None,
    "1" * 60_000: None,
}


def test_phone_segments_are_the_first_seven_digits_of_the_national_number() -> None:
    batch = batch_of([{"phone": text} for text in PHONES])
    column = 5
    segments = segments_of(batch.buffer, batch.starts[column], batch.lengths[column]).tolist()
    assert dict(zip(PHONES, segments, strict=True)) == {
        text: -1 if segment is None else segment for text, segment in PHONES.items()
    }
    assert_keys_stand_for(entity_keys(batch, "phone_segment", RING).tolist(), list(PHONES.values()))


def test_the_compiled_reading_of_phones_is_that_of_the_plain_one() -> None:
    rng = np.random.default_rng(5)
    heads = ["", "+", "86", "+86", "0086", "+0086", "00 86 ", "8"]
    texts = []
    for _ in range(3000):
        digits = "".join(rng.choice(list("0123456789"), rng.integers(9, 13)))
        if rng.random() < 0.8:
            digits = "1" + digits[1:]
        at = int(rng.integers(0, len(digits)))
        mark = str(rng.choice(["", "", "-", " ", "(", ".", "*"]))
        texts.append(str(rng.choice(heads)) + digits[:at] + mark + digits[at:])
    batch = batch_of([{"phone": text} for text in texts])
    segments = segments_of(batch.buffer, batch.starts[5], batch.lengths[5]).tolist()
    assert segments == [segment_of(text) for text in texts]


def test_an_unknown_kind_is_refused() -> None:
    batch = batch_of([{}])
    for kind in ("device", "attrs.x"):
        with pytest.raises(ValueError, match="not in"):
            entity_keys(batch, kind, RING)

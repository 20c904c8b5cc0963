"""Records to columns: what is accepted, what is rejected and why, and which records are read slowly."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

import schemas.decode
from schemas.decode import decode_json
from schemas.events import EARLIEST_TS_MS, EventBatch, RejectCode

TS = 1_760_000_000_000
PLAIN = {"event_id": "e1", "event": "click", "ts": TS, "user_id": "u1"}


def decode(*values: bytes | None, **options: Any) -> EventBatch:
    return decode_json(
        values,
        topic="clicks",
        partition=3,
        start=10,
        next=10 + len(values),
        offsets=np.arange(10, 10 + len(values)),
        **options,
    )


def record(**members: object) -> bytes:
    return json.dumps(PLAIN | members, ensure_ascii=False).encode()


def test_every_field_lands_in_its_column() -> None:
    batch = decode(
        record(
            device_id="d1",
            ip="10.0.0.1",
            phone="13800138000",
            channel="微信",
            campaign="spring",
            page="/p",
            platform="ios",
            variant="b",
            inviter_id="u0",
            session_id="s",
            dwell_ms=2055,
            amount_minor=1,
            cost_minor=0,
            lat=31.2304,
            lon=-121.4737,
            label=1,
            browser="edge",
            age=33,
            vip=True,
        ),
        attributes=("browser", "age", "vip", "other"),
    )
    assert batch.rejections == ()
    texts = {
        name: batch.text(name, 0) for name in ("event_id", "ip", "channel", "session_id", "attrs.browser")
    }
    assert texts == {
        "event_id": "e1",
        "ip": "10.0.0.1",
        "channel": "微信",
        "session_id": "s",
        "attrs.browser": "edge",
    }
    assert batch.integers[:, 0].tolist() == [TS, 2055, 1, 0]
    assert batch.floats[:, 0].tolist() == [31.2304, -121.4737]
    assert batch.labels.tolist() == [1]
    np.testing.assert_array_equal(batch.attribute_numbers[:, 0], [np.nan, 33.0, 1.0, np.nan])
    assert (batch.topic, batch.partition, batch.start, batch.next, len(batch)) == ("clicks", 3, 10, 11, 1)


@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_the_empty_string_are_absent(nothing: str | None) -> None:
    batch = decode(
        record(
            ip=nothing, phone=nothing, dwell_ms=nothing, lat=nothing, lon=nothing, label=nothing, age=nothing
        ),
        attributes=("age",),
    )
    assert batch.rejections == ()
    assert (batch.text("ip", 0), batch.text("attrs.age", 0)) == (None, None)
    assert batch.integers[:, 0].tolist() == [TS, -1, -1, -1]
    assert np.isnan(batch.floats).all()
    assert np.isnan(batch.attribute_numbers).all()
    assert batch.labels.tolist() == [-1]


DEEP = b'{"a":' + b"[" * 1023 + b"]" * 1023 + b"}"

REJECTED = [
    (b"", RejectCode.NOT_JSON, "$"),
    (None, RejectCode.NOT_JSON, "$"),
    (record()[:-1], RejectCode.NOT_JSON, "$"),
    (record() + b"}", RejectCode.NOT_JSON, "$"),
    (record() + b"\0", RejectCode.NOT_JSON, "$"),
    (record()[:-1] + b",}", RejectCode.NOT_JSON, "$"),
    (record()[:-1] + b',"page":"a\\', RejectCode.NOT_JSON, "$"),
    (record().replace(b'"click"', b'"cl\nick"'), RejectCode.NOT_JSON, "$"),
    (record().replace(b'"click"', b'"cl\\x"'), RejectCode.NOT_JSON, "$"),
    (record().replace(b'"click"', b'"\\ud800"'), RejectCode.NOT_JSON, "$"),
    (record(lat=1, lon=float("nan")), RejectCode.NOT_JSON, "$"),
    (record(age=float("inf")), RejectCode.NOT_JSON, "$"),
    (record()[:-1] + b',"age":01}', RejectCode.NOT_JSON, "$"),
    (record()[:-1] + b',"age":1e999}', RejectCode.OUT_OF_RANGE, "$"),
    (b"\xef\xbb\xbf" + record(), RejectCode.NOT_JSON, "$"),
    (record().replace(b"click", b"cl\xffck"), RejectCode.NOT_UTF8, "$"),
    (record()[:-1] + b',"\xff":1}', RejectCode.NOT_UTF8, "$"),
    (b"[" + record() + b"]", RejectCode.NOT_AN_OBJECT, "$"),
    (b"null", RejectCode.NOT_AN_OBJECT, "$"),
    (b'"text"', RejectCode.NOT_AN_OBJECT, "$"),
    (DEEP, RejectCode.TOO_DEEP, "$"),
    (b"[" * 5000, RejectCode.TOO_DEEP, "$"),
    (b'{"a":"' + b"x" * 65536 + b'"}', RejectCode.TOO_LARGE, "$"),
    (record(event_id=None), RejectCode.MISSING, "$.event_id"),
    (record(event=""), RejectCode.MISSING, "$.event"),
    (record(ts=""), RejectCode.MISSING, "$.ts"),
    (b"{}", RejectCode.MISSING, "$.event_id"),
    (record(event_id=7), RejectCode.WRONG_TYPE, "$.event_id"),
    (record(phone=13800138000), RejectCode.WRONG_TYPE, "$.phone"),
    (record(page=True), RejectCode.WRONG_TYPE, "$.page"),
    (record(page=["/p"]), RejectCode.WRONG_TYPE, "$.page"),
    (record(ts=str(TS)), RejectCode.WRONG_TYPE, "$.ts"),
    (record(ts=float(TS)), RejectCode.WRONG_TYPE, "$.ts"),
    (record(dwell_ms=1.0), RejectCode.WRONG_TYPE, "$.dwell_ms"),
    (record(dwell_ms=True), RejectCode.WRONG_TYPE, "$.dwell_ms"),
    (record()[:-1] + b',"dwell_ms":1e3}', RejectCode.WRONG_TYPE, "$.dwell_ms"),
    (record(dwell_ms=-1), RejectCode.OUT_OF_RANGE, "$.dwell_ms"),
    (record(amount_minor=1 << 53), RejectCode.OUT_OF_RANGE, "$.amount_minor"),
    (record(cost_minor=1 << 64), RejectCode.OUT_OF_RANGE, "$.cost_minor"),
    (record(lat="31", lon=1), RejectCode.WRONG_TYPE, "$.lat"),
    (record(lat=True, lon=1), RejectCode.WRONG_TYPE, "$.lat"),
    (record(lat=90.0001, lon=1), RejectCode.OUT_OF_RANGE, "$.lat"),
    (record(lat=1, lon=-180.5), RejectCode.OUT_OF_RANGE, "$.lon"),
    (record(lat=1), RejectCode.HALF_COORDINATE, "$.lon"),
    (record(lon=1, lat=None), RejectCode.HALF_COORDINATE, "$.lat"),
    (record(label=2), RejectCode.OUT_OF_RANGE, "$.label"),
    (record(label=True), RejectCode.WRONG_TYPE, "$.label"),
    (record(label=1.0), RejectCode.WRONG_TYPE, "$.label"),
    (record(event_id="x" * 65), RejectCode.TOO_LONG, "$.event_id"),
    (record(event="é" * 65), RejectCode.TOO_LONG, "$.event"),
    (record(user_id="x" * 129), RejectCode.TOO_LONG, "$.user_id"),
    (record(ip="1.2.3.256"), RejectCode.BAD_IP, "$.ip"),
    (record(ip="01.2.3.4"), RejectCode.BAD_IP, "$.ip"),
    (record(ip="fe80::1%eth0"), RejectCode.BAD_IP, "$.ip"),
    (record(ip="::1::"), RejectCode.BAD_IP, "$.ip"),
    (record(ip=" 1.2.3.4"), RejectCode.BAD_IP, "$.ip"),
    (record(ts=TS // 1000), RejectCode.TOO_OLD, "$.ts"),
    (record(ts=0), RejectCode.TOO_OLD, "$.ts"),
    (record(tags=[1]), RejectCode.WRONG_TYPE, "$.tags"),
    (record(**{"138 0013": {}}), RejectCode.WRONG_TYPE, "$.*"),
    (record(**{f"a{i}": i for i in range(33)}), RejectCode.TOO_MANY_ATTRIBUTES, "$"),
    (record(**{f"a{i}": i for i in range(700)}), RejectCode.TOO_MANY_ATTRIBUTES, "$"),
]


@pytest.mark.parametrize(("value", "code", "path"), REJECTED)
def test_a_bad_record_is_rejected_with_its_reason_and_its_neighbours_are_not(
    value: bytes | None, code: RejectCode, path: str
) -> None:
    batch = decode(record(event_id="before"), value, record(event_id="after", page="p"), attributes=("age",))
    assert batch.rejected.tolist() == [0, code, 0]
    (rejection,) = batch.rejections
    assert (rejection.row, rejection.code, rejection.path) == (1, code, path)
    original = value or b""
    assert rejection.raw == original[:65536]
    assert (rejection.length, rejection.sha256) == (len(original), hashlib.sha256(original).digest())
    assert [batch.text("event_id", row) for row in range(3)] == ["before", None, "after"]
    assert batch.integers[:, 1].tolist() == [-1] * 4
    assert batch.text("page", 2) == "p"


def test_a_rejection_never_repeats_what_was_found() -> None:
    phone = "13800138000"
    for value in (record(event_id=[phone]), record(ip=phone), record(lat=phone), record(**{phone: {}})):
        (rejection,) = decode(value).rejections
        assert phone not in rejection.expected + rejection.path


@pytest.mark.parametrize(
    "value",
    [
        record(event_id="x" * 64, event="é" * 64, user_id="中" * 128),
        record(**{f"a{i}": i for i in range(32)}, b=None, c="", dwell_ms=0),
        record(text="x" * 60_000),
        record(ts=EARLIEST_TS_MS, dwell_ms=(1 << 53) - 1),
        record(lat=-90, lon=180.0),
        b" \t\r\n" + record() + b"\n",
    ],
)
def test_what_is_just_within_bounds_is_an_event(value: bytes) -> None:
    assert decode(value).rejections == ()


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("192.168.0.1", "192.168.0.1"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::FFFF:0A01:0203", "10.1.2.3"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:db8::0001", "2001:db8::1"),
        ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ("1::3:4:5:6:7:8", "1:0:3:4:5:6:7:8"),
        ("::", "::"),
        ("::1.2.3.4", "::102:304"),
    ],
)
def test_addresses_become_canonical(written: str, canonical: str) -> None:
    batch = decode(record(ip=written), record(ip=canonical))
    assert [batch.text("ip", row) for row in range(2)] == [canonical, canonical]


def test_the_future_is_five_minutes_after_the_record() -> None:
    values = [record(ts=TS), record(ts=TS + 300_000), record(ts=TS + 300_001), record(ts=TS + 7 * 86_400_000)]
    times = np.array([TS, TS, TS, -1], np.int64)
    batch = decode(*values, record_ts_ms=times)
    assert batch.rejected.tolist() == [0, 0, RejectCode.IN_THE_FUTURE, 0]
    assert decode(*values).rejections == ()


def test_the_last_value_of_a_doubled_name_counts() -> None:
    twice = b'{"event_id":"a","event_id":"b","ts":1,"ts":1760000000000,"page":[1],"page":"p",'
    twice += b'"event":"click","user_id":"u",'
    batch = decode(twice + b'"phone":"1","phone":null,"x":"t","x":5,"y":5,"y":"t"}', attributes=("x", "y"))
    assert batch.rejections == ()
    assert [batch.text(name, 0) for name in ("event_id", "page", "phone", "attrs.x", "attrs.y")] == [
        "b",
        "p",
        None,
        None,
        "t",
    ]
    np.testing.assert_array_equal(batch.attribute_numbers[:, 0], [5.0, np.nan])


def test_escapes_are_resolved_and_may_hold_control_characters() -> None:
    value = record()[:-1] + rb',"page":"a\u0000\n\"\\\/\u5fae\ud83d\ude00"}'
    assert decode(value).text("page", 0) == 'a\0\n"\\/微😀'


def test_integers_that_a_double_cannot_tell_apart_are_text_too() -> None:
    ids = [
        9_007_199_254_740_993,
        -9_223_372_036_854_775_808,
        18_446_744_073_709_551_615,
        9_007_199_254_740_991,
    ]
    batch = decode(*(record(order=number) for number in ids), attributes=("order",))
    assert [batch.text("attrs.order", row) for row in range(4)] == [*map(str, ids[:3]), None]
    assert batch.attribute_numbers[0].tolist() == [float(number) for number in ids]


def test_a_field_map_renames_and_reports_their_names() -> None:
    fields = {"user_id": "uid", "channel": "a_very_long_name_of_a_channel"}
    mine = {"event_id": "e", "event": "click", "ts": TS, "uid": "u9", "a_very_long_name_of_a_channel": "c"}
    near = mine | {"a_very_long_nAme_of_a_channel": "other"}
    batch = decode(
        json.dumps(mine | {"user_id": "attribute"}).encode(),
        json.dumps(near).encode(),
        json.dumps(mine | {"uid": 7}).encode(),
        fields=fields,
        attributes=("user_id",),
    )
    assert [batch.text("user_id", row) for row in range(3)] == ["u9", "u9", None]
    assert [batch.text("channel", row) for row in range(3)] == ["c", "c", None]
    assert batch.text("attrs.user_id", 0) == "attribute"
    assert batch.rejections[0].path == "$.uid"


def test_strict_names_reject_others() -> None:
    batch = decode(
        record(), record(event="clic"), record(event="点击"), strict_names=frozenset({"click", "点击"})
    )
    assert batch.rejected.tolist() == [0, RejectCode.UNKNOWN_EVENT, 0]


def test_no_records_are_an_empty_batch() -> None:
    batch = decode()
    assert len(batch) == 0
    assert batch.starts.shape == (13, 0)


def test_plain_events_never_need_the_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plain event was read slowly")

    monkeypatch.setattr(schemas.decode, "judge_record", refuse)
    values = [
        record(),
        json.dumps(PLAIN | {"page": "微博\n"}, separators=(",", ":")).encode(),
        record(channel="微信😀"),
        record(lat=31.23041612345678, lon=121.47370112345678, ip="2408:8207:2466:31c0:a1:2:33:4"),
        record(
            lat=1e-7, lon=-0.0, ip="2001:DB8::1", vip=False, note=None, weight=1.5e3, id=1541815603606036480
        ),
        record(dwell_ms=0, label=0, a=1, b="x", c=-5, d=2.25),
    ]
    batch = decode(*values, attributes=("weight",), record_ts_ms=np.full(len(values), TS))
    assert batch.rejections == ()
    assert batch.attribute_numbers[0, 4] == 1500.0

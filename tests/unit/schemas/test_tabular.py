"""Rows of tables to columns: the same as JSON records of one meaning, whatever Arrow types carry them."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.decode import decode_json
from schemas.events import STRING_FIELDS, EventBatch, RejectCode
from schemas.tabular import NO_TOPIC, TableBatch, decode_table

TS = 1_760_000_000_000
ATTRIBUTES = ("age", "browser", "vip")


def options(rows: int) -> dict[str, Any]:
    return {
        "topic": "clicks",
        "partition": 0,
        "start": 0,
        "next": rows,
        "offsets": np.arange(rows),
        "attributes": ATTRIBUTES,
    }


def decode(table: pa.Table, **more: Any) -> TableBatch:
    return decode_table(table, **(options(table.num_rows) | more))


def events(**columns: Any) -> pa.Table:
    """A table of plain events with these columns set."""
    rows = len(next(iter(columns.values())))
    plain = {
        "event_id": pa.array([f"e{row}" for row in range(rows)]),
        "event": pa.array(["click"] * rows),
        "ts": pa.array([TS] * rows),
        "user_id": pa.array(["u1"] * rows),
    }
    return pa.table(plain | columns)


def content(batch: EventBatch, row: int) -> list[object]:
    texts = [batch.text(name, row) for name in (*STRING_FIELDS, *(f"attrs.{name}" for name in ATTRIBUTES))]
    numbers = [batch.floats[:, row], batch.attribute_numbers[:, row]]
    return [
        int(batch.rejected[row]),
        *texts,
        *batch.integers[:, row].tolist(),
        *(repr(value) for part in numbers for value in part.tolist()),
        int(batch.labels[row]),
    ]


ROW = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.none() | st.text(max_size=70),
        "event": st.none() | st.sampled_from(["click", "redeem", "", "微"]),
        "ts": st.none() | st.integers(0, 1 << 60) | st.just(TS),
        "user_id": st.none() | st.text(max_size=10),
        "ip": st.none()
        | st.ip_addresses().map(str)
        | st.sampled_from(["::ffff:1.2.3.4", "1.2.3", "1::3:4:5:6:7:8"]),
        "channel": st.none() | st.text(max_size=5),
        "dwell_ms": st.none() | st.integers(-5, 1 << 54),
        "lat": st.none() | st.floats(-91, 91),
        "lon": st.none() | st.floats(-181, 181),
        "label": st.none() | st.integers(0, 2),
        "age": st.none() | st.floats(-1e9, 1e9),
        "browser": st.none() | st.text(max_size=5),
        "vip": st.none() | st.booleans(),
        "unused": st.none() | st.integers(-(1 << 60), 1 << 60),
    },
)
TYPES = {
    "ts": pa.int64(),
    "dwell_ms": pa.int64(),
    "lat": pa.float64(),
    "lon": pa.float64(),
    "label": pa.int8(),
    "age": pa.float64(),
    "vip": pa.bool_(),
    "unused": pa.int64(),
}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(ROW, min_size=1, max_size=8), st.sampled_from([pa.string(), pa.large_string(), pa.string_view()])
)
def test_a_table_means_what_its_rows_mean_as_json(rows: list[dict[str, object]], text: pa.DataType) -> None:
    sound = {"event_id": "e", "event": "click", "ts": TS, "user_id": "u"}
    rows = [sound | row if index % 2 else row for index, row in enumerate(rows)]
    names = sorted({name for row in rows for name in row})
    columns = {name: pa.array([row.get(name) for row in rows], TYPES.get(name, text)) for name in names}
    # Whole attributes are floats in the table, so they have to be floats in the record.
    raw = [
        json.dumps({name: value for name, value in row.items() if value is not None}).encode() for row in rows
    ]
    by_record = decode_json(raw, **options(len(rows)))
    table = pa.table(columns) if names else pa.table({"none": pa.nulls(len(rows))})
    by_table = decode(table).batch
    for row in range(len(rows)):
        assert content(by_table, row) == content(by_record, row)
    faults = [[(r.row, r.code, r.path) for r in batch.rejections] for batch in (by_table, by_record)]
    assert faults[0] == faults[1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit_are_milliseconds(unit: str) -> None:
    times = [dt.datetime(2025, 1, 2, 3, 4, 5, tzinfo=dt.UTC), dt.datetime(1999, 12, 31, tzinfo=dt.UTC), None]
    for zone in (None, "UTC"):
        column = pa.array(times, pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone))
        batch = decode(events(ts=column)).batch
        assert batch.integers[0].tolist() == [1_735_787_045_000, -1, -1]
        assert batch.rejected.tolist() == [0, RejectCode.TOO_OLD, RejectCode.MISSING]


def test_dates_decimals_and_small_types_are_read() -> None:
    table = events(
        ts=pa.array([dt.date(2025, 1, 2)], pa.date32()),
        dwell_ms=pa.array([7], pa.uint16()),
        amount_minor=pa.array([Decimal("12.00")], pa.decimal128(10, 2)),
        lat=pa.array([31.5], pa.float32()),
        lon=pa.array([121], pa.int32()),
        channel=pa.array(["wx"]).dictionary_encode(),
        age=pa.array([1_000_000], pa.timestamp("us")),
        browser=pa.array([b"edge"], pa.binary()),
        vip=pa.array([True]),
    )
    batch = decode(table).batch
    assert batch.rejections == ()
    assert batch.integers[:, 0].tolist() == [1_735_776_000_000, 7, 1200 // 100, -1]
    assert batch.floats[:, 0].tolist() == [31.5, 121.0]
    assert (batch.text("channel", 0), batch.text("attrs.browser", 0)) == ("wx", "edge")
    np.testing.assert_array_equal(batch.attribute_numbers[:, 0], [1000.0, np.nan, 1.0])


def test_whole_floats_are_integers_and_nan_is_absent() -> None:
    table = events(
        ts=pa.array([float(TS)] * 5),
        dwell_ms=pa.array([3.0, float("nan"), None, 3.5, 4.0]),
        label=pa.array([1.0, float("nan"), None, 0.0, 0.0]),
        age=pa.array([float("nan"), 1.5, None, 2.0, float("inf")]),
    )
    batch = decode(table).batch
    assert batch.integers[1].tolist() == [3, -1, -1, -1, -1]
    assert batch.rejected.tolist() == [0, 0, 0, RejectCode.WRONG_TYPE, RejectCode.OUT_OF_RANGE]
    assert batch.labels.tolist() == [1, -1, -1, -1, -1]
    np.testing.assert_array_equal(batch.attribute_numbers[0], [np.nan, 1.5, np.nan, np.nan, np.nan])


def test_wrong_types_reject_only_where_there_is_something() -> None:
    table = events(
        ts=pa.array(["1760000000000", None, str(TS)]),
        event_id=pa.array(["a", "b", "c"]),
    )
    assert [r.code for r in decode(table).batch.rejections] == [
        RejectCode.WRONG_TYPE,
        RejectCode.MISSING,
        RejectCode.WRONG_TYPE,
    ]
    nested = events(tags=pa.array([[1], None, []]), user_id=pa.array([1, 2, None]))
    assert [(r.code, r.path) for r in decode(nested).batch.rejections] == [
        (RejectCode.WRONG_TYPE, "$.user_id"),
        (RejectCode.WRONG_TYPE, "$.user_id"),
        (RejectCode.MISSING, "$.user_id"),
    ]
    only_nested = events(tags=pa.array([[1], None, []]), at=pa.array([None, dt.time(1, 2), None]))
    assert decode(only_nested).batch.rejected.tolist() == [RejectCode.WRONG_TYPE] * 3


def test_a_rejected_row_keeps_itself_as_json() -> None:
    table = events(lat=pa.array([31.5, 31.5]), lon=pa.array([None, 1.0]), label=pa.array([1.0, 0.0]))
    (rejection,) = decode(table).batch.rejections
    assert json.loads(rejection.raw) == {
        "event_id": "e0",
        "event": "click",
        "ts": TS,
        "user_id": "u1",
        "lat": 31.5,
        "label": 1,
    }
    assert (rejection.code, rejection.path) == (RejectCode.HALF_COORDINATE, "$.lon")


def test_bytes_that_are_no_text_reject_their_row_alone() -> None:
    for name in ("page", "unused", "browser"):
        broken = pa.array([b"a", b"\xff\xfe", "微".encode()], pa.binary())
        as_text = pa.StringArray.from_buffers(3, broken.buffers()[1], broken.buffers()[2])
        batch = decode(events(**{name: as_text})).batch
        assert batch.rejected.tolist() == [0, RejectCode.NOT_UTF8, 0]


def test_a_cell_of_ten_megabytes_rejects_its_row_alone() -> None:
    for name in ("page", "unused", "event_id"):
        batch = decode(events(**{name: pa.array(["a", "x" * 10_000_000, "b"])})).batch
        assert batch.rejected.tolist() == [0, RejectCode.TOO_LARGE, 0]
        (rejection,) = batch.rejections
        assert len(rejection.raw) == 65536
        assert rejection.length > 10_000_000
        assert batch.buffer.nbytes < 1000
    many = {f"c{number}": pa.array(["x" * 20_000]) for number in range(4)}
    assert decode(events(**many)).batch.rejected.tolist() == [RejectCode.TOO_LARGE]


def test_more_than_32_attributes_are_counted_by_row() -> None:
    columns = {f"c{number}": pa.array([1, None if number else 1]) for number in range(33)}
    assert decode(events(**columns)).batch.rejected.tolist() == [RejectCode.TOO_MANY_ATTRIBUTES, 0]


def test_slices_and_chunks_do_not_matter() -> None:
    rows = 50
    names = [f"u{row}" if row % 7 else None for row in range(rows)]
    ages = [float(row) if row % 5 else None for row in range(rows)]
    vips = [row % 3 == 0 if row % 4 else None for row in range(rows)]
    whole = events(channel=pa.array(names), age=pa.array(ages), vip=pa.array(vips))
    expected = [content(decode(whole).batch, row) for row in range(rows)]
    chunked = pa.concat_tables([whole.slice(0, 13), whole.slice(13, 1), whole.slice(14)])
    assert [content(decode(chunked).batch, row) for row in range(rows)] == expected
    sliced = [decode(whole.slice(start, 9)).batch for start in range(0, rows, 9)]
    got = [content(batch, row) for batch in sliced for row in range(len(batch))]
    for row, line in enumerate(got):
        assert line == expected[row]


def test_the_topic_column_routes_and_is_no_attribute() -> None:
    routed = decode(events(topic=pa.array(["clicks", "participations", None, "orders"])))
    assert routed.topics.tolist() == [0, 1, NO_TOPIC, NO_TOPIC]
    assert [(r.row, r.code, r.path) for r in routed.batch.rejections] == [
        (3, RejectCode.OUT_OF_RANGE, "$.topic")
    ]
    assert decode(events(page=pa.array(["p"]))).topics.tolist() == [NO_TOPIC]


def test_csv_numbers_are_strict_and_attributes_are_both() -> None:
    text = (
        "event_id,event,ts,user_id,dwell_ms,lat,lon,label,age,ip\n"
        "1,click,1760000000000,007,5,31.2304,121.5,1,33,::FFFF:1.2.3.4\n"
        "2,click,1760000000000.0,u,,,,,007,1::3:4:5:6:7:8\n"
        "3,click,1760000000000,u,5 ,,,,,\n"
        "4,click,1760000000000,u,+5,,,,,\n"
        "5,click,1760000000000,u,,nan,1,,,\n"
        "6,click,1760000000000,u,,,,2,,\n"
        "7,click,1760000000000,u,,,,1.0,12345678901234567890.5,1::3:4:5:6:7:8\n"
    )
    names = text.split("\n", 1)[0].split(",")
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    table = pyarrow.csv.read_csv(io.BytesIO(text.encode()), convert_options=convert)
    batch = decode(table, csv=True).batch
    wrong = RejectCode.WRONG_TYPE
    assert batch.rejected.tolist() == [0, 0, wrong, wrong, wrong, RejectCode.OUT_OF_RANGE, 0]
    assert [r.path for r in batch.rejections] == ["$.dwell_ms", "$.dwell_ms", "$.lat", "$.label"]
    assert batch.text("user_id", 0) == "007"
    assert batch.integers[:2, 0].tolist() == [TS, 5]
    assert batch.integers[0, 1] == TS
    assert batch.floats[:, 0].tolist() == [31.2304, 121.5]
    assert batch.labels.tolist() == [1, -1, -1, -1, -1, -1, 1]
    assert [batch.text("attrs.age", row) for row in (0, 1, 6)] == ["33", "007", "12345678901234567890.5"]
    np.testing.assert_array_equal(
        batch.attribute_numbers[0, [0, 1, 6]], [33.0, np.nan, 12345678901234567890.5]
    )
    assert [batch.text("ip", row) for row in (0, 1)] == ["1.2.3.4", "1:0:3:4:5:6:7:8"]


def test_wide_integers_keep_their_digits() -> None:
    ids = [9_007_199_254_740_993, None, 5, -9_007_199_254_740_993]
    batch = decode(events(age=pa.array(ids))).batch
    assert [batch.text("attrs.age", row) for row in range(4)] == [str(ids[0]), None, None, str(ids[3])]
    unsigned = decode(events(age=pa.array([(1 << 64) - 1], pa.uint64()))).batch
    assert unsigned.text("attrs.age", 0) == str((1 << 64) - 1)


def test_a_field_map_and_strict_names_hold_for_tables() -> None:
    table = events(uid=pa.array(["a", "b"]), event=pa.array(["click", "clik"])).drop(["user_id"])
    batch = decode(table, fields={"user_id": "uid"}, strict_names=frozenset({"click"})).batch
    assert batch.text("user_id", 0) == "a"
    assert batch.rejected.tolist() == [0, RejectCode.UNKNOWN_EVENT]


def test_an_empty_table_is_an_empty_batch() -> None:
    assert len(decode(events(page=pa.array(["p"])).slice(0, 0)).batch) == 0


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="65537 rows"):
        decode(pa.table({"event": pa.nulls(65537)}))

"""The fast reader against the authority, and batches against the same records cut otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.decode import decode_json
from schemas.events import FLOAT_FIELDS, INTEGER_FIELDS, MAX_INTEGER, STRING_FIELDS, EventBatch
from schemas.json_authority import Fault, judge_record
from schemas.layout import layout_of

ATTRIBUTES = ("age", "browser", "a_name_of_more_than_16", "vip")
FIELDS = {"channel": "ch"}
NAMES = frozenset({"click", "redeem", "微"})
TS = 1_760_000_000_000

texts = st.text(max_size=12) | st.sampled_from(["", "u1", "微博", 'a"b\\c', "\0", "x" * 70, "😀" * 33])
numbers = (
    st.integers(-(1 << 65), 1 << 65)
    | st.integers(0, 99)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.floats(-200, 200)
    | st.sampled_from([TS, TS // 1000, MAX_INTEGER, MAX_INTEGER - 1, -0.0, 1e22, 1e23, 5e-324])
)
values = texts | numbers | st.booleans() | st.none() | st.sampled_from([[], {}, [1], {"a": "b"}])
addresses = (
    st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda address: address.exploded.upper())
    | st.sampled_from(["::ffff:1.2.3.4", "1.2.3.04", "::1%0", "1::3:4:5:6:7:8", "1.2.3", ":::"])
)
names = st.sampled_from(
    [
        *STRING_FIELDS,
        *INTEGER_FIELDS,
        *FLOAT_FIELDS,
        "label",
        *ATTRIBUTES,
        "a_name_of_more_thxn_16",
        "ch",
        "名",
    ]
) | st.text(max_size=20)
sound = st.fixed_dictionaries(
    {
        "event_id": st.text(min_size=1, max_size=64),
        "event": st.sampled_from(["click", "redeem", "微", "other"]),
        "ts": st.integers(TS, TS + 600_000),
        "user_id": st.text(min_size=1, max_size=20),
    },
    optional={
        "ip": addresses,
        "dwell_ms": st.integers(0, 10**6),
        "lat": st.floats(-91, 91),
        "lon": st.floats(-181, 181),
        "label": st.sampled_from([0, 1, None]),
        "age": numbers,
        "browser": texts,
        "ch": texts,
    },
)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """An event, mostly sound, written in one of several ways, and sometimes damaged."""
    document = draw(sound)
    for name, value in draw(st.lists(st.tuples(names, values), max_size=3)):
        document[name] = value
    members = list(document.items())
    if draw(st.booleans()):
        members = draw(st.permutations(members))
    if draw(st.integers(0, 3)) == 0:
        members += draw(st.lists(st.tuples(names, values), max_size=3))
    ascii_only, colon = draw(st.booleans()), draw(st.sampled_from([":", ": ", " :\t"]))
    parts = [
        json.dumps(name, ensure_ascii=ascii_only) + colon + json.dumps(value, ensure_ascii=ascii_only)
        for name, value in members
    ]
    text = ("{" + draw(st.sampled_from([",", ", ", ",\r\n"])).join(parts) + "}").encode()
    return draw(damaged(text)) if draw(st.integers(0, 4)) == 0 else text


def damaged(text: bytes) -> st.SearchStrategy[bytes]:
    place = st.integers(0, len(text) - 1)
    junk = st.binary(max_size=3) | st.sampled_from(
        [b'"', b"\\", b",", b"}", b"\0", b"\xe5", b"0", b"-", b"."]
    )
    return st.builds(
        lambda at, new, drop: text[:at] + new + text[at + drop :], place, junk, st.integers(0, 3)
    )


def decode(raw: Sequence[bytes], times: Sequence[int] | None, *, strict: bool) -> EventBatch:
    return decode_json(
        raw,
        topic="clicks",
        partition=0,
        start=0,
        next=len(raw),
        offsets=np.arange(len(raw)),
        record_ts_ms=None if times is None else np.array(times, np.int64),
        attributes=ATTRIBUTES,
        fields=FIELDS,
        strict_names=NAMES if strict else None,
    )


def row_of(batch: EventBatch, row: int) -> dict[str, object]:
    """Everything a batch says of a row."""
    seen: dict[str, object] = {"code": int(batch.rejected[row])}
    for name in (*STRING_FIELDS, *(f"attrs.{name}" for name in ATTRIBUTES)):
        seen[name] = batch.text(name, row)
    seen |= dict(zip(INTEGER_FIELDS, batch.integers[:, row].tolist(), strict=True))
    seen |= {
        name: repr(value) for name, value in zip(FLOAT_FIELDS, batch.floats[:, row].tolist(), strict=True)
    }
    for name, value in zip(ATTRIBUTES, batch.attribute_numbers[:, row].tolist(), strict=True):
        seen[f"number {name}"] = repr(value)
    seen["label"] = int(batch.labels[row])
    return seen


def row_by_authority(raw: bytes, time: int | None, *, strict: bool) -> dict[str, object]:
    """What :func:`row_of` must give, from the authority alone."""
    layout = layout_of(ATTRIBUTES, FIELDS)
    verdict = judge_record(raw, layout, record_ts_ms=time, strict_names=NAMES if strict else None)
    found = {} if isinstance(verdict, Fault) else verdict
    seen: dict[str, object] = {"code": int(verdict.code) if isinstance(verdict, Fault) else 0}
    slots = (*STRING_FIELDS, *(f"attrs.{name}" for name in ATTRIBUTES))
    for slot, name in enumerate(slots):
        value = found.get(slot)
        seen[name] = None if value is None or isinstance(value, float) else str(value)
    for slot, name in enumerate(INTEGER_FIELDS, layout.first_integer):
        seen[name] = found.get(slot, -1)
    for slot, name in enumerate(FLOAT_FIELDS, layout.first_float):
        seen[name] = repr(found.get(slot, float("nan")))
    for slot, name in enumerate(ATTRIBUTES, len(STRING_FIELDS)):
        value = found.get(slot)
        seen[f"number {name}"] = repr(
            float("nan") if value is None or isinstance(value, str) else float(value)
        )
    seen["label"] = found.get(layout.label, -1)
    return seen


@settings(max_examples=300, deadline=None)
@given(st.lists(records(), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_fast_and_slow_say_the_same(raw: list[bytes], timed: bool, strict: bool) -> None:
    times = [TS] * len(raw) if timed else None
    batch = decode(raw, times, strict=strict)
    for row, value in enumerate(raw):
        assert row_of(batch, row) == row_by_authority(value, TS if timed else None, strict=strict)
    assert [rejection.row for rejection in batch.rejections] == np.flatnonzero(batch.rejected).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), min_size=2, max_size=12), st.data())
def test_cuts_change_nothing(raw: list[bytes], data: st.DataObject) -> None:
    whole = decode(raw, None, strict=False)
    cut = data.draw(st.integers(1, len(raw) - 1))
    pieces = decode(raw[:cut], None, strict=False), decode(raw[cut:], None, strict=False)
    rows = [row_of(piece, row) for piece in pieces for row in range(len(piece))]
    assert rows == [row_of(whole, row) for row in range(len(raw))]

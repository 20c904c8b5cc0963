"""Lists against plain Python: which entry fits, what comes first, when an entry ends, what a verdict says of it."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.list_values import value_check
from detectors.lists import ListBook, ValueList
from schemas.config import Config, parse_config
from schemas.decode import decode_json
from schemas.events import EventBatch
from schemas.keys import KeyRing
from schemas.list_rows import read_list
from schemas.verdicts import LEVELS, Verdicts
from streams.replay import Core
from tests.list_oracle import Entry, as_csv, best

RING = KeyRing(bytes(32))
TS = 1_760_000_000_000


def decoded(events: list[dict[str, Any]], config: Config, start: int = 0) -> EventBatch:
    return decode_json(
        [json.dumps(event).encode() for event in events],
        topic="clicks",
        partition=0,
        start=start,
        next=start + len(events),
        offsets=np.arange(start, start + len(events)),
        record_ts_ms=np.full(len(events), -1),
        attributes=config.attributes_used,
        fields=config.fields,
        strict_names=None,
    )


def made(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event": "view",
        "ts": TS + number,
        "user_id": f"u{number % 7}",
        **fields,
    }


def book(text: str, **entries: list[Entry]) -> tuple[Config, ListBook]:
    """A config and its lists; a list's entries stand under its name."""
    config, _ = parse_config({"a.yaml": text.encode()})
    lists = {name: ValueList(as_csv(entries[name]), one.entity, RING) for name, one in config.lists.items()}
    return config, ListBook(lists, config)


def judged(config: Config, lists: ListBook, events: list[dict[str, Any]], *cuts: int) -> list[dict[str, Any]]:
    """Verdicts as rows: score, level, reasons, evidence, late."""
    core, rows = Core(config, RING, lists), []
    for begin, end in zip((0, *cuts), (*cuts, len(events)), strict=True):
        rows += _rows(core.judge(decoded(events[begin:end], config, begin)))
    return rows


def _rows(verdicts: Verdicts) -> list[dict[str, Any]]:
    rows = []
    for i in range(len(verdicts.rows)):
        codes = verdicts.reason_codes[verdicts.reason_offsets[i] : verdicts.reason_offsets[i + 1]]
        text = verdicts.evidence_bytes[
            verdicts.evidence_offsets[i] : verdicts.evidence_offsets[i + 1]
        ].tobytes()
        rows.append(
            {
                "event_id": verdicts.batch.text("event_id", int(verdicts.rows[i])),
                "score": float(verdicts.score[i]),
                "level": LEVELS[verdicts.level[i]],
                "reasons": [verdicts.reason_names[code] for code in codes],
                "evidence": json.loads(text) if text else [],
                "late": bool(verdicts.late[i]),
            }
        )
    return rows


# -- which entry fits --------------------------------------------------------------------------------------------

ADDRESSES = [
    *(
        "10.1.2.3",
        "10.1.2.0",
        "10.1.3.255",
        "11.0.0.0",
        "255.255.255.255",
        "0.0.0.7",
        "192.168.7.7",
        "::ffff:10.1.2.3",
    ),
    *(
        "2001:db8::1",
        "2001:DB8:0:0:1::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "::1",
        "2001:db9::",
        "::",
    ),
]
NETWORKS = [
    *(
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.0/32",
        "10.1.2.3",
        "0.0.0.0/0",
        "255.0.0.0/8",
        "10.1.2.2/31",
    ),
    *(
        "::ffff:10.1.2.0/120",
        "::ffff:192.168.0.0/112",
        "2001:db8::/32",
        "2001:db8::1",
        "2001:db8::/127",
        "::/0",
    ),
    *("2001:db8:0:0:1::/80", "ffff:ffff::/32", "ffff::/16", "::/128", "2001:db8::/64"),
]
PHONES = [
    *(
        "13800138000",
        "+86 138 0013 8000",
        "0086-138-0013-8001",
        "8613800238000",
        "138****8000",
        "+44 20 7946 0958",
    ),
    *("010-12345678", "+39 06 698 12345", "deadbeef", "10086", "(138) 0013-8002", "1３8", None, ""),
]
PREFIXES = [
    *(
        "138",
        "1380013",
        "+86 1380013800",
        "13800138000",
        "86138001",
        "008613",
        "+44",
        "+44 20 7946",
        "010",
        "+39 06",
    ),
    *("deadbeef", "1", "+86", "100", "01012"),
]
PLACES: list[dict[str, Any]] = [{"lat": 31.2304, "lon": 121.4737}, {"lat": 40.0, "lon": 116.3}, {}]
CASES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "ip": ([{"ip": ip} for ip in ADDRESSES] + [{}], NETWORKS),
    "phone": ([{"phone": phone} for phone in PHONES], PREFIXES),
    "phone_segment": ([{"phone": phone} for phone in PHONES], ["1380013", "1380023", "2079460", "1012345"]),
    "ip_prefix_24": ([{"ip": ip} for ip in ADDRESSES], ["10.1.2.0/24", "10.1.3.9", "::ffff:192.168.7.0/120"]),
    "ip_prefix_48": ([{"ip": ip} for ip in ADDRESSES], ["2001:db8::/48", "2001:db9::7"]),
    "gps_cell": (PLACES, ["88309959d1fffff"]),
    "device_id": (
        [{"device_id": d} for d in ("d1", 'd"2', "设备3", "d1 x", "D1")],
        ["d1", 'd"2', "设备3", "d9,9"],
    ),
    "inviter_id": ([{"inviter_id": "u1"}, {}], ["u1"]),
    "attrs.age": ([{"age": a} for a in (5, 5.0, "5", "5.0", True, "x", 0)], ["5", "x", "1", "0"]),
}


@pytest.mark.parametrize("entity", CASES)
def test_the_entry_that_fits_is_the_one_that_plain_python_finds(entity: str) -> None:
    draw = random.Random(entity)
    choices, values = CASES[entity]
    ends = ["", "", str(TS + 100), "2025-10-09T08:53:20.150+00:00", "2026-01-01", "2024-01-01T00:00:00+08:00"]
    for _ in range(12):
        entries = [
            Entry(draw.choice(values), f'why "{i}", 因为', draw.choice(("", "ops", "a,b")), draw.choice(ends))
            for i in range(draw.randrange(1, 25))
        ]
        if entity == "phone_segment":  # the oracle knows Chinese segments alone
            entries = [entry for entry in entries if entry.value != "2079460"] or [Entry("1380013")]
        config, lists = book(
            f"lists: {{l: {{kind: grey, entity: {entity}, file: l.csv, weight: 0.4}}}}", l=entries
        )
        events = [made(i, **draw.choice(choices)) for i in range(200)]
        events = [{key: value for key, value in event.items() if value is not None} for event in events]
        rows = judged(config, lists, events, *sorted(draw.sample(range(200), 3)))
        for event, row in zip(events, rows, strict=True):
            expected = best(entity, entries, event)
            said = row["evidence"]
            if expected is None:
                assert (row["score"], row["reasons"], said) == (0.0, [], []), event
                continue
            assert (row["score"], row["level"], row["reasons"]) == (1 - (1 - 0.4), "observe", ["l"]), event
            found = Entry(expected.value, said[0]["why"] or "", said[0]["source"] or "", expected.expires)
            assert found == expected, event


@pytest.mark.parametrize(
    ("entity", "value", "fields", "match"),
    [
        ("ip", "10.1.2.0/24", {"ip": "10.1.2.3"}, "cidr"),
        ("ip", "::ffff:10.1.2.3/128", {"ip": "10.1.2.3"}, "exact"),
        ("ip", "2001:db8::/32", {"ip": "2001:db8::7"}, "cidr"),
        ("phone", "138", {"phone": "13800138000"}, "prefix"),
        ("phone", "+86 138-0013-8000", {"phone": "13800138000"}, "exact"),
        ("phone", "deadbeef", {"phone": "deadbeef"}, "exact"),
        ("user_id", "u0", {}, "exact"),
    ],
)
def test_the_evidence_tells_how_it_fits_and_never_the_value(
    entity: str, value: str, fields: dict[str, str], match: str
) -> None:
    entry = Entry(value, "bought in bulk", "ops")
    config, lists = book(f"lists: {{bad: {{kind: black, entity: {entity}, file: l.csv}}}}", bad=[entry])
    (row,) = judged(config, lists, [made(0, **fields)])
    assert row["evidence"] == [
        {
            "reason": "bad",
            "list": "black",
            "entity": entity,
            "match": match,
            "why": "bought in bulk",
            "source": "ops",
        }
    ]
    assert (row["score"], row["level"]) == (1.0, "block")


def test_an_entry_ends_at_the_millisecond_and_the_wider_one_takes_over() -> None:
    entries = [Entry("10.0.0.0/8", "wide"), Entry("10.1.0.0/16", "narrow", "", str(TS + 1))]
    config, lists = book("lists: {l: {kind: grey, entity: ip, file: l.csv}}", l=entries)
    rows = judged(config, lists, [made(i, ip="10.1.2.3") for i in range(3)])
    assert [row["evidence"][0]["why"] for row in rows] == ["narrow", "wide", "wide"]


# -- what comes first ----------------------------------------------------------------------------------------------

PRECEDENCE = """
lists:
  office: {kind: white, entity: ip, file: a.csv}
  farms:  {kind: black, entity: device_id, file: b.csv}
  vpn:    {kind: grey, entity: ip, file: c.csv, weight: 0.3}
  odd:    {kind: grey, entity: user_id, file: d.csv, weight: 0.25}
rules:
  quick: {when: dwell_ms < 100, weight: 0.5}
"""


def test_white_over_black_over_grey_and_all_of_them_are_told() -> None:
    config, lists = book(
        PRECEDENCE,
        office=[Entry("10.0.0.1")],
        farms=[Entry("farm")],
        vpn=[Entry("10.0.0.0/8")],
        odd=[Entry("u0"), Entry("u1"), Entry("u2"), Entry("u3")],
    )
    rows = judged(
        config,
        lists,
        [
            made(0, ip="10.0.0.1", device_id="farm", dwell_ms=5),
            made(1, ip="10.0.0.2", device_id="farm", dwell_ms=5),
            made(2, ip="10.0.0.2", dwell_ms=5),
            made(3, ip="11.0.0.2", dwell_ms=500),
            made(4, ip="11.0.0.2"),
        ],
    )
    assert [(row["score"], row["level"], row["reasons"]) for row in rows] == [
        (0.0, "pass", ["office", "farms", "vpn", "odd", "quick"]),
        (1.0, "block", ["farms", "vpn", "odd", "quick"]),
        (1.0 - (1.0 - 0.3) * (1.0 - 0.25) * (1.0 - 0.5), "review", ["vpn", "odd", "quick"]),
        (0.25, "pass", ["odd"]),
        (0.0, "pass", []),
    ]
    assert [said["reason"] for said in rows[0]["evidence"]] == rows[0]["reasons"]


def test_late_events_are_looked_up_too() -> None:
    config, lists = book("lists: {l: {kind: black, entity: user_id, file: l.csv}}", l=[Entry("u1")])
    rows = judged(config, lists, [made(10_000_000), made(1)])
    assert [(row["late"], row["level"]) for row in rows] == [(False, "pass"), (True, "block")]


def test_what_is_listed_black_teaches_no_model_and_what_is_white_does() -> None:
    model = "models: {odd: {kind: half_space_trees, features: [dwell_ms], weight: 0.1}}"
    text = model + "\nlists: {l: {kind: %s, entity: user_id, file: l.csv}}"
    events = [made(i, dwell_ms=i % 900) for i in range(2000)]
    learned = {}
    for kind in ("black", "white", "grey"):
        config, lists = book(text % kind, l=[Entry(f"u{i}") for i in range(7)])
        core = Core(config, RING, lists)
        core.judge(decoded(events, config))
        state = core.snapshot()["core"]
        learned[kind] = [
            value.tobytes() for name, value in sorted(state.items()) if name.startswith("judge/model/")
        ]
    plain = Core(parse_config({"a.yaml": model.encode()})[0], RING)
    never = [
        value.tobytes()
        for name, value in sorted(plain.snapshot()["core"].items())
        if name.startswith("judge/model/")
    ]
    plain.judge(decoded(events, config))
    always = [
        value.tobytes()
        for name, value in sorted(plain.snapshot()["core"].items())
        if name.startswith("judge/model/")
    ]
    assert learned["white"] == learned["grey"] == always != never
    assert learned["black"] == never


def test_a_judge_wants_the_lists_of_its_config() -> None:
    config, lists = book("lists: {l: {kind: white, entity: user_id, file: l.csv}}", l=[])
    with pytest.raises(ValueError, match="expected those of the config"):
        Core(msgspec.structs.replace(config, lists={}), RING, lists)
    with pytest.raises(ValueError, match="expected those of the config"):
        Core(config, RING)


# -- files that are wrong -------------------------------------------------------------------------------------------


def problems(entity: str, raw: bytes) -> list[str]:
    check, expected = value_check(entity)
    return [
        str(one) for one in read_list(raw, file="lists/x.csv", check_values=check, expected_value=expected)[1]
    ]


@pytest.mark.parametrize(
    ("entity", "row", "told"),
    [
        ("device_id", b",a,b,", "line 2, column value: found nothing; expected a value"),
        ("device_id", b"d1,a", "line 2: found 2 cells; expected 4 cells"),
        ("device_id", b"d1,a,b,,", "line 2: found 5 cells; expected 4 cells"),
        ("device_id", b'"d1,a,b,', "line 2: found a quote within the cell; expected quotes around"),
        ("device_id", b'"d"1,a,b,', "line 2: found a quote within the cell; expected quotes around"),
        ("device_id", b" d1,a,b,", "line 2, column value: found a space at one end"),
        ("device_id", b"\xff1,a,b,", "line 2, column value: found bytes that are no UTF-8"),
        (
            "device_id",
            b"d1,a,b,soon",
            'line 2, column expires: found a text such as "aaaa"; expected nothing, or when',
        ),
        ("device_id", b"d1,a,b,1760000000", "line 2, column expires: found a text such as"),
        ("device_id", b"d1,a,b,2026-13-01", "line 2, column expires: found a text such as"),
        ("device_id", b"x" * 1025 + b",a,b,", "line 2, column value: found more than 1024 bytes"),
        ("device_id", b"x," + b"r" * 501 + b",b,", "line 2, column reason: found more than 500 bytes"),
        (
            "ip",
            b"10.0.0.1/8,,,",
            'line 2, column value: found a text such as "99.9.9.9/9"; expected an address',
        ),
        ("ip", b"10.0.0.0/33,,,", "line 2, column value: found a text such as"),
        ("ip", b"10.0.0.0/08,,,", "line 2, column value: found a text such as"),
        ("ip", b"10.0.0.0/,,,", "line 2, column value: found a text such as"),
        ("ip", b"fe80::1%eth0,,,", "line 2, column value: found a text such as"),
        ("ip", b"2001:db8::/129,,,", "line 2, column value: found a text such as"),
        ("ip", b"::ffff:10.0.0.0/95,,,", "line 2, column value: found a text such as"),
        ("phone", b"0,,,", "line 2, column value: found a text such as"),
        ("phone", b"+0123,,,", "line 2, column value: found a text such as"),
        ("phone", b"1234567890123456,,,", "line 2, column value: found a text such as"),
        ("phone_segment", b"138001,,,", "line 2, column value: found a text such as"),
        ("ip_prefix_24", b"10.0.0.0/16,,,", "line 2, column value: found a text such as"),
        ("ip_prefix_48", b"10.0.0.0/24,,,", "line 2, column value: found a text such as"),
        ("gps_cell", b"87309959dffffff,,,", "line 2, column value: found a text such as"),
    ],
)
def test_a_bad_row_is_told_with_its_place_and_without_its_value(entity: str, row: bytes, told: str) -> None:
    (problem,) = problems(entity, b"value,reason,source,expires\n" + row + b"\n")
    assert problem.startswith(f"lists/x.csv: {told}")
    assert "expected" in problem
    assert "10.0.0" not in problem
    assert "1380" not in problem.partition("expected")[0]


@pytest.mark.parametrize("header", [b"", b"val\n", b"value,value\n", b"value,why\n", b"reason,source\n"])
def test_a_wrong_header_is_told(header: bytes) -> None:
    (problem,) = problems("user_id", header)
    assert problem.startswith("lists/x.csv: line 1: found ")


def test_many_bad_rows_are_told_in_order_and_counted() -> None:
    lines = problems("ip", b"expires,value\n" + b"\n,10.0.0.1\n,x\nsoon,10.0.0.1\n" * 100)
    assert len(lines) == 21
    assert [line.split(": ")[1] for line in lines[:4]] == [
        "line 4, column value",
        "line 5, column expires",
        "line 8, column value",
        "line 9, column expires",
    ]
    assert lines[-1] == "lists/x.csv: $: found 180 more bad rows; expected none"


def test_giants_are_refused() -> None:
    assert "64 MiB" in problems("ip", b"value\n" + bytes(64 << 20))[0]
    assert "5,000,000 lines" in problems("ip", b"value\n" * 5_000_002)[0]


def test_the_last_line_needs_no_end_and_old_spreadsheets_are_read() -> None:
    config, _ = book("lists: {l: {kind: black, entity: user_id, file: l.csv}}", l=[])
    one = ValueList(b'\xef\xbb\xbf"reason","value"\r\n"a ""b""",u1\r\n\r\n,u2', "user_id", RING)
    rows = judged(config, ListBook({"l": one}, config), [made(i) for i in range(4)])
    assert [row["level"] for row in rows] == ["pass", "block", "block", "pass"]
    assert [row["evidence"][0]["why"] for row in rows[1:3]] == ['a "b"', None]

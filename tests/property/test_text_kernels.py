"""The compiled readers of text against Python's own: addresses, decimals, UTF-8, JSON strings."""

from __future__ import annotations

import ipaddress
import json
import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.addresses import canonicalize
from schemas.decimals import NOT_A_NUMBER, read_number, to_double
from schemas.events import BUFFER_PADDING
from schemas.json_strings import is_utf8, string_end, unescape
from schemas.number_texts import NUMBER_TEXT, read_numbers

groups = st.sampled_from(["", "0", "00", "1", "abcd", "FFFF", "12345", "g", "1.2.3.4", "1.2.3.256"])
addresses = (
    st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda address: address.exploded.upper())
    | st.lists(groups, min_size=1, max_size=9).map(":".join)
    | st.lists(st.sampled_from(["0", "1", "01", "255", "256", "", "1000"]), min_size=3, max_size=5).map(
        ".".join
    )
    | st.integers(0, 255).flatmap(lambda byte: st.just(f"::ffff:{byte}.0.0.{byte}"))
    | st.text(alphabet="0123456789abcdefABCDEF:.% ", max_size=20)
)


def buffer_of(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(bytearray(text + bytes(BUFFER_PADDING + 16)), np.uint8)


@settings(max_examples=1000, deadline=None)
@given(addresses)
@example("1::3:4:5:6:7:8")
@example("fe80::1%1")
def test_addresses_are_read_as_python_reads_them(text: str) -> None:
    buffer = buffer_of(text.encode())
    length = canonicalize(buffer, 0, len(text))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        assert length == -1
        return
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            assert length == -1
            return
        address = address.ipv4_mapped or address
    if len(str(address)) > len(text):
        assert length == -1
    else:
        assert buffer[:length].tobytes().decode() == str(address)


decimals = (
    st.floats(-1e30, 1e30).map(repr)
    | st.floats(-200, 200).map(repr)
    | st.integers(-(1 << 66), 1 << 66).map(str)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    # Half way between two doubles, and one digit beside it.
    | st.integers(1 << 52, (1 << 53) - 1).map(lambda mantissa: str(4 * mantissa + 2))
    | st.integers(1 << 52, (1 << 53) - 1).map(lambda mantissa: f"{4 * mantissa + 2}.1")
)


@settings(max_examples=2000, deadline=None)
@given(decimals)
def test_decimals_are_rounded_as_python_rounds_them(text: str) -> None:
    buffer = buffer_of(text.encode())
    form, end, digits, power = read_number(buffer, 0)
    if form == NOT_A_NUMBER:
        return
    assert end == len(text)
    number = to_double(digits, power)
    assert math.isnan(number) or number == abs(float(text))


def test_common_decimals_are_decided() -> None:
    rng = np.random.default_rng(3)
    undecided = 0
    for value in rng.uniform(-180, 180, 2000).tolist():
        form, _, digits, power = read_number(buffer_of(repr(value).encode()), 0)
        undecided += form == NOT_A_NUMBER or math.isnan(to_double(digits, power))
    assert undecided < 20


@settings(max_examples=300, deadline=None)
@given(st.lists(decimals | st.text(alphabet="0123456789+-.eE nan_", max_size=60), min_size=1, max_size=8))
def test_texts_are_numbers_by_the_grammar_of_json(texts: list[str]) -> None:
    lengths = np.array([len(text) for text in texts], np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    values, sound = read_numbers(buffer_of("".join(texts).encode()), starts, lengths)
    for text, value, is_sound in zip(texts, values.tolist(), sound.tolist(), strict=True):
        is_number = NUMBER_TEXT.fullmatch(text) is not None and math.isfinite(float(text))
        assert is_sound == (is_number or text == "")
        assert value == float(text) if is_number else math.isnan(value)


@settings(max_examples=1000, deadline=None)
@given(
    st.binary(max_size=12)
    | st.text(max_size=6).map(str.encode)
    | st.lists(
        st.sampled_from(
            [b"\xe0", b"\xed", b"\xf0", b"\xf4", b"\xc1", b"\x80", b"\x9f", b"\xa0", b"\x90", b"a"]
        )
    ).map(b"".join)
)
def test_utf8_is_what_python_decodes(text: bytes) -> None:
    try:
        text.decode()
        sound = True
    except UnicodeDecodeError:
        sound = False
    assert is_utf8(buffer_of(text), 0, len(text)) == sound


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=40) | st.text(alphabet='\\"/bfnrtu0d8fFcC ', max_size=30), st.booleans())
def test_strings_end_and_unescape_as_json_has_them(text: str, as_text: bool) -> None:
    inner = json.dumps(text)[1:-1] if as_text else text.split('"', 1)[0]
    raw = inner.encode()
    buffer = buffer_of(raw + b'" "')
    try:
        value = json.loads(f'"{inner}"')
        value.encode()
    except (json.JSONDecodeError, UnicodeEncodeError):
        value = None
    end, _ = string_end(buffer, 0, len(raw) + 1)
    length = unescape(buffer, 0, end) if end >= 0 else -1
    if value is None:
        assert end != len(raw) or length == -1
    else:
        assert end == len(raw)
        assert buffer[:length].tobytes().decode() == value

"""Networks and key indexes against plain search, on few addresses, so that they nest, repeat, touch and end."""

from __future__ import annotations

import ipaddress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.key_index import KeyIndex
from detectors.list_values import read_networks, value_check
from detectors.network_index import NetworkIndex
from schemas.addresses import IPV4, IPV6
from schemas.events import BUFFER_PADDING
from schemas.list_rows import read_list

WIDTH = {IPV4: 32, IPV6: 128}


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, int]], list[tuple[int, int]]]:
    """A version; networks as (address, bits, expires); addresses and the times at which they are looked for."""
    version = draw(st.sampled_from([IPV4, IPV6]))
    width = WIDTH[version]
    corner = st.sampled_from([0, 1 << (width - 1), (1 << width) - 16, 10 << (width - 8), (1 << width) - 1])
    address = st.builds(lambda base, more: (base + more) & (1 << width) - 1, corner, st.integers(0, 15))
    bits = st.integers(0, width) | st.integers(width - 4, width)
    times = st.integers(0, 5)
    entries = draw(st.lists(st.tuples(address, bits, times), min_size=1, max_size=25))
    cut = [(value >> width - size << width - size, size, end) for value, size, end in entries]
    return version, cut, draw(st.lists(st.tuples(address, times), min_size=1, max_size=40))


def text_of(value: int, version: int) -> str:
    return str(ipaddress.IPv4Address(value) if version == IPV4 else ipaddress.IPv6Address(value))


@given(networks())
def test_the_narrowest_network_that_has_not_ended_is_found(
    made: tuple[int, list[tuple[int, int, int]], list[tuple[int, int]]],
) -> None:
    version, entries, looked_for = made
    raw = "value\n" + "".join(f"{text_of(value, version)}/{bits}\n" for value, bits, _ in entries)
    check, expected = value_check("ip")
    rows, problems = read_list(raw.encode(), file="l.csv", check_values=check, expected_value=expected)
    assert problems == []
    read = read_networks(rows)
    index = NetworkIndex(
        version,
        high=read.high,
        low=read.low,
        bits=read.bits,
        expires_ms=np.array([end for _, _, end in entries]),
        notes=np.arange(len(entries), dtype=np.int32),
    )
    texts = [text_of(value, version).encode() for value, _ in looked_for]
    lengths = np.array([len(text) for text in texts], np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    buffer = np.frombuffer(bytearray(b"".join(texts) + bytes(BUFFER_PADDING)), np.uint8)
    found = np.full(len(texts), -1, np.int32)
    index.find(buffer, starts, lengths, np.array([ts for _, ts in looked_for]), found)
    for (address, ts), note in zip(looked_for, found.tolist(), strict=True):
        fitting = [
            (-bits, -end, place)
            for place, (value, bits, end) in enumerate(entries)
            if ts < end and address >> WIDTH[version] - bits == value >> WIDTH[version] - bits
        ]
        assert note == (min(fitting)[2] if fitting else -1)


KEYS = st.sampled_from([0, 1, 2, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, 1 << 40])


@given(
    st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=20), st.lists(st.tuples(KEYS, st.integers(0, 5)))
)
def test_the_longest_lasting_entry_of_a_key_is_found(
    entries: list[tuple[int, int]], looked_for: list[tuple[int, int]]
) -> None:
    index = KeyIndex(
        np.array([key for key, _ in entries], np.uint64),
        np.array([end for _, end in entries], np.int64),
        np.arange(len(entries), dtype=np.int32),
    )
    found = index.find(
        np.array([key for key, _ in looked_for], np.uint64), np.array([ts for _, ts in looked_for], np.int64)
    )
    for (key, ts), note in zip(looked_for, found.tolist(), strict=True):
        fitting = [
            (-end, place) for place, (known, end) in enumerate(entries) if known == key != 0 and ts < end
        ]
        assert note == (min(fitting)[1] if fitting else -1)

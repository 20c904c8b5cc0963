"""From events as numbers to the columns of a recording."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulation.acts import CAMPAIGN, CHANNELS, EVENTS, PAGES, PLATFORMS, VARIANTS
from simulation.parties import KINDS
from simulation.people import CROWDS
from simulation.places import IPV6

# pyarrow has no types; these names say in signatures what is meant.
Table: TypeAlias = Any
Array: TypeAlias = Any

TRUTH_COLUMNS: Final = ("truth_kind", "truth_party", "truth_crowd")
"""Who is who; not part of what the engine is given."""

_HEX_PAIRS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
_V6_TEXT = b"2409:8a00:xxxx:xxxx:1000:1000:1000:xxxx"
_V6_HOLES = np.flatnonzero(np.frombuffer(_V6_TEXT, np.uint8) == ord("x"))


def as_table(events: NDArray[np.void]) -> Table:
    """EVENT[n] as pyarrow.Table: the fields of an event, ``label``, and TRUTH_COLUMNS."""
    who = events["who"]
    kinds, crowds = who["kind"], who["crowd"]
    money = {name: _integers(events[name.removesuffix("_minor")]) for name in ("amount_minor", "cost_minor")}
    return pa.table(
        {
            "event_id": _ids("e", events["key"]),
            "event": _names(EVENTS, events["event"]),
            "ts": events["ts"],
            "user_id": _ids("u", who["user"]),
            "device_id": _ids("d", who["device"]),
            "channel": _names(CHANNELS, who["channel"]),
            "campaign": _names((CAMPAIGN,), np.zeros(len(events), np.uint8)),
            "page": _names(PAGES, events["page"]),
            "platform": _names(PLATFORMS, who["platform"]),
            "variant": _names(VARIANTS, who["variant"]),
            "inviter_id": _ids("u", who["inviter"]),
            "session_id": _ids("s", events["session"]),
            "phone": _phones(who["phone"]),
            "ip": _addresses(who["ip"]),
            "lat": _degrees(who["lat"]),
            "lon": _degrees(who["lon"]),
            "dwell_ms": _integers(events["dwell"]),
            **money,
            "label": (kinds > 0).astype(np.int8),
            "truth_kind": _names(KINDS, kinds),
            "truth_party": _parties(kinds, who["party"]),
            "truth_crowd": _names(CROWDS, crowds),
        }
    )


def _names(names: tuple[str | None, ...], codes: NDArray[np.uint8]) -> Array:
    return pa.array(names, pa.string()).take(pa.array(codes))


def _ids(letter: str, bits: NDArray[np.uint64]) -> Array:
    """A letter and 16 hex digits; null for 0."""
    text = np.empty((len(bits), 17), np.uint8)
    text[:, 0] = ord(letter)
    text[:, 1:] = _hex_digits(bits)
    return _fixed_width(text, bits != 0)


def _phones(numbers: NDArray[np.int64]) -> Array:
    powers = 10 ** np.arange(10, -1, -1, dtype=np.int64)
    text = (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)
    return _fixed_width(text, numbers != 0)


def _addresses(ips: NDArray[np.uint64]) -> Array:
    """IPv6 in its canonical form: no group has a leading zero to leave out."""
    octets = [
        pa.array((ips >> np.uint64(shift)) & np.uint64(255)).cast(pa.string()) for shift in (24, 16, 8, 0)
    ]
    v4 = pc.binary_join_element_wise(*octets, ".")
    text = np.tile(np.frombuffer(_V6_TEXT, np.uint8), (len(ips), 1))
    bits = (ips & np.uint64(0xFFF_FFFF_FFFF)) | np.uint64(0x1000_1000_1000)
    text[:, _V6_HOLES] = _hex_digits(bits)[:, 4:]
    is_v6 = (ips & IPV6) != 0
    return pc.if_else(pa.array(is_v6), _fixed_width(text, is_v6), v4)


def _degrees(values: NDArray[np.float64]) -> Array:
    return pa.array(np.round(values, 5), from_pandas=True)


def _integers(values: NDArray[np.int32]) -> Array:
    return pa.array(values.astype(np.int64), mask=values < 0)


def _parties(kinds: NDArray[np.uint8], numbers: NDArray[np.int32]) -> Array:
    """Such as ``script-3``; null for honest people."""
    names = pc.binary_join_element_wise(_names(KINDS, kinds), pa.array(numbers).cast(pa.string()), "-")
    return names.cast(pa.string())


def _hex_digits(bits: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """uint8[n, 16]: most significant digit first."""
    octets = bits.astype(">u8").view(np.uint8)
    return _HEX_PAIRS[octets].view(np.uint8).reshape(len(bits), 16)


def _fixed_width(text: NDArray[np.uint8], present: NDArray[np.bool_]) -> Array:
    rows, width = text.shape
    ends = np.concatenate(([0], np.cumsum(np.where(present, width, 0)))).astype(np.int32)
    data = np.ascontiguousarray(text[present] if not present.all() else text)
    bitmap = np.packbits(present, bitorder="little")
    return pa.StringArray.from_buffers(rows, pa.py_buffer(ends), pa.py_buffer(data), pa.py_buffer(bitmap))

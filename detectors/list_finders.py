"""How events are looked for in a list: by text, by address, or by the beginning of a phone number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detectors.key_index import NOTHING, KeyIndex
from detectors.list_values import NOT_DIGITS, NUMBERED, read_networks, read_phone_prefixes
from detectors.network_index import NetworkIndex
from detectors.phone_numbers import NO_NUMBER, numbers_of
from schemas.addresses import IPV4, IPV6
from schemas.events import EventBatch, string_column
from schemas.keys import KeyRing, hash_spans, hash_words, number_keys
from schemas.list_rows import VALUE, ListRows
from schemas.number_texts import read_numbers

MATCHES = ("exact", "cidr", "prefix")
"""In which way a value may fit an event."""
EXACT, CIDR, PREFIX = range(3)

KeysOf = Callable[[str], NDArray[np.uint64]]
"""The keyed hashes of an entity for the rows that are looked at."""

_CHINESE_MOBILE_DIGITS = 13
"""With 86: one number, not the beginning of several."""
_POWERS = 10 ** np.arange(1, 19, dtype=np.int64)


def how_values_match(rows: ListRows, entity: str) -> NDArray[np.int64]:
    """int64[n]: the place in MATCHES of each value."""
    if entity == "ip":
        networks = read_networks(rows)
        return np.where(networks.bits < np.where(networks.family == IPV4, 32, 128), CIDR, EXACT)
    if entity == "phone":
        prefixes = read_phone_prefixes(rows)
        begins = (prefixes != NOT_DIGITS) & (_digits(prefixes) < _CHINESE_MOBILE_DIGITS)
        return np.where(begins, PREFIX, EXACT)
    return np.full(len(rows), EXACT, np.int64)


class Values:
    """Entries that are found by the key of the entity.

    Parameters
    ----------
    rows, entity, ring
        The list.
    notes
        int32[n]: note of each row.
    """

    def __init__(self, rows: ListRows, entity: str, notes: NDArray[np.int32], ring: KeyRing) -> None:
        self._entity = entity
        if read := NUMBERED.get(entity):
            self._index = KeyIndex(hash_words(*read(rows), *ring.salt(entity)), rows.expires_ms, notes)
            return
        keys = _text_keys(rows, entity, ring)
        ends = rows.expires_ms
        if entity.startswith("attrs."):
            # An event may have the number that a value reads as.
            numbers, _ = read_numbers(rows.buffer, rows.starts[VALUE], rows.lengths[VALUE])
            keys = np.append(keys, number_keys(numbers, *ring.salt(f"number {entity}")))
            ends, notes = np.tile(ends, 2), np.tile(notes, 2)
        self._index = KeyIndex(keys, ends, notes)

    def find(self, batch: EventBatch, rows: NDArray[np.int64], keys: KeysOf) -> NDArray[np.int32]:
        """Note of each row: int32[j], NOTHING where there is none."""
        return self._index.find(keys(self._entity), batch.integers[0][rows])


class Addresses:
    """Addresses and networks; parameters as of :class:`Values`."""

    def __init__(self, rows: ListRows, notes: NDArray[np.int32]) -> None:
        networks = read_networks(rows)
        self._versions = [
            NetworkIndex(
                version,
                high=networks.high[mine],
                low=networks.low[mine],
                bits=networks.bits[mine],
                expires_ms=rows.expires_ms[mine],
                notes=notes[mine],
            )
            for version in (IPV4, IPV6)
            if (mine := networks.family == version).any()
        ]

    def find(self, batch: EventBatch, rows: NDArray[np.int64], keys: KeysOf) -> NDArray[np.int32]:  # noqa: ARG002 - as Values.find
        """Note of the smallest network that each row's address is in."""
        found = np.full(len(rows), NOTHING, np.int32)
        starts, lengths = _spans(batch, "ip", rows)
        for version in self._versions:
            version.find(batch.buffer, starts, lengths, batch.integers[0][rows], found)
        return found


class Phones:
    """Beginnings of phone numbers, and phones that are no numbers (hashed ones); parameters as of :class:`Values`."""

    def __init__(self, rows: ListRows, notes: NDArray[np.int32], ring: KeyRing) -> None:
        self._ring = ring
        prefixes = read_phone_prefixes(rows)
        texts, digits = prefixes == NOT_DIGITS, _digits(prefixes)
        keys = np.where(texts, _text_keys(rows, "phone", ring), _prefix_keys(prefixes, ring))
        self._texts = KeyIndex(keys[texts], rows.expires_ms[texts], notes[texts])
        self._prefixes = {
            length: KeyIndex(keys[mine], rows.expires_ms[mine], notes[mine])
            for length in sorted(set(digits[~texts].tolist()), reverse=True)
            if (mine := ~texts & (digits == length)).any()
        }

    def find(self, batch: EventBatch, rows: NDArray[np.int64], keys: KeysOf) -> NDArray[np.int32]:
        """Note of the longest beginning of each row's number."""
        ts_ms = batch.integers[0][rows]
        numbers = numbers_of(batch.buffer, *_spans(batch, "phone", rows))
        found = np.full(len(rows), NOTHING, np.int32)
        if len(self._texts):
            found = np.where(numbers == NO_NUMBER, self._texts.find(keys("phone"), ts_ms), found)
        digits = _digits(numbers)
        for length, index in self._prefixes.items():
            begins = numbers // 10 ** np.maximum(digits - length, 0)
            begins[(found != NOTHING) | (digits < length)] = NO_NUMBER
            found = np.maximum(found, index.find(_prefix_keys(begins, self._ring), ts_ms))
        return found


def make_finder(
    rows: ListRows, entity: str, notes: NDArray[np.int32], ring: KeyRing
) -> Values | Addresses | Phones:
    """What looks for an entity in a list."""
    if entity == "ip":
        return Addresses(rows, notes)
    if entity == "phone":
        return Phones(rows, notes, ring)
    return Values(rows, entity, notes, ring)


def _spans(
    batch: EventBatch, field: str, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    column = string_column(field, batch.attributes)
    return batch.starts[column][rows], batch.lengths[column][rows]


def _digits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many digits each number has: int64[n]; 0 has one."""
    return np.searchsorted(_POWERS, numbers, side="right") + 1


def _prefix_keys(prefixes: NDArray[np.int64], ring: KeyRing) -> NDArray[np.uint64]:
    return hash_words(prefixes.astype(np.uint64), prefixes > 0, *ring.salt("phone prefix"))


def _text_keys(rows: ListRows, entity: str, ring: KeyRing) -> NDArray[np.uint64]:
    return hash_spans(rows.buffer, rows.starts[VALUE], rows.lengths[VALUE], *ring.salt(entity))

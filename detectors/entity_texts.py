"""One entity of one event as text, for the rare rows whose pseudonym is shown."""

from __future__ import annotations

import ipaddress

from detectors.entities import DERIVED
from schemas.events import STRING_FIELDS, EventBatch, string_column


def entity_text(batch: EventBatch, kind: str, row: int) -> str:
    """Canonical text of an entity that the event has.

    A field as it came, an attribute that is a number as JSON writes it, 7 digits of a phone, an address prefix such as
    ``10.1.2.0/24``, an H3 index in hex.
    """
    if kind in DERIVED:
        words, _ = DERIVED[kind](batch.slice(row, row + 1))
        return _derived_text(kind, int(words[0]))
    text = batch.text(kind, row)
    if text is not None:
        return text
    number = float(batch.attribute_numbers[string_column(kind, batch.attributes) - len(STRING_FIELDS), row])
    return str(int(number)) if number.is_integer() else repr(number)


def _derived_text(kind: str, word: int) -> str:
    if kind == "phone_segment":
        return f"{word:07d}"
    if kind == "ip_prefix_24":
        return str(ipaddress.IPv4Network((word << 8, 24)))
    if kind == "ip_prefix_48":
        return str(ipaddress.IPv6Network((word << 80, 48)))
    return f"{word:x}"

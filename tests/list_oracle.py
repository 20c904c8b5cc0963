"""Lists in plain Python: every entry of every list is held against every event, by the words of the contract."""

from __future__ import annotations

import csv
import io
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import h3
import phonenumbers


@dataclass
class Entry:
    """One row of a list."""

    value: str
    reason: str = ""
    source: str = ""
    expires: str = ""

    def holds(self, ts_ms: int) -> bool:
        """Whether it has not ended."""
        if not self.expires:
            return True
        if self.expires.isdigit():
            return ts_ms < int(self.expires)
        end = datetime.fromisoformat(self.expires)
        end = end if end.tzinfo else end.replace(tzinfo=UTC)
        return datetime.fromtimestamp(ts_ms / 1000, UTC) < end


def as_csv(entries: list[Entry]) -> bytes:
    """The entries as a spreadsheet would write them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["value", "reason", "source", "expires"])
    writer.writerows([entry.value, entry.reason, entry.source, entry.expires] for entry in entries)
    return text.getvalue().encode("utf-8-sig")


def _address(text: str) -> Any:
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> Any:
    network = ipaddress.ip_network(text)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}") if mapped else network


def _number(text: str) -> str | None:
    """Country code and national number; seven characters at least, in ASCII."""
    if len(text) < 7 or not text.isascii():
        return None
    try:
        number = phonenumbers.parse(text, "CN")
    except phonenumbers.NumberParseException:
        return None
    return f"{number.country_code}{phonenumbers.national_significant_number(number)}"


def _prefix(text: str) -> str:
    """The beginning of a number as digits with a country code."""
    digits = "".join(character for character in text if character.isdigit())
    if text.startswith("+"):
        return digits
    if digits.startswith("00"):
        return digits[2:]
    return digits if digits.startswith("861") else "86" + digits.removeprefix("0")


def narrowness(entity: str, value: str, event: dict[str, Any]) -> int | None:
    """How narrowly a value fits an event: bits or digits, 0 for anything else that fits, None where it does not."""
    if entity == "ip":
        if not event.get("ip"):
            return None
        address, network = _address(event["ip"]), _network(value)
        return network.prefixlen if address.version == network.version and address in network else None
    if entity == "phone":
        phone = event.get("phone") or ""
        number = None if "*" in phone or any(c.isalpha() for c in phone) else _number(phone)
        if any(c.isalpha() for c in value):
            return 0 if number is None and phone == value else None
        return len(_prefix(value)) if number is not None and number.startswith(_prefix(value)) else None
    return 0 if _plain(entity, event, value) else None


def _plain(entity: str, event: dict[str, Any], value: str) -> bool:
    if entity == "gps_cell":
        return "lat" in event and h3.latlng_to_cell(event["lat"], event["lon"], 8) == value
    if entity in ("ip_prefix_24", "ip_prefix_48"):
        version, bits = (4, 24) if entity == "ip_prefix_24" else (6, 48)
        address = _address(event["ip"]) if event.get("ip") else None
        return (
            address is not None
            and address.version == version
            and address in _network(value).supernet(new_prefix=bits)
        )
    if entity == "phone_segment":
        number = _number(event["phone"]) if event.get("phone") else None
        return number is not None and number.startswith("86" + value)
    return _same(event.get(entity.removeprefix("attrs.")), value)


def _same(found: Any, value: str) -> bool:
    """A number is known by its number, a text by its text."""
    if isinstance(found, str) or found is None:
        return bool(found == value)
    try:
        return float(found) == float(value)
    except ValueError:
        return False


def best(entity: str, entries: list[Entry], event: dict[str, Any]) -> Entry | None:
    """The narrowest entry that holds; of equals the one that lasts longest, of those the first."""
    fitting = [
        (-fit, -_end(entry), place)
        for place, entry in enumerate(entries)
        if entry.holds(event["ts"]) and (fit := narrowness(entity, entry.value, event)) is not None
    ]
    return entries[min(fitting)[2]] if fitting else None


def _end(entry: Entry) -> float:
    if not entry.expires:
        return float("inf")
    if entry.expires.isdigit():
        return int(entry.expires) / 1000
    end = datetime.fromisoformat(entry.expires)
    return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()

"""Addresses and credentials of the brokers, in the forms that Faust, aiokafka and kafka-python want."""

from __future__ import annotations

from collections.abc import Mapping

from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from faust.types.auth import CredentialsT
from yarl import URL

Credentials = CredentialsT
"""One of ``faust.SASLCredentials``, ``faust.SSLCredentials``, ``faust.GSSAPICredentials``, OAuth."""

DEFAULT_PORT = 9092


def addresses(brokers: str) -> list[str]:
    """Split ``host:port,host:port``; the port defaults to 9092.

    Examples
    --------
    >>> addresses("kafka-1, kafka-2:9093,[::1]:9094")
    ['kafka-1:9092', 'kafka-2:9093', '[::1]:9094']
    """
    found = [address.strip() for address in brokers.split(",") if address.strip()]
    if not found:
        raise ValueError("no broker is named; expected host:port,host:port")
    return [address if _has_port(address) else f"{address}:{DEFAULT_PORT}" for address in found]


def broker_urls(brokers: str, scheme: str) -> list[URL]:
    """Return the addresses as Faust takes them; the scheme names the transport."""
    return [URL(f"{scheme}://{address}") for address in addresses(brokers)]


def client_auth(credentials: Credentials | None) -> Mapping[str, object]:
    """Return the keyword arguments by which aiokafka and kafka-python alike take the credentials."""
    return dict(credentials_to_aiokafka_auth(credentials))


def _has_port(address: str) -> bool:
    # What follows a bracketed IPv6 address, or all of any other.
    _, colon, port = address.rpartition("]")[2].rpartition(":")
    return bool(colon) and port.isdigit()

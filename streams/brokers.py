"""Where Kafka is and how one gets in, in the forms that Faust, aiokafka and kafka-python want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from faust.types.auth import CredentialsT
from yarl import URL

Credentials = CredentialsT
"""One of ``faust.SASLCredentials``, ``faust.SSLCredentials``, ``faust.GSSAPICredentials``, OAuth."""

DEFAULT_PORT = 9092
_LAST_PORT = 65_535


@dataclass(frozen=True)
class Brokers:
    """The brokers of one Kafka; as text their names alone.

    Parameters
    ----------
    names
        ``host:port,host:port``; the port defaults to 9092.
    credentials
        For TLS or SASL; None where Kafka takes everybody in the open.
    version
        Of the Kafka that they speak as; None where they tell it themselves, as all but the oldest and mocks do.

    Examples
    --------
    >>> Brokers("kafka-1, kafka-2:9093,[::1]:9094").addresses
    ['kafka-1:9092', 'kafka-2:9093', '[::1]:9094']
    """

    names: str
    credentials: Credentials | None = field(default=None, repr=False)
    version: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.names

    @property
    def addresses(self) -> list[str]:
        """Each broker as ``host:port``.

        Raises
        ------
        ValueError
            None is named, or a port is none.
        """
        found = [address.strip() for address in self.names.split(",") if address.strip()]
        if not found:
            raise ValueError("no broker is named; expected host:port,host:port")
        named = [address if _has_port(address) else f"{address}:{DEFAULT_PORT}" for address in found]
        if any(int(address.rpartition(":")[2]) > _LAST_PORT for address in named):
            raise ValueError(f"a port above {_LAST_PORT}; expected host:port,host:port")
        return named

    def urls(self, scheme: str) -> list[URL]:
        """The addresses as Faust takes them; the scheme names the transport."""
        return [URL(f"{scheme}://{address}") for address in self.addresses]

    def client_options(self) -> dict[str, object]:
        """The keyword arguments by which aiokafka and kafka-python alike take addresses and credentials."""
        return {"bootstrap_servers": self.addresses, **self.auth()}

    def kafka_python_options(self) -> dict[str, object]:
        """The same for kafka-python, which alone must be told a version."""
        return {**self.client_options(), "api_version": self.version}

    def auth(self) -> Mapping[str, object]:
        """The credentials alone, as those clients take them."""
        return dict(credentials_to_aiokafka_auth(self.credentials))


def _has_port(address: str) -> bool:
    # What follows a bracketed IPv6 address, or all of any other.
    _, colon, port = address.rpartition("]")[2].rpartition(":")
    return bool(colon) and port.isdigit()

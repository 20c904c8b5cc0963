"""Kafka and Redis behind TLS and passwords, for tests of how one gets in and why one does not."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.certificates import Authority, Pair
from tests.service_process import LOOPBACK, free_ports
from tests.services import KafkaBroker, RedisServer

USER, PASSWORD = "wool-watch", "correct horse battery staple"


class SecureKafka(KafkaBroker):
    """The broker of :class:`KafkaBroker`, with a door more for each way in.

    ``scram`` and ``plain`` are SASL_SSL for :data:`USER`; ``mutual`` asks for a certificate; ``elsewhere`` shows one of
    another host, ``expired`` one of yesterday. The door in the open stays, for the test itself.
    """

    DOORS = ("scram", "plain", "mutual", "elsewhere", "expired")

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder)
        self._authority = authority
        self._certificates = folder
        self.ports: dict[str, int] = {}

    def door(self, name: str) -> str:
        """The address of a door."""
        return f"{LOOPBACK}:{self.ports[name]}"

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self.ports = dict(zip(self.DOORS, free_ports(len(self.DOORS)), strict=True))

    def _format_options(self) -> list[str]:
        return [f'--add-scram=SCRAM-SHA-512=[name="{USER}",password="{PASSWORD}"]']

    def _properties(self) -> dict[str, str | int]:
        own = super()._properties()
        good = self._authority.sign(LOOPBACK)
        shown = {
            "elsewhere": self._authority.sign("elsewhere.test"),
            "expired": self._authority.sign(LOOPBACK, days=-1),
        }
        for name, port in self.ports.items():
            for listed in ("listeners", "advertised.listeners"):
                own[listed] = f"{own[listed]},{name.upper()}://{LOOPBACK}:{port}"
            protocol = "SASL_SSL" if name in ("scram", "plain") else "SSL"
            own["listener.security.protocol.map"] = (
                f"{own['listener.security.protocol.map']},{name.upper()}:{protocol}"
            )
            own |= self._door_properties(f"listener.name.{name}", shown.get(name, good))
        own["listener.name.mutual.ssl.client.auth"] = "required"
        own["listener.name.scram.sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
        own["listener.name.scram.scram-sha-512.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        )
        own["listener.name.plain.sasl.enabled.mechanisms"] = "PLAIN"
        own["listener.name.plain.plain.sasl.jaas.config"] = (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        )
        return own

    def _door_properties(self, prefix: str, pair: Pair) -> dict[str, str | int]:
        return {
            f"{prefix}.ssl.keystore.type": "PEM",
            f"{prefix}.ssl.keystore.location": str(pair.both),
            f"{prefix}.ssl.truststore.type": "PEM",
            f"{prefix}.ssl.truststore.location": str(self._authority.ca),
        }


class TlsRedis(RedisServer):
    """A Redis that speaks TLS alone and wants a user and a password; clients need no certificate."""

    def __init__(self, folder: Path, authority: Authority, host: str = LOOPBACK) -> None:
        super().__init__(folder)
        self._pair = authority.sign(host)
        self._authority = authority

    @property
    def url(self) -> str:
        """The address, without user and password."""
        return f"rediss://{LOOPBACK}:{self.port}/0"

    def _command(self) -> list[str]:
        port = str(self.port)
        tls = ["--port", "0", "--tls-port", port, "--tls-auth-clients", "no"]
        tls += ["--tls-cert-file", str(self._pair.cert), "--tls-key-file", str(self._pair.key)]
        tls += ["--tls-ca-cert-file", str(self._authority.ca)]
        # By its digest, for the password has white space in it.
        user = ["--user", USER, "on", f"#{sha256(PASSWORD.encode()).hexdigest()}", "~*", "&*", "+@all"]
        return [*super()._command(), *tls, *user, "--user", "default", "off"]

    def _client_options(self) -> dict[str, Any]:
        return {
            "username": USER,
            "password": PASSWORD,
            "ssl_ca_certs": str(self._authority.ca),
            "ssl_check_hostname": False,
        }

"""Where things are: endpoints, folders, the key. By flag, environment (``WOOLWATCH_...``) or file, in this order."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlparse

import msgspec
from msgspec import Meta

from schemas.config import Config
from schemas.errors import ConfigError
from schemas.keys import SECRET_BYTES, KeyRing
from sinks.durable_files import sync
from sinks.local_store import LocalStore
from sinks.store import Store

EARLIEST, LATEST = "earliest", "latest"
"""Where a first start begins, if not at a time."""
ENVIRONMENT_PREFIX = "WOOLWATCH_"


KafkaProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_NAMES = {"start": "from", "wait_s": "wait"}
_EPOCH_MS_DIGITS = 15
START_EXPECTED = (
    "earliest, latest, a date (2026-01-31, in UTC), a time with its zone (2026-01-31T08:00:00+08:00) or epoch "
    "milliseconds"
)
_LAST_PORT = 65_535
_SECRET_CAP = 64 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_NAMES):
    """Everything that differs between two installations of one config.

    A field's name as it is encoded (``from``, ``kafka_ca_file``) is its name in a settings file; the flag and the
    variable follow from it: ``--kafka-ca-file``, ``WOOLWATCH_KAFKA_CA_FILE``. Passwords are no settings, only the files
    that hold them are: nothing here is secret but what somebody writes into the URL of Redis.
    """

    brokers: Annotated[str, Meta(description="brokers of Kafka, host:port,host:port")] = "localhost:9092"
    kafka_protocol: Annotated[
        KafkaProtocol, Meta(description="protocol of the brokers: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    ] = "PLAINTEXT"
    kafka_ca_file: Annotated[
        str | None, Meta(description="file (PEM) of the authority that signed the brokers' certificates")
    ] = None
    kafka_cert_file: Annotated[
        str | None, Meta(description="file (PEM) of our own certificate, where Kafka asks for one")
    ] = None
    kafka_key_file: Annotated[
        str | None, Meta(description="file (PEM) of the key of our own certificate, without a passphrase")
    ] = None
    kafka_mechanism: Annotated[
        SaslMechanism, Meta(description="SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
    ] = "SCRAM-SHA-512"
    kafka_username: Annotated[str | None, Meta(description="user for SASL")] = None
    kafka_password_file: Annotated[
        str | None, Meta(description="file with the password for SASL; or WOOLWATCH_KAFKA_PASSWORD holds it")
    ] = None
    kafka_version: Annotated[
        str | None,
        Meta(
            description="version of Kafka that the brokers speak as, such as 2.3, where they do not tell it themselves",
        ),
    ] = None
    redis: Annotated[str, Meta(description="URL of Redis, redis:// or with TLS rediss://")] = (
        "redis://localhost:6379/0"
    )
    redis_ca_file: Annotated[
        str | None, Meta(description="file (PEM) of the authority that signed the certificate of Redis")
    ] = None
    redis_cert_file: Annotated[
        str | None, Meta(description="file (PEM) of our own certificate, where Redis asks for one")
    ] = None
    redis_key_file: Annotated[
        str | None, Meta(description="file (PEM) of the key of our own certificate, without a passphrase")
    ] = None
    redis_username: Annotated[str | None, Meta(description="user of Redis, where it has any")] = None
    redis_password_file: Annotated[
        str | None, Meta(description="file with the password of Redis; or WOOLWATCH_REDIS_PASSWORD holds it")
    ] = None
    out: Annotated[
        str,
        Meta(
            description="where the tables are: a folder, a file:// URI, or s3://bucket/prefix with AWS_... variables"
        ),
    ] = "out"
    state: Annotated[
        str, Meta(description="where checkpoints are: a folder that all workers share, or s3://bucket/prefix")
    ] = "state"
    config: Annotated[
        str | None, Meta(description="folder of the config (YAML); without it all is as by default")
    ] = None
    key_file: Annotated[
        str | None,
        Meta(
            description="file with the key that makes the pseudonyms; or WOOLWATCH_KEY holds it. Without both, one is "
            "made once in the user's data folder"
        ),
    ] = None
    namespace: Annotated[
        str,
        Meta(
            description="prefix of Redis keys and groups: two installations on one Kafka or Redis differ here"
        ),
    ] = "woolwatch"
    http: Annotated[
        str | None,
        Meta(
            description="host:port on which a worker serves /metrics, /healthz and /readyz; port 0 is any free one. "
            "Without it, it serves nothing"
        ),
    ] = None
    checkpoint_every: Annotated[
        int,
        Meta(
            ge=1,
            description="seconds between two checkpoints at least; what was judged since the last is judged again "
            "after a crash. A large state is written less often by itself",
        ),
    ] = 15
    start: Annotated[
        str,
        Meta(
            description="where a first start begins: earliest, latest, a date, an ISO time with its zone, or epoch ms"
        ),
    ] = EARLIEST
    wait_s: Annotated[
        float | None, Meta(description="seconds that first contact may take; 0, or forever")
    ] = 60.0
    partitions: Annotated[
        int, Meta(ge=1, description="partitions of topics that do not exist yet, 1 or more")
    ] = 4
    topics: Mapping[str, str] = {}

    @property
    def out_store(self) -> Store:
        """Where the tables are."""
        return open_store(self.out)

    @property
    def state_store(self) -> Store:
        """Where the state is."""
        return open_store(self.state, "--state")

    @property
    def state_folder(self) -> Path | None:
        """Folder of the state; None where it is in a bucket."""
        return None if urlparse(self.state).scheme == "s3" else local_folder(self.state, "--state")

    @property
    def group(self) -> str:
        """Consumer group of the engine."""
        return f"{self.namespace}-engine"

    @property
    def rollup_group(self) -> str:
        """Consumer group of the rollup."""
        return f"{self.namespace}-rollup"

    def topic(self, role: str) -> str:
        """The broker's name for a topic's role."""
        return self.topics.get(role, role)

    def role_of(self, topic: str) -> str:
        """The role of a broker's topic."""
        return next((role for role, name in self.topics.items() if name == topic), topic)

    def with_topics_of(self, config: Config) -> Settings:
        """The same settings with the config's topic names."""
        return msgspec.structs.replace(self, topics=config.topics.names())


@cache
def open_store(uri: str, flag: str = "--out") -> Store:
    """The store that a URI names; one for the whole process.

    Raises
    ------
    ConfigError
        It names none; the message says which flag is meant.
    """
    if urlparse(uri).scheme == "s3":
        from sinks.object_store import ObjectStore  # noqa: PLC0415 (a folder needs no client of a store)

        return ObjectStore(uri, flag=flag)
    return LocalStore(local_folder(uri, flag, expected="a folder, a file:// URI or s3://bucket/prefix"))


def local_folder(uri: str, flag: str, *, expected: str = "a folder or a file:// URI") -> Path:
    """The folder that a URI names.

    Raises
    ------
    ConfigError
        It is no local folder; the message says what is expected.
    """
    parsed = urlparse(uri)
    if parsed.scheme in ("", "file"):
        return Path(parsed.path if parsed.scheme else uri).expanduser().resolve()
    raise ConfigError(
        file=flag,
        path="$",
        found=f"a {parsed.scheme}:// URI",
        expected=expected,
    )


def from_environment(name: str) -> str | None:
    """The value of ``WOOLWATCH_<NAME>``; None when it is not set or empty."""
    return os.environ.get(ENVIRONMENT_PREFIX + name.upper()) or None


def http_address(text: str) -> tuple[str, int]:
    """Host and port to listen on.

    Examples
    --------
    >>> http_address("127.0.0.1:0"), http_address("[::1]:9100")
    (('127.0.0.1', 0), ('::1', 9100))

    Raises
    ------
    ConfigError
        It is no ``host:port``.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > _LAST_PORT:
        raise ConfigError(file="--http", path="$", found=text[:60], expected="host:port, such as 127.0.0.1:0")
    return host.strip("[]"), int(port)


def parse_start(text: str) -> str:
    """``earliest``, ``latest``, or a time as epoch milliseconds in digits.

    Examples
    --------
    >>> parse_start("latest"), parse_start("2026-01-01"), parse_start("2026-01-01T08:00:00+08:00")
    ('latest', '1767225600000', '1767225600000')

    Raises
    ------
    ValueError
        It is none of these; the message says what is expected.
    """
    if text in (EARLIEST, LATEST):
        return text
    if text.isascii() and text.isdigit() and len(text) <= _EPOCH_MS_DIGITS:
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"expected {START_EXPECTED}") from error
    if moment.tzinfo is None:
        if moment.isoformat() != f"{text}T00:00:00":
            raise ValueError(f"a time without its zone; expected {START_EXPECTED}")
        moment = moment.replace(tzinfo=UTC)
    if moment.timestamp() < 0:
        raise ValueError(f"a time before 1970; expected {START_EXPECTED}")
    return str(round(moment.timestamp() * 1000))


def data_folder() -> Path:
    """The user's data folder (XDG_DATA_HOME)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "woolwatch"


def secret(name: str, file: str | None) -> str | None:
    """A secret: ``WOOLWATCH_<NAME>``, else what the file holds, without white space around it; None without both.

    Raises
    ------
    ConfigError
        The file is missing, not readable or empty.
    """
    if (text := from_environment(name)) is not None:
        return text
    if file is None:
        return None
    found = read_setting_file(file, f"{name}_file").strip().decode(errors="surrogateescape")
    if not found:
        raise ConfigError(file=file, path="$", found="an empty file", expected=f"the secret of {name}_file")
    return found


def read_setting_file(file: str, name: str) -> bytes:
    """The bytes of a small file that a setting names.

    Raises
    ------
    ConfigError
        It is missing, not readable, or no small file.
    """
    path = Path(file).expanduser()
    try:
        with path.open("rb") as opened:
            found = opened.read(_SECRET_CAP + 1)
    except OSError as error:
        raise ConfigError(
            file=file, path="$", found=str(error.strerror), expected=f"a readable file, as {name} names it"
        ) from error
    if len(found) > _SECRET_CAP:
        raise ConfigError(
            file=file, path="$", found="more than 64 KiB", expected=f"a small file, as {name} names it"
        )
    return found


def load_key(key_file: str | None = None) -> KeyRing:
    """Key of the installation: ``WOOLWATCH_KEY``, else the given file, else one made once.

    Raises
    ------
    ConfigError
        The key is shorter than 16 bytes, or its file can not be read.
    """
    named = key_file or from_environment("key_file")
    if named is None and from_environment("key") is None:
        path = data_folder() / "key"
        if not path.exists():
            _make_key(path)
        named = str(path)
    place = "WOOLWATCH_KEY" if from_environment("key") is not None else str(named)
    return _ring((secret("key", named) or "").encode(errors="surrogateescape"), place)


def _ring(secret: bytes, place: str) -> KeyRing:
    if len(secret) < SECRET_BYTES:
        found, expected = f"{len(secret)} bytes", f"at least {SECRET_BYTES} bytes"
        raise ConfigError(file=place, path="$", found=found, expected=expected)
    return KeyRing(secret)


def _make_key(path: Path) -> None:
    """Make a key once; of two processes that try at the same time one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = path.with_name(f"key.{os.getpid()}.staged")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(staged, path)
    except FileExistsError:
        pass
    finally:
        staged.unlink()
    sync(path.parent)

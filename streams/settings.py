"""Where things are: endpoints, folders, the key. By flag, environment (``WOOLWATCH_...``) or file, in this order."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import msgspec

from schemas.config import Config
from schemas.errors import ConfigError
from schemas.keys import SECRET_BYTES, KeyRing
from streams.checkpoints import sync_folder

EARLIEST, LATEST = "earliest", "latest"
"""Where a first start begins, if not at a time."""
ENVIRONMENT_PREFIX = "WOOLWATCH_"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that differs between two installations of one config.

    Parameters
    ----------
    brokers
        ``host:port,host:port`` of Kafka.
    redis
        URL of Redis.
    out, state
        URIs of the sink and of the state; a folder, or ``file://``. Shared by all workers.
    config
        Folder of the config.
    namespace
        Prefix of Redis keys and of the consumer groups: two installations on one Kafka or Redis differ here.
    start
        Where a first start begins: ``earliest``, ``latest`` or epoch milliseconds.
    wait_s
        How long first contact may take; None: for ever.
    partitions
        Partitions of topics that are made because they are missing.
    """

    brokers: str = "localhost:9092"
    redis: str = "redis://localhost:6379/0"
    out: str = "out"
    state: str = "state"
    config: str = "config"
    namespace: str = "woolwatch"
    start: str = EARLIEST
    wait_s: float | None = 60.0
    partitions: int = 4
    topics: Mapping[str, str] = {}

    @property
    def out_folder(self) -> Path:
        """Folder of the tables."""
        return local_folder(self.out, "--out")

    @property
    def state_folder(self) -> Path:
        """Folder of the state."""
        return local_folder(self.state, "--state")

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
        return msgspec.structs.replace(self, topics=msgspec.structs.asdict(config.topics))


def local_folder(uri: str, flag: str) -> Path:
    """The folder that a URI names.

    Raises
    ------
    ConfigError
        It is no local folder.
    """
    parsed = urlparse(uri)
    if parsed.scheme in ("", "file"):
        return Path(parsed.path if parsed.scheme else uri).expanduser().resolve()
    raise ConfigError(
        file=flag, path="$", found=f"a {parsed.scheme}:// URI", expected="a folder or a file:// URI"
    )


def from_environment(name: str) -> str | None:
    """The value of ``WOOLWATCH_<NAME>``; None when it is not set or empty."""
    return os.environ.get(ENVIRONMENT_PREFIX + name.upper()) or None


def data_folder() -> Path:
    """The user's data folder (XDG_DATA_HOME)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "woolwatch"


def load_key() -> KeyRing:
    """Key of the installation: ``WOOLWATCH_KEY``, else the file ``WOOLWATCH_KEY_FILE``, else one made once.

    Raises
    ------
    ConfigError
        The key is shorter than 16 bytes, or its file can not be read.
    """
    if (text := from_environment("key")) is not None:
        return _ring(text.encode(), "WOOLWATCH_KEY")
    named = from_environment("key_file")
    path = Path(named) if named else data_folder() / "key"
    if not path.exists() and named is None:
        _make_key(path)
    try:
        return _ring(path.read_bytes().strip(), str(path))
    except OSError as error:
        raise ConfigError(
            file=str(path), path="$", found=f"{error.strerror}", expected="a readable file with the key"
        ) from error


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
    sync_folder(path.parent)

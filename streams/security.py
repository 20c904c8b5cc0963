"""From settings to open doors: TLS contexts, credentials for Kafka, a client for Redis."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import faust
from redis.asyncio import Redis

from schemas.errors import ConfigError
from sinks.redis_functions import connect
from streams.brokers import Brokers, Credentials
from streams.settings import Settings, read_setting_file, secret

_NO_PASSPHRASE = ""


def kafka_brokers(settings: Settings) -> Brokers:
    """The brokers, with what it takes to be let in.

    Raises
    ------
    ConfigError
        No broker is named, a file is missing or is not what it should be, or a setting says something that its
        protocol does not use.
    """
    brokers = Brokers(settings.brokers, _credentials(settings), _version(settings.kafka_version))
    try:
        _ = brokers.addresses
    except ValueError as error:
        found, expected = str(error).split("; expected ")
        raise ConfigError(file="settings", path="$.brokers", found=found, expected=expected) from error
    return brokers


def redis_client(settings: Settings) -> Redis:
    """A client of Redis that gives up soon and does not retry; it connects at its first question.

    Raises
    ------
    ConfigError
        As for :func:`kafka_brokers`.
    """
    options: dict[str, Any] = {
        "username": settings.redis_username,
        "password": secret("redis_password", settings.redis_password_file),
    }
    files = {
        "ssl_ca_certs": settings.redis_ca_file,
        "ssl_certfile": settings.redis_cert_file,
        "ssl_keyfile": settings.redis_key_file,
    }
    if settings.redis.startswith("rediss://"):
        _tls_context(settings, "redis")  # redis-py reads the files only when it connects
        options |= {**files, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
    elif any(files.values()):
        raise _unused(
            "redis_ca_file, redis_cert_file or redis_key_file", "with a URL that begins with rediss://"
        )
    try:
        return connect(settings.redis, options)
    except ValueError as error:
        raise ConfigError(
            file="--redis",
            path="$",
            found="something that is no URL of Redis",
            expected="redis://host:port/0",
        ) from error


def _version(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(
            file="--kafka-version", path="$", found=repr(text), expected="a version such as 2.3"
        )
    return tuple(map(int, parts))


def _credentials(settings: Settings) -> Credentials | None:
    tls = settings.kafka_protocol.endswith("SSL")
    files = (settings.kafka_ca_file, settings.kafka_cert_file, settings.kafka_key_file)
    if not tls and any(files):
        raise _unused(
            "kafka_ca_file, kafka_cert_file or kafka_key_file", "with kafka_protocol SSL or SASL_SSL"
        )
    context = _tls_context(settings, "kafka") if tls else None
    password = secret("kafka_password", settings.kafka_password_file)
    if not settings.kafka_protocol.startswith("SASL"):
        if settings.kafka_username is not None or password is not None:
            raise _unused("a user or password of Kafka", "with kafka_protocol SASL_SSL or SASL_PLAINTEXT")
        return None if context is None else faust.SSLCredentials(context)
    if settings.kafka_username is None or password is None:
        missing = "kafka_username" if settings.kafka_username is None else "kafka_password_file"
        raise ConfigError(
            file="settings",
            path=f"$.{missing}",
            found="nothing",
            expected=f"what kafka_protocol {settings.kafka_protocol} needs: user and password",
        )
    return faust.SASLCredentials(
        username=settings.kafka_username,
        password=password,
        mechanism=settings.kafka_mechanism,
        ssl_context=context,
    )


def _unused(found: str, expected: str) -> ConfigError:
    """A setting without effect is refused: who sets it believes in a protection that is not there."""
    return ConfigError(file="settings", path="$", found=found, expected=f"these only {expected}")


def _tls_context(settings: Settings, of: str) -> ssl.SSLContext:
    """Certificates are checked, and that they are made out to the host that we call; there is no way around."""
    ca_file, cert_file, key_file = (getattr(settings, f"{of}_{what}_file") for what in ("ca", "cert", "key"))
    try:
        context = ssl.create_default_context(cadata=_pem(ca_file, f"{of}_ca_file"))
    except ssl.SSLError as error:
        raise _no_pem(str(ca_file), f"{of}_ca_file") from error
    if key_file is not None and cert_file is None:
        raise _unused(f"{of}_key_file", f"with {of}_cert_file")
    if cert_file is not None:
        _pem(cert_file, f"{of}_cert_file")
        _pem(key_file, f"{of}_key_file")
        try:
            # Without this answer OpenSSL would ask the terminal for a passphrase.
            context.load_cert_chain(
                Path(cert_file).expanduser(),
                None if key_file is None else Path(key_file).expanduser(),
                password=lambda: _NO_PASSPHRASE,
            )
        except ssl.SSLError as error:
            raise _no_pem(
                f"{cert_file}, {key_file or cert_file}", f"{of}_cert_file and {of}_key_file"
            ) from error
    return context


def _pem(file: str | None, name: str) -> str | None:
    """The text of a PEM file; None without one."""
    return None if file is None else read_setting_file(file, name).decode(errors="replace")


def _no_pem(file: str, name: str) -> ConfigError:
    expected = (
        "certificates in PEM"
        if name.endswith("ca_file")
        else "a certificate and its key in PEM, no passphrase"
    )
    return ConfigError(file=file, path="$", found=f"something that {name} can not be", expected=expected)

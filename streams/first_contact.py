"""First contact with Kafka, Redis, and the stores of tables and state: tried again, given up where we are refused."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from schemas.errors import RefusedError, UnreachableError
from sinks.store import Store
from streams.brokers import Brokers
from streams.security import redis_client
from streams.settings import Settings

log = logging.getLogger(__name__)

CLIENT_ID = "woolwatch-first-contact"
CONNECT_TIMEOUT_S = 5.0
_ALERT_S = 1.0
_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_NOT_YET_VALID, _EXPIRED, _NAME_MISMATCH, _ADDRESS_MISMATCH = 9, 10, 62, 64
"""Of OpenSSL's X509_V_ERR_*."""


def require_listener(brokers: Brokers, *, await_alert: bool = False) -> None:
    """Return if one of the brokers listens and lets us in.

    kafka-python would try a wrong password or certificate again for as long as it may, and not say why.

    ``await_alert`` listens a second longer: under TLS 1.3 a broker refuses our certificate after the handshake.

    Raises
    ------
    RefusedError
        It fails in a way that another try will not mend.
    OSError
        Nobody listens.
    """
    failures: list[OSError] = []
    for server in brokers.addresses:
        name, _, port = server.rpartition(":")
        host = name.strip("[]")
        try:
            _knock(host, int(port), brokers, await_alert)
            if "sasl_mechanism" in brokers.auth():
                _log_in(host, int(port), brokers)
        except OSError as error:
            if reason := why_refused(error):
                raise RefusedError(f"Kafka at {server} {reason}") from error
            failures.append(error)
        else:
            return
    raise failures[0]


def _knock(host: str, port: int, brokers: Brokers, await_alert: bool) -> None:
    context = brokers.auth().get("ssl_context")
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as plain:
        if not isinstance(context, ssl.SSLContext):
            return
        with context.wrap_socket(plain, server_hostname=host) as secure:
            if not await_alert:
                return
            secure.settimeout(_ALERT_S)
            try:
                secure.recv(1)
            except TimeoutError:
                return


class _Login(AIOKafkaConnection):  # type: ignore[misc] # untyped
    """A connection that does not outlive its event loop: it is aborted, not closed in peace."""

    def close(self, reason: Any = None, exc: Any = None) -> Any:
        if self._writer is not None:
            self._writer.transport.abort()
        return super().close(reason, exc)


def _log_in(host: str, port: int, brokers: Brokers) -> None:
    async def log_in() -> None:
        timeout_ms = int(CONNECT_TIMEOUT_S * 1000)
        login = _Login(host, port, client_id=CLIENT_ID, request_timeout_ms=timeout_ms, **brokers.auth())
        try:
            await login.connect()
        finally:
            login.close()

    try:
        # In a thread of its own: the caller's may have a running loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, log_in()).result()
    except (AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError) as error:
        raise RefusedError(
            f"Kafka at {host}:{port} does not accept the user, password or mechanism"
        ) from error
    except IllegalSaslStateError as error:
        raise RefusedError(
            f"Kafka at {host}:{port} wants no user there: kafka_protocol is another one"
        ) from error
    except KafkaError as error:
        raise ConnectionError(f"no login at {host}:{port}") from error


async def reach_redis(settings: Settings) -> None:
    """Return when Redis answers.

    Raises
    ------
    RefusedError
        It does not let us in.
    UnreachableError
        It did not answer within ``settings.wait_s``.
    """
    client, place = redis_client(settings), redacted(settings.redis)
    began_s = time.monotonic()
    try:
        for pause_s in itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1])):
            try:
                await client.ping()
                return
            except (RedisError, OSError) as error:
                if reason := _why_redis_refused(error):
                    raise RefusedError(f"Redis at {place} {reason}") from error
                _give_up_in_time(f"Redis at {place}", began_s - pause_s, settings.wait_s, error)
                log.warning("Redis at %s does not answer yet, trying again", place)
                await asyncio.sleep(pause_s)
    finally:
        await client.aclose()


def reach_store(store: Store, *, writing: bool, wait_s: float | None) -> None:
    """Return when the store of tables or state answers and lets us in.

    Raises
    ------
    RefusedError
        It does not let us in, or can not do what is asked of it.
    UnreachableError
        It did not answer within ``wait_s`` seconds.
    """
    began_s = time.monotonic()
    for pause_s in itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1])):
        try:
            store.check(writing=writing)
            return
        except OSError as error:
            _give_up_in_time(f"the store of {store}", began_s - pause_s, wait_s, error)
            log.warning("the store of %s does not answer yet, trying again", store)
            time.sleep(pause_s)


def _give_up_in_time(who: str, began_s: float, wait_s: float | None, error: Exception) -> None:
    if wait_s is not None and time.monotonic() - began_s > wait_s:
        within = f"within {wait_s:g} seconds" if wait_s else "at once"
        raise UnreachableError(f"{who} did not answer {within}") from error


def _why_redis_refused(error: BaseException) -> str | None:
    for cause in _causes(error):
        if isinstance(cause, (AuthenticationError, AuthorizationError, NoPermissionError)):
            return "does not accept the user or password"
        if reason := why_refused(cause):
            return reason
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def why_refused(error: BaseException) -> str | None:
    """What a TLS handshake failed by, to stand behind a name; None where another try may succeed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (_NAME_MISMATCH, _ADDRESS_MISMATCH):
            return "shows a certificate that is made out to another host"
        if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
            return "shows a certificate that has expired or is not valid yet"
        return f"shows a certificate that is not trusted here: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return None
    reason = (error.reason or "").replace("_", " ").lower()
    if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
        return f"does not accept our certificate, or wants one: {reason}"
    return f"speaks no TLS that is understood here: {reason}"


def redacted(url: str) -> str:
    """A URL without user and password, and without its options, which may hold them, too.

    Examples
    --------
    >>> redacted("rediss://me:hidden@redis:6380/0?password=hidden")
    'rediss://redis:6380/0'
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"

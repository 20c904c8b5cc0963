"""A process that tells one channel and ends: ``python -m sinks.alert_sender PARENT``, a job in, a line out a message.

What it reads names a place on the network, so it goes there under rules that hold for the whole process, whatever
library does the talking: each host is resolved once and pinned, private and local addresses are refused unless
allowed, redirects are not followed, and no proxy is used. A process of its own can have such rules without imposing
them on others, can be killed when it hangs, and takes no secret along: the URL comes on standard input. What it
answers names no URL either.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from sinks.parentage import die_with_parent

CONNECT_S = 10.0
_WEBHOOK = ("https", "http")
_WORTH_ANOTHER_TRY = frozenset((408, 425, 429))


class Message(msgspec.Struct, frozen=True):
    """What is told: ``body`` is the alert as JSON, for programs; ``title`` and ``text`` are for people."""

    key: str
    severity: str
    title: str
    text: str
    body: str


class Job(msgspec.Struct, frozen=True):
    """Messages for one channel."""

    url: str
    secret: str | None
    allow_private: bool
    allow_plain: bool
    messages: tuple[Message, ...]


_job_decoder = msgspec.json.Decoder(Job)


class Reply(msgspec.Struct, frozen=True):
    """How one message ended; ``again``: another try may help."""

    sent: bool
    again: bool = False
    reason: str | None = None


Send = Callable[[Message], Reply]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedAddressError(OSError):
    """A host is where this channel must not go."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, also where it carries another one inside.

    Examples
    --------
    >>> [is_public(ipaddress.ip_address(text)) for text in ("8.8.8.8", "10.0.0.1", "::ffff:127.0.0.1", "2002:7f00:1::")]
    [True, False, False, False]
    """
    inner: Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or _nat64(address)
    return is_public(inner) if inner is not None else address.is_global and not address.is_multicast


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def pin_addresses(*, allow_private: bool) -> None:
    """From here on this process resolves a host once, and only to addresses where it may go."""
    resolve, pinned = socket.getaddrinfo, dict[str, list[Any]]()

    def pinned_addresses(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:  # noqa: ANN401 - as socket's
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name not in pinned:
            found = list(dict.fromkeys(entry[4][0] for entry in resolve(name, None, type=socket.SOCK_STREAM)))
            if not allow_private and not all(is_public(ipaddress.ip_address(text)) for text in found):
                raise RefusedAddressError("the address is a private one, which this channel does not allow")
            pinned[name] = found
        return [entry for text in pinned[name] for entry in resolve(text, port, *args, **kwargs)]

    socket.getaddrinfo = pinned_addresses


def _webhook(url: SplitResult, job: Job) -> Send:
    """A webhook of our own: the alert as JSON, with an idempotency key, signed."""

    def send(message: Message) -> Reply:
        connection: http.client.HTTPConnection
        host, port = url.hostname or "", url.port
        if url.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_S)
        body = message.body.encode()
        try:
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", target, body, _headers(url, job, message, body))
            return _reply_of(connection.getresponse().status)
        finally:
            connection.close()

    return send


def _headers(url: SplitResult, job: Job, message: Message, body: bytes) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "woolwatch",
        "Idempotency-Key": message.key,
    }
    if job.secret is not None:
        digest = hmac.digest(job.secret.encode(), body, hashlib.sha256).hex()
        headers["X-Woolwatch-Signature"] = f"sha256={digest}"
    if url.username is not None:
        user = f"{url.username}:{url.password or ''}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(user).decode()}"
    return headers


def _reply_of(status: int) -> Reply:
    if 200 <= status < 300:
        return Reply(sent=True)
    if 300 <= status < 400:
        return Reply(sent=False, reason=f"HTTP {status}: redirects are not followed")
    return Reply(sent=False, again=status >= 500 or status in _WORTH_ANOTHER_TRY, reason=f"HTTP {status}")


def _by_apprise(url: SplitResult, job: Job) -> Send | Reply:
    """Mail and chats: whatever Apprise knows."""
    import apprise  # noqa: PLC0415 - a webhook needs none of it
    import requests.sessions  # noqa: PLC0415 - as above

    requests.sessions.DEFAULT_REDIRECT_LIMIT = 0  # type: ignore[attr-defined]  # read at each new session
    service: Any = apprise.Apprise.instantiate(job.url, suppress_exceptions=True)
    if service is None:
        return Reply(sent=False, reason="the URL is none that Apprise knows")
    secure = service.secure_protocol or ()
    secure = (secure,) if isinstance(secure, str) else tuple(secure)
    if not job.allow_plain and (url.scheme.lower() not in secure or not service.verify_certificate):
        return Reply(sent=False, reason="the way there is unencrypted, which this channel does not allow")
    kinds = {"block": apprise.NotifyType.FAILURE, "review": apprise.NotifyType.WARNING}

    def send(message: Message) -> Reply:
        kind = kinds.get(message.severity, apprise.NotifyType.INFO)
        if service.notify(body=message.text, title=message.title, notify_type=kind):
            return Reply(sent=True)
        return Reply(sent=False, again=True, reason=f"{url.scheme}: the service did not take it")

    return send


def _way(job: Job) -> Send | Reply:
    url = urlsplit(job.url)
    if url.scheme not in _WEBHOOK:
        return _by_apprise(url, job)
    if not url.hostname:
        return Reply(sent=False, reason="the URL names no host")
    if url.scheme == "http" and not job.allow_plain:
        return Reply(sent=False, reason="the way there is unencrypted, which this channel does not allow")
    return _webhook(url, job)


def _tried(send: Send, message: Message) -> Reply:
    try:
        return send(message)
    except RefusedAddressError as error:
        return Reply(sent=False, reason=str(error))
    except ssl.SSLCertVerificationError:
        return Reply(sent=False, again=True, reason="the certificate is not to be trusted")
    except Exception as error:  # noqa: BLE001 - whatever a library raises; its text may hold the URL, so only its kind
        return Reply(sent=False, again=True, reason=type(error).__name__)


def main() -> None:
    """Do one job, as long as the parent lives."""
    die_with_parent(int(sys.argv[1]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    job = _job_decoder.decode(sys.stdin.buffer.read())
    pin_addresses(allow_private=job.allow_private)
    try:
        way = _way(job)
    except ValueError:
        way = Reply(sent=False, reason="the URL is none")
    for message in job.messages:
        reply = way if isinstance(way, Reply) else _tried(way, message)
        answers.write(msgspec.json.encode(reply) + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()

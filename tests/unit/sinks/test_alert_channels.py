"""Channels: each message signed and named, nothing where it must not go, and no secret in what is shown."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from pathlib import Path

import msgspec
import pytest

import sinks.alert_channels
from schemas.alerts import Alert
from schemas.config import AlertChannel, Alerts
from schemas.errors import ConfigError
from sinks.alert_channels import Channel, read_channels
from sinks.alert_sender import Reply, is_public
from tests.alert_receiver import made_alert, receiver

SECRET = "hidden too"  # noqa: S105 - of nothing
URL, KEY = "WOOLWATCH_ALERT_URL", "WOOLWATCH_ALERT_SECRET"
VARIABLES = {URL: "https://a.example/hidden", KEY: SECRET}
OPEN = AlertChannel(url_env="WOOLWATCH_ALERT_URL", allow_private=True, allow_plain=True)


def send(url: str, *alerts: Alert, settings: AlertChannel = OPEN, secret: str | None = None) -> list[Reply]:
    return asyncio.run(Channel("ops", settings, url, secret).send(alerts))


def test_a_webhook_gets_the_alert_itself_signed_and_with_its_key() -> None:
    alerts = [made_alert(1), made_alert(1, state="resolved")]
    with receiver() as hook:
        assert send(hook.url, *alerts, secret=SECRET) == [Reply(sent=True)] * 2
    assert [msgspec.json.decode(body, type=Alert) for _, body in hook.got] == alerts
    headers, body = hook.got[0]
    assert headers["Idempotency-Key"] == alerts[0].key
    wanted = hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()
    assert headers["X-Woolwatch-Signature"] == f"sha256={wanted}"


def test_apprise_is_given_title_text_and_key() -> None:
    with receiver() as hook:
        url = f"json://127.0.0.1:{hook.port}/hook"
        assert send(url, made_alert(), settings=msgspec.structs.replace(OPEN, language="zh")) == [
            Reply(sent=True)
        ]
    told = msgspec.json.decode(hook.got[0][1])
    assert (told["title"], told["type"]) == ("羊毛党", "warning")
    assert told["message"] == f"十二个账号\n{made_alert().key}"


@pytest.mark.parametrize(
    ("scheme", "closed"),
    [("http", "allow_private"), ("http", "allow_plain"), ("json", "allow_private"), ("json", "allow_plain")],
)
def test_nothing_goes_where_it_is_not_allowed(scheme: str, closed: str) -> None:
    settings = msgspec.structs.replace(OPEN, **{closed: False})
    with receiver() as hook:
        (reply,) = send(f"{scheme}://localhost:{hook.port}/", made_alert(), settings=settings)
    assert not reply.sent
    assert hook.got == []


@pytest.mark.parametrize("scheme", ["http", "json"])
def test_redirects_are_not_followed(scheme: str) -> None:
    with receiver() as target, receiver() as hook:
        hook.status, hook.headers = 302, {"Location": target.url}
        (reply,) = send(f"{scheme}://127.0.0.1:{hook.port}/", made_alert())
    assert not reply.sent
    assert (len(hook.got), target.got) == (1, [])


@pytest.mark.parametrize(
    ("status", "again"), [(500, True), (503, True), (429, True), (404, False), (401, False)]
)
def test_what_may_pass_is_told_from_what_will_not(status: int, *, again: bool) -> None:
    with receiver() as hook:
        hook.status = status
        assert send(hook.url, made_alert()) == [Reply(sent=False, again=again, reason=f"HTTP {status}")]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/hidden",
        "https://127.0.0.1:1/hidden",
        "nothing",
        "http://",
        "weird://hidden",
        "http://[hidden",
    ],
)
def test_a_dead_or_broken_url_is_an_answer_that_does_not_name_it(url: str) -> None:
    (reply,) = send(url, made_alert())
    assert not reply.sent
    assert reply.reason
    assert "hidden" not in reply.reason


def test_what_is_no_answer_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def chatter(job: bytes) -> bytes:
        return b"a library said hello\n" + job

    async def no_process(job: bytes) -> bytes:
        raise BlockingIOError(len(job), "no process to be had")

    for broken, reason in ((chatter, "DecodeError"), (no_process, "BlockingIOError")):
        monkeypatch.setattr(sinks.alert_channels, "_answers", broken)
        assert send(URL, made_alert(1), made_alert(2)) == [Reply(sent=False, again=True, reason=reason)] * 2


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.1.2.3", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_which_addresses_are_public(text: str, *, public: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is public


def test_urls_come_from_the_environment_or_a_file_and_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("https://b.example/hidden\n")
    alerts = Alerts(
        channels={
            "a": AlertChannel(url_env=URL, secret_env=KEY),
            "b": AlertChannel(url_file=str(file)),
        }
    )
    first, second = read_channels(alerts, VARIABLES)
    assert (first.url, first.secret) == tuple(VARIABLES.values())
    assert second.url == "https://b.example/hidden"
    assert "hidden" not in repr((first, second))
    with pytest.raises(ConfigError, match="WOOLWATCH_ALERT_SECRET"):
        read_channels(alerts, {"WOOLWATCH_ALERT_URL": "https://a.example"})
    file.unlink()
    with pytest.raises(ConfigError, match="url_file"):
        read_channels(alerts, VARIABLES)


def test_only_what_is_grave_enough_is_wanted() -> None:
    channel = Channel("ops", msgspec.structs.replace(OPEN, min_severity="block"), "http://x")
    assert [channel.wants(made_alert(severity=severity)) for severity in ("review", "block")] == [False, True]

"""Where people are told: mail, chats, webhooks, each by a process of its own for the time of telling.

Delivery: at least once, with the alert's id and state as idempotency key. URLs and secrets come from the environment
or from a file; they are in no config, no log, no process list, and in nothing that is written.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from schemas.alerts import SEVERITIES, Alert
from schemas.config import AlertChannel, Alerts
from schemas.errors import ConfigError
from sinks.alert_sender import Job, Message, Reply

SEND_S = 60.0
"""After that the process is killed; what it did not answer may be tried again."""
_MOST_URL_BYTES = 8192
_ENVIRONMENT = (
    "PATH",
    "PYTHONPATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
_SILENT = Reply(sent=False, again=True, reason="no answer in time")
_replies = msgspec.json.Decoder(Reply)


@dataclass(frozen=True)
class Channel:
    """One channel with what it needs to send.

    Parameters
    ----------
    name
        As the config has it.
    settings
        The config's.
    url, secret
        Where to, and what signs a webhook.
    """

    name: str
    settings: AlertChannel
    url: str = field(repr=False)
    secret: str | None = field(repr=False, default=None)

    def wants(self, alert: Alert) -> bool:
        """Whether the alert is grave enough."""
        return SEVERITIES.index(alert.severity) >= SEVERITIES.index(self.settings.min_severity)

    async def send(self, alerts: Sequence[Alert]) -> list[Reply]:
        """Tell, in order; a reply for each, whatever happens."""
        job = Job(
            url=self.url,
            secret=self.secret,
            allow_private=self.settings.allow_private,
            allow_plain=self.settings.allow_plain,
            messages=tuple(_message(alert, self.settings.language) for alert in alerts),
        )
        try:
            lines = (await _answers(msgspec.json.encode(job))).splitlines()
            replies = [_replies.decode(line) for line in lines[: len(alerts)]]
        except (OSError, ValueError) as error:
            # No process can be started, or it says what is no reply. DecodeError is a ValueError.
            replies = [Reply(sent=False, again=True, reason=type(error).__name__)] * len(alerts)
        return [*replies, *[_SILENT] * (len(alerts) - len(replies))]


async def _answers(job: bytes) -> bytes:
    """Run the process; what it had answered when it ended or its time was up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sinks.alert_sender", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # A library may log the URL.
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )
    answered = b""
    if process.stdin is None or process.stdout is None:
        return answered
    try:
        async with asyncio.timeout(SEND_S):
            process.stdin.write(job)
            process.stdin.write_eof()
            while (line := await process.stdout.readline()).endswith(b"\n"):
                answered += line
            await process.wait()
    except TimeoutError:
        return answered
    finally:
        # Only one that still runs: to signal one that has ended would take its end from whoever waits for it.
        if process.returncode is None:
            process.kill()
            await process.wait()
    return answered


def _message(alert: Alert, language: str) -> Message:
    titles = {"zh": alert.title_zh, "en": alert.title_en, "both": f"{alert.title_zh} / {alert.title_en}"}
    texts = {"zh": alert.text_zh, "en": alert.text_en, "both": f"{alert.text_zh}\n{alert.text_en}"}
    return Message(
        key=alert.key,
        severity=alert.severity,
        title=titles[language],
        text=f"{texts[language]}\n{alert.key}",
        body=msgspec.json.encode(alert, order="sorted").decode(),
    )


def read_channels(alerts: Alerts, environment: Mapping[str, str] | None = None) -> list[Channel]:
    """The channels of a config with their URLs and secrets.

    Raises
    ------
    ConfigError
        A variable is not set, or a file can not be read; the error names it, never what it holds.
    """
    known = os.environ if environment is None else environment
    return [
        Channel(
            name,
            settings,
            url=_url(name, settings, known),
            secret=None if settings.secret_env is None else _variable(name, settings.secret_env, known),
        )
        for name, settings in alerts.channels.items()
    ]


def _url(name: str, settings: AlertChannel, known: Mapping[str, str]) -> str:
    if settings.url_env is not None:
        return _variable(name, settings.url_env, known)
    path = Path(settings.url_file or "").expanduser()
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_URL_BYTES + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "no text"
        raise _wrong(name, "url_file", f"{path}: {found}", "a readable file that holds the URL") from error
    if not text or len(text) > _MOST_URL_BYTES:
        raise _wrong(name, "url_file", f"{path} of {len(text)} characters", "a file that holds the URL alone")
    return text


def _variable(name: str, variable: str, known: Mapping[str, str]) -> str:
    if value := known.get(variable, "").strip():
        return value
    raise _wrong(name, variable, "nothing", f"the environment variable {variable}")


def _wrong(name: str, what: str, found: str, expected: str) -> ConfigError:
    return ConfigError(file="", path=f"$.alerts.channels.{name}.{what}", found=found, expected=expected)

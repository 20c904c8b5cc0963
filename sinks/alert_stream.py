"""Alerts as a Redis stream, which any number of consumer groups read, each at its own pace (docs/REDIS.md)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from schemas.alerts import Alert
from schemas.errors import UnreachableError
from sinks.redis_functions import DEFAULT_NAMESPACE, RedisFunctions

KEPT = 10_000
"""Entries that the stream keeps at least."""
REMEMBERED = 100_000
"""Alerts whose repeats are recognised."""
_CALL_ALERTS = 500
_SENT_S = 7 * 24 * 3600

_encode = msgspec.msgpack.Encoder().encode


class AlertStream:
    """The stream ``{namespace}:alerts``.

    Delivery: each alert once in each of its states, whoever writes it how often; after Redis forgot what it had
    confirmed, what it forgot is in the tables alone.

    Parameters
    ----------
    client
        Of :func:`sinks.redis_functions.connect`.
    namespace
        Hash tag of the keys.
    """

    def __init__(self, client: Redis, *, namespace: str = DEFAULT_NAMESPACE) -> None:
        self._client = client
        self._functions = RedisFunctions(client, namespace)
        self._stream, self._told = self._functions.key("alerts"), self._functions.key("alerts", "told")

    async def add(self, alerts: Sequence[Alert]) -> int:
        """Add those that are new, in order; returns how many they were.

        Raises
        ------
        UnreachableError
            Redis did not answer, or refused; the same call may be made again.
        """
        added = 0
        for first in range(0, len(alerts), _CALL_ALERTS):
            part = alerts[first : first + _CALL_ALERTS]
            packed = _encode([[alert.key for alert in part], [_fields(alert) for alert in part]])
            added += await self._functions.add_alerts(self._stream, self._told, KEPT, REMEMBERED, packed)
        return added

    async def sent_at(self, channel: str, alert: Alert) -> int | None:
        """Offset of the record by which a channel was told of the alert in this state; None: not within a week.

        Raises
        ------
        UnreachableError
            Redis did not answer.
        """
        try:
            offset = await self._client.get(self._sent_key(channel, alert))
        except (RedisError, OSError) as error:
            raise UnreachableError(f"Redis does not answer: {error}") from error
        return None if offset is None else int(offset)

    async def note_sent(self, channel: str, alert: Alert, *, offset: int) -> None:
        """Note that a channel was told, and by which record.

        Raises
        ------
        UnreachableError
            Redis did not answer, or refused.
        """
        try:
            await self._client.set(self._sent_key(channel, alert), offset, ex=_SENT_S)
        except (RedisError, OSError) as error:
            raise UnreachableError(f"Redis does not answer: {error}") from error

    def _sent_key(self, channel: str, alert: Alert) -> str:
        return self._functions.key("alerts", "sent", channel, alert.key)


def _fields(alert: Alert) -> list[str]:
    """Fields and values in turn; null is the empty text."""
    values = msgspec.structs.asdict(alert)
    values["evidence"] = msgspec.json.encode(alert.evidence, order="sorted").decode()
    return [text for name, value in values.items() for text in (name, "" if value is None else str(value))]

"""What is in Redis, read back for whoever checks it: the counterpart of the two sinks that write there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from schemas.errors import UnreachableError
from sinks.redis import ShownVerdict
from sinks.redis_functions import DEFAULT_NAMESPACE, RedisFunctions, unreachable

_KEYS_A_CALL = 500
_DIGITS = 18
_SHOWN_KEY = 120
"""Characters of a key that a sentence shows: anybody may have made it."""
_NUMBERS = ("funnel", "dau", "retention")


class Contents(NamedTuple):
    """What stands below some keys.

    Parameters
    ----------
    entries
        By key and field; of users, whose verdict is the whole hash, by key and ``""``. None is what nobody of us wrote.
    foreign
        A sentence for each key that somebody made into another type.
    """

    entries: dict[tuple[str, str], Any]
    foreign: list[str]


_device_decoder = msgspec.json.Decoder(ShownVerdict)
_reasons_decoder = msgspec.json.Decoder(tuple[str, ...])


class RedisContents:
    """Reads the keys of one namespace, in pieces that do not hold up Redis.

    Raises, from every method, an UnreachableError when Redis does not answer, or refuses.

    Parameters
    ----------
    client
        Of :func:`sinks.redis_functions.connect`.
    namespace
        Hash tag of the keys.
    """

    def __init__(self, client: Redis, namespace: str = DEFAULT_NAMESPACE) -> None:
        self._client = client
        self.key = RedisFunctions(client, namespace).key

    async def key_fingerprint(self) -> str | None:
        """Of the key that made the pseudonyms; None while there is none."""
        with _asking():
            found = await self._client.get(self.key("key"))
        return None if found is None else _text(found)

    async def turns(self) -> dict[int, int]:
        """Of each judge partition the turn below which everything is in."""
        return await self._positions(self.key("judge", ""))

    async def rollup_positions(self) -> dict[int, int]:
        """Of each rollup partition the offset of the partials log up to which its numbers count."""
        return await self._positions(self.key("rollup", ""))

    async def _positions(self, prefix: str) -> dict[int, int]:
        found = await self._hashes(prefix)
        return {
            int(key.removeprefix(prefix)): _whole(fields.get("position", ""))
            for key, fields in found.items()
            if key.removeprefix(prefix).isdecimal() and not isinstance(fields, str)
        }

    async def shown_users(self) -> set[str]:
        """Pseudonyms of all users that something is held against."""
        return await self._names(self.key("verdict", "user", ""))

    async def shown_devices(self) -> set[str]:
        """Pseudonyms of all devices that something is held against."""
        return await self._names(self.key("verdict", "device", ""))

    async def _names(self, prefix: str) -> set[str]:
        return {_text(key).removeprefix(prefix) async for keys in self._keys(prefix) for key in keys}

    async def users(self) -> Contents:
        """What is held against users: a :class:`ShownVerdict` by key."""
        found = await self._hashes(self.key("verdict", "user", ""))
        entries = {
            (key, ""): _user_verdict(key, fields)
            for key, fields in found.items()
            if not isinstance(fields, str)
        }
        return Contents(entries, _foreign(found))

    async def devices(self) -> Contents:
        """What is held against devices: a :class:`ShownVerdict` by key and judge partition."""
        found = await self._hashes(self.key("verdict", "device", ""))
        entries = {
            (key, field): _device_verdict(value)
            for key, fields in found.items()
            if not isinstance(fields, str)
            for field, value in fields.items()
        }
        return Contents(entries, _foreign(found))

    async def numbers(self) -> Contents:
        """Funnels, daily users and retention: the text of each field."""
        entries: dict[tuple[str, str], Any] = {}
        foreign: list[str] = []
        for kind in _NUMBERS:
            async for keys in self._keys(self.key(kind, "")):
                for key in keys:
                    try:
                        with _asking():
                            async for field, value in self._client.hscan_iter(key, count=1000):
                                entries[_text(key), _text(field)] = _text(value)
                    except UnreachableError as error:
                        if not _is_wrong_type(error.__cause__):
                            raise
                        foreign.append(_no_hash(_text(key)))
        return Contents(entries, foreign)

    async def _hashes(self, prefix: str) -> dict[str, dict[str, str] | str]:
        """All hashes whose keys begin so; of what is no hash a sentence that says so."""
        found: dict[str, dict[str, str] | str] = {}
        async for keys in self._keys(prefix):
            with _asking():
                async with self._client.pipeline(transaction=False) as pipeline:
                    for key in keys:
                        pipeline.hgetall(key)
                    replies = await pipeline.execute(raise_on_error=False)
            for name, reply in zip(map(_text, keys), replies, strict=True):
                if isinstance(reply, dict):
                    if reply:  # else it went meanwhile
                        found[name] = {_text(field): _text(value) for field, value in reply.items()}
                elif _is_wrong_type(reply):
                    found[name] = _no_hash(name)
                else:
                    raise unreachable(reply)
        return found

    async def _keys(self, prefix: str) -> AsyncIterator[Sequence[bytes]]:
        """All keys that begin so, each once, some at a time."""
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
        with _asking():
            keys = {key async for key in self._client.scan_iter(pattern, count=1000)}
        names = sorted(keys)
        for first in range(0, len(names), _KEYS_A_CALL):
            yield names[first : first + _KEYS_A_CALL]


def _whole(text: str) -> int:
    """A position; what is none counts as the beginning, as for whoever writes next."""
    return int(text) if text.isdecimal() and len(text) < _DIGITS else 0


def _user_verdict(key: str, fields: dict[str, str]) -> ShownVerdict | None:
    try:
        reasons = _reasons_decoder.decode(fields.get("reasons", ""))
        user = key.rpartition(":")[2]
        return msgspec.convert({**fields, "reasons": reasons, "user": user}, ShownVerdict, strict=False)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def _device_verdict(value: str) -> ShownVerdict | None:
    try:
        return _device_decoder.decode(value)
    except msgspec.DecodeError:
        return None


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise unreachable(error) from error


def _is_wrong_type(error: object) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")


def _no_hash(key: str) -> str:
    return f"{key[:_SHOWN_KEY]} in Redis is no hash: somebody made it into something else"


def _foreign(found: dict[str, dict[str, str] | str]) -> list[str]:
    return [sentence for sentence in found.values() if isinstance(sentence, str)]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")

"""The one way to Redis: functions that check who calls and up to where everything is in, before they write.

Redis runs a function as one step, so a call is there whole or not at all, but for a server that fails in
the middle; then the position has not moved, the call comes again, and writes the same values.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeAlias, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from schemas.errors import FencedError, StateError, UnreachableError

log = logging.getLogger(__name__)

DEFAULT_NAMESPACE = "woolwatch"
_TIMEOUT_S = 5.0

Argument: TypeAlias = str | bytes | int


class ForgottenError(StateError):
    """Redis lost what it had confirmed (a restart, a failover, a flush); ``position`` is where it stands now.

    The cure is to take over again, and to write from there on.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def connect(url: str, options: Mapping[str, Any] | None = None) -> Redis:
    """A client that gives up soon and does not retry: that is for :func:`sinks.patience.patiently`.

    ``options`` are those of redis-py, for user, password and TLS.
    """
    return Redis.from_url(
        url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=None, **(options or {})
    )


class RedisFunctions:
    """Calls the functions of ``redis_functions.lua`` for the partitions of one namespace.

    Parameters
    ----------
    client
        Whose connection pool is used.
    namespace
        Hash tag of all keys: they live on one node, and two installations on one Redis differ here.
    """

    def __init__(self, client: Redis, namespace: str = DEFAULT_NAMESPACE) -> None:
        if not namespace or set(namespace) & set("{}"):
            raise ValueError("a namespace is not empty and has no braces")
        self._client = client
        self._tag = f"{{{namespace}}}"

    def key(self, *parts: str) -> str:
        """A key of the namespace."""
        return ":".join((self._tag, *parts))

    async def take_over(self, state: str, *, epoch: int, at_least: int, key_fingerprint: str) -> int:
        """Become the owner of a state hash; returns the position that it had.

        Raises
        ------
        FencedError
            A later owner was here.
        StateError
            Redis was written with another pseudonym key.
        UnreachableError
            Redis did not answer, or refused.
        """
        await self._load()
        answer, position = await self._call(
            "take_over", state, epoch, at_least, self.key("key"), key_fingerprint
        )
        if answer == "key":
            raise StateError(
                f"Redis holds {self._tag} of another key: set WOOLWATCH_KEY to the one it was made with"
            )
        _refuse(answer, state, epoch, position)
        return position

    async def position(self, state: str) -> int:
        """The position of a state hash; 0 when there is none."""
        return await self._number(state, "position") or 0

    async def lacks(self, state: str) -> int | None:
        """The first position that was skipped at a take-over and is not restored yet; None where nothing is missing."""
        return await self._number(state, "lacks")

    async def _number(self, state: str, field: str) -> int | None:
        try:
            found = await self._client.hget(state, field)
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return None if found is None else int(found)

    async def write(self, name: str, state: str, epoch: int, *arguments: Argument) -> int:
        """Call ``judge_write``, ``judge_restore`` or ``metric_write``; returns the position after it.

        Raises
        ------
        FencedError
            A later owner was here.
        ForgottenError
            Redis stands before the first of what is to be written.
        UnreachableError
            Redis did not answer, or refused; the same call may be made again.
        """
        answer, position = await self._call(name, state, epoch, *arguments)
        _refuse(answer, state, epoch, position)
        return position

    async def add_alerts(self, stream: str, *arguments: Argument) -> int:
        """Call ``alert_write``; returns how many alerts were new.

        Raises
        ------
        UnreachableError
            Redis did not answer, or refused; the same call may be made again.
        """
        _, added = await self._call("alert_write", stream, *arguments)
        return added

    async def _call(self, name: str, state: str, *arguments: Argument) -> tuple[str, int]:
        function = f"woolwatch_{name}"
        try:
            try:
                reply = await self._client.fcall(function, 1, state, *arguments)
            except ResponseError as error:
                if str(error).startswith("WOOLWATCH"):
                    raise ValueError(str(error)) from error
                if "function not found" not in str(error).lower():
                    raise
                log.warning("Redis lost the functions of woolwatch; they are loaded again")
                await self._load()
                reply = await self._client.fcall(function, 1, state, *arguments)
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        answer, position = cast("tuple[bytes, int]", reply)
        return answer.decode(), position

    async def _load(self) -> None:
        code = files("sinks").joinpath("redis_functions.lua").read_text()
        try:
            await self._client.function_load(code, replace=True)
        except (RedisError, OSError) as error:
            raise unreachable(error) from error


def _refuse(answer: str, state: str, epoch: int, position: int) -> None:
    if answer == "stale":
        raise FencedError(f"{state} has an owner of a later epoch than {epoch}")
    if answer == "forgot":
        raise ForgottenError(f"{state} stands at {position} and lost what came after", position)


def unreachable(error: Exception) -> UnreachableError:
    """WRONGTYPE, OOM, READONLY: what Redis refuses now it may take when someone has put it right."""
    said = "refuses" if isinstance(error, ResponseError) else "does not answer"
    return UnreachableError(f"Redis {said}: {error}")

"""A TCP proxy of the test's own, to cut, stall or spoil what runs between a worker and a service.

It understands one thing of Kafka's protocol: each request begins with its length and its API key, so that requests of
one kind can be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

OFFSET_COMMIT = 8
"""Kafka's API key of the request by which a group's offsets are committed."""

Result = TypeVar("Result")

_CHUNK = 1 << 16
_REQUEST_HEAD = struct.Struct(">ih")


class Proxy:
    """Forwards connections to a port of loopback, from a port of its own.

    Parameters
    ----------
    target_port
        Where to; it may be set later, before the first connection.
    port
        Where from; 0 takes a free one.
    """

    def __init__(self, target_port: int = 0, *, port: int = 0) -> None:
        self.target_port, self.port = target_port, port
        self.refused = 0
        """Requests that were not forwarded, by closing their connection."""
        self._refuse_key: int | None = None
        self._spoil: Callable[[bytes], bytes] | None = None
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen()).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Close every connection and let no new one come through while the block runs.

        Raises
        ------
        AssertionError
            There was no connection.
        """
        self._cut = True
        assert self._run(self._drop_all()).result(10) > 0, "there was no connection to cut"
        try:
            yield
        finally:
            self._cut = False

    @contextlib.contextmanager
    def refusing(self, api_key: int) -> Iterator[None]:
        """Close each connection on which such a request of Kafka's protocol comes, while the block runs."""
        self._refuse_key = api_key
        # Those that are open now may be in the middle of a request.
        self._run(self._drop_all()).result(10)
        try:
            yield
        finally:
            self._refuse_key = None

    @contextlib.contextmanager
    def spoiling(self, change: Callable[[bytes], bytes]) -> Iterator[None]:
        """Change what the service answers, chunk by chunk, while the block runs."""
        self._spoil = change
        try:
            yield
        finally:
            self._spoil = None

    def _run(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._drop_all()

    async def _drop_all(self) -> int:
        """Close all connections; returns how many ends were open."""
        writers = list(self._writers)
        for writer in writers:
            writer.close()
        return len(writers)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._cut:
                return
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(there_writer)
            try:
                await asyncio.gather(
                    self._requests(reader, there_writer), self._answers(there_reader, writer)
                )
            finally:
                self._writers.discard(there_writer)
                there_writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side left, or was made to
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read = self._chunk if self._refuse_key is None else self._request
        with contextlib.closing(writer):
            while data := await read(reader):
                writer.write(data)
                await writer.drain()

    async def _chunk(self, reader: asyncio.StreamReader) -> bytes:
        return await reader.read(_CHUNK)

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readexactly(_REQUEST_HEAD.size)
        size, api_key = _REQUEST_HEAD.unpack(head)
        if api_key == self._refuse_key:
            self.refused += 1
            return b""
        return head + await reader.readexactly(size - 2)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(_CHUNK):
                writer.write(self._spoil(data) if self._spoil else data)
                await writer.drain()

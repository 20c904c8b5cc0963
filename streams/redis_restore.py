"""What Redis forgot of one judge partition is told from the tables, while the stream goes on.

The judge remembers only turns that no checkpoint has. When Redis lacks more than those (it was restarted empty, is an
older replica or a new server), the last verdicts before them stand in ``verdicts/``. Redis itself notes from which turn
on it lacks something, until all is restored: so whoever is killed on the way is followed by the next owner.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from schemas.errors import Abandoned, FencedError, StateError
from sinks.commit_log import Entry, read_commits
from sinks.patience import patiently
from sinks.redis import LastVerdict, RedisSink
from sinks.redis_contents import RedisContents
from sinks.redis_functions import ForgottenError
from sinks.store import Store
from streams.shown_verdicts import JudgedOrder, Row, VerdictRows, device_key

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_KEYS_AT_ONCE = 50_000
"""Users or devices for which the tables are read in one go: some 50 MB."""
_ROWS_A_CALL = 250
_LOOK_AGAIN_S = 0.5
_TRY_AGAIN_S = 30.0


class RedisRestore:
    """Restores the last verdicts of one judge partition, once.

    Delivery: every user and device ends at the last verdict in judged order, or at none where that is ``pass``; those
    that are older than the time for which Redis keeps them stay away. What is written meanwhile is never undone.

    Parameters
    ----------
    sink
        Its take-over found what is lacking.
    contents, store, partition
        Redis, the tables, and whose verdicts these are.
    """

    def __init__(self, sink: RedisSink, contents: RedisContents, store: Store, partition: int) -> None:
        self._sink, self._contents, self._store, self._partition = sink, contents, store, partition
        self._stopped = threading.Event()

    async def run(self) -> None:
        """Restore all that is lacking; ends without it when somebody else has taken over."""
        lacks, began_s = self._sink.lacks, time.monotonic()
        if lacks is None:
            return
        log.warning(
            "Redis lacks verdicts of partition %d from turn %d on; they are restored from the tables",
            self._partition,
            lacks,
        )
        try:
            count = await self._restored(lacks)
        except (FencedError, ForgottenError) as error:
            log.info("partition %d: Redis is not restored by us: %s", self._partition, error)
        else:
            log.info(
                "partition %d: Redis is restored, %d users and devices, %.1f s",
                self._partition,
                count,
                time.monotonic() - began_s,
            )
        finally:
            self._stopped.set()  # a thread that still reads

    async def _restored(self, lacks: int) -> int:
        while True:
            try:
                return await self._restore(lacks)
            except ForgottenError:
                raise
            except StateError as error:  # of the tables, such as that files are compacted all the while
                log.error("partition %d: Redis is not restored yet, trying again: %s", self._partition, error)
                await asyncio.sleep(_TRY_AGAIN_S)

    async def _restore(self, lacks: int) -> int:
        until = await self._sink.begin_restoring()
        commits, moving = await self._commits(until)
        first = max((commit.first for commit in commits if commit.first <= lacks), default=0)
        rows = VerdictRows(
            self._store, moving, partition=self._partition, first=first, interrupted=self._require_going_on
        )
        order = JudgedOrder({self._partition: commits}, {self._partition: until})
        flagged = await self._read(rows.flagged)
        now_ms = min(flagged.newest_ms, int(time.time() * 1000))
        users = flagged.users | await patiently("Redis", self._contents.shown_users)
        shown = await patiently("Redis", self._contents.shown_devices)
        devices = flagged.devices | {device_key(device, self._partition) for device in shown}
        count = 0
        for some in _batches(sorted(users), _KEYS_AT_ONCE):
            found = await self._read(partial(rows.newest, set(some), set(), order))
            for verdicts in _batches(_last_verdicts(found.of_users, now_ms), _ROWS_A_CALL):
                await self._sink.restore(verdicts, [])
                count += len(verdicts)
        for some in _batches(sorted(devices), _KEYS_AT_ONCE):
            found = await self._read(partial(rows.newest, set(), set(some), order))
            for verdicts in _batches(_last_verdicts(found.of_devices, now_ms), _ROWS_A_CALL):
                await self._sink.restore([], verdicts)
                count += len(verdicts)
        await self._sink.restore([], [], is_last=True)
        return count

    async def _commits(self, until: int) -> tuple[Sequence[Entry], Sequence[tuple[str, str]]]:
        """The commits, once they have all turns that are to be restored: the tables may be some seconds behind."""
        while True:
            commits, moving = await self._read(lambda: read_commits(self._store, self._partition))
            if commits and commits[-1].next >= until:
                return commits, moving
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _read(self, read: Callable[[], Result]) -> Result:
        return await patiently("the tables", lambda: asyncio.to_thread(read))

    def _require_going_on(self) -> None:
        if self._stopped.is_set():
            raise Abandoned("nobody restores Redis any more")


def _batches(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + most] for start in range(0, len(items), most))


def _last_verdicts(found: dict[str, list[Row]], now_ms: int) -> list[LastVerdict]:
    """The last of each key in judged order, and how old it is."""
    last = ((key, max(rows, key=lambda row: row.judged).verdict) for key, rows in found.items())
    return [LastVerdict(key.partition("/")[0], verdict, max(0, now_ms - verdict.ts)) for key, verdict in last]

"""A worker on one host: checks what it needs, then runs engine and rollup, each a process of its own.

The children die with this process, also when it is killed; when one of them ends unasked the worker ends too, because
half a worker would look alive. When another config comes to stand in its folder the worker tells them. On SIGTERM or
SIGINT the engine stops first and hands on what it holds, then the rollup merges and publishes that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from schemas.config import Config
from streams.allocation import child_environment
from streams.config_watch import ConfigWatch
from streams.first_contact import reach_redis, reach_store
from streams.installation import ensure_event_topics, ensure_internal_topics
from streams.rollup import changelog_name
from streams.security import kafka_brokers
from streams.settings import Settings
from streams.status_server import serving
from streams.told import framed
from streams.topics import open_topics
from streams.vitals import PULSE_CAP, Vitals

log = logging.getLogger(__name__)

PARTS = ("engine", "rollup")
STOP_S = 26.0
"""From the signal to the end of both children, whatever is away."""
ENGINE_STOP_S = 18.0
"""Of that for the engine; the rest is the rollup's."""


class Order(msgspec.Struct, frozen=True):
    """What a child is told, besides the config."""

    settings: Settings
    partitions: int

    @classmethod
    def decode(cls, raw: bytes) -> Order:
        """Read what the worker wrote as JSON."""
        return _order_decoder.decode(raw)


_order_decoder = msgspec.json.Decoder(Order)


def end_at_once_on_signals() -> None:
    """Until :func:`run_worker` runs nothing is held, so SIGTERM and SIGINT end the process there and then.

    A wait for Kafka is in a thread, for which a polite end would have to wait.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, os._exit, 0)


async def prepare(settings: Settings) -> int:
    """Make first contact with Kafka, Redis and the stores of tables and state, and create the topics that are missing.

    Returns
    -------
    int
        Partition count of the event topics.

    Raises
    ------
    UnreachableError
        One of them did not answer within ``settings.wait_s``.
    RefusedError
        One of them does not let us in.
    StateError
        The topics' partition counts differ.
    """
    for store in (settings.out_store, settings.state_store):
        await asyncio.to_thread(reach_store, store, writing=True, wait_s=settings.wait_s)
    partitions = await asyncio.to_thread(_ensure_topics, settings)
    await reach_redis(settings)
    return partitions


def _ensure_topics(settings: Settings) -> int:
    with open_topics(kafka_brokers(settings), wait_s=settings.wait_s) as topics:
        partitions = ensure_event_topics(topics, settings)
        ensure_internal_topics(
            topics, settings, partitions=partitions, changelog=changelog_name(settings.rollup_group)
        )
    return partitions


async def run_worker(
    settings: Settings, config: Config, *, partitions: int, watch: ConfigWatch | None = None
) -> int:
    """Run engine and rollup until a signal or until one of them ends; ``watch`` tells of other configs meanwhile.

    SIGHUP makes it look for one. In a terminal it ends the worker as it does any program, for the terminal is gone.

    Returns
    -------
    int
        Exit code: 0 after a signal, else that of the child that ended.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hang_up = stop.set if watch is None or os.isatty(0) else watch.look_now
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    vitals = Vitals(PARTS, watch=watch)
    async with AsyncExitStack() as around:
        if settings.http is not None:
            await around.enter_async_context(serving(settings.http, settings.state_folder, vitals))
        told = framed(msgspec.json.encode(Order(settings, partitions))) + framed(config.to_json())
        return await _run_children(told, vitals, stop, watch)


async def _run_children(told: bytes, vitals: Vitals, stop: asyncio.Event, watch: ConfigWatch | None) -> int:
    engine, rollup = [await _start(part, told) for part in PARTS]
    telling = asyncio.create_task(_tell_changes(watch, (engine, rollup)))
    heard = [
        asyncio.create_task(vitals.listen(part, child.stdout))
        for part, child in zip(PARTS, (engine, rollup), strict=True)
        if child.stdout is not None
    ]
    ended = [asyncio.create_task(child.wait()) for child in (engine, rollup)]
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait([*ended, asked], return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        which = "engine" if ended[0].done() else "rollup"
        log.error("the %s ended by itself, the worker stops", which)
    codes = await _stop_in_order(engine, rollup)
    for task in (asked, telling, *heard):
        task.cancel()
    return next((code for code in codes if code), 0) if stop.is_set() else max(3, *codes)


async def _tell_changes(watch: ConfigWatch | None, children: Sequence[asyncio.subprocess.Process]) -> None:
    """Tell the children each new config, for ever."""
    if watch is None:
        return
    try:
        async for config in watch.changes():
            for child in children:
                if child.stdin is not None and child.returncode is None:
                    child.stdin.write(framed(config.to_json()))
    except Exception:  # whatever it was: events are judged on, by the config that runs
        log.exception("the config folder is not watched any more; a restart takes up what stands there")


async def _start(part: str, told: bytes) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streams.child",
        part,
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=PULSE_CAP,
        env=child_environment(os.environ),
        # A group of its own: Ctrl-C reaches the parent alone, which stops the children in order.
        start_new_session=True,
    )
    if child.stdin is not None:
        child.stdin.write(told)
    return child


async def _stop_in_order(
    engine: asyncio.subprocess.Process, rollup: asyncio.subprocess.Process
) -> tuple[int, int]:
    """The engine first: the rollup shows what it hands on."""
    began_s = time.monotonic()
    engine_code = await _stop(engine, ENGINE_STOP_S)
    return engine_code, await _stop(rollup, STOP_S - (time.monotonic() - began_s))


async def _stop(child: asyncio.subprocess.Process, patience_s: float) -> int:
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(patience_s):
            code = await child.wait()
            # Python itself was still starting: nothing was held.
            return 0 if code == -signal.SIGTERM else code
    except TimeoutError:
        log.warning(
            "process %d did not stop within %.0f s and is killed; nothing is lost by that",
            child.pid,
            patience_s,
        )
        child.kill()
        await child.wait()
        return 0

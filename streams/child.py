"""Entry point of the engine's and the rollup's process: ``python -m streams.child engine|rollup PARENT``.

What it needs comes on standard input, so that no secret stands in a process list. Everything heavy is imported only
after the process is tied to its parent.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from schemas.errors import StateError
from sinks.parentage import die_with_parent
from streams.kernel_cache import use_kernel_cache

if TYPE_CHECKING:
    from schemas.config import Config
    from streams.meters import Pulse
    from streams.transport import BatchApp

log = logging.getLogger(__name__)

FATAL_EXIT = 3


_asked_to_stop = False
"""Whether SIGTERM came before the event loop ran."""


def _remember_sigterm(*_: object) -> None:
    global _asked_to_stop  # noqa: PLW0603 - a signal handler has nowhere else to write
    _asked_to_stop = True


async def run(app: BatchApp, pulse: Callable[[], Pulse], finish: Callable[[], Awaitable[None]]) -> int:
    """Run a Faust app until SIGTERM or until it breaks; returns the exit code.

    ``pulse`` is told to the parent once a second.
    ``finish`` is awaited between the signal and the stop, also when the signal came before the start: an earlier
    process may have left something to finish.
    """
    from streams.pulse import beat

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if _asked_to_stop:
        stop.set()
    await app.start()
    beating = asyncio.create_task(beat(pulse))
    stopping = asyncio.create_task(stop.wait())
    broken = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait([stopping, broken], return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        log.critical("the %s app stopped by itself: %r", app.conf.id, app.crash_reason)
        return FATAL_EXIT
    await finish()
    await app.stop()
    beating.cancel()
    return 0


async def follow(told: asyncio.StreamReader, take: Callable[[Config], Awaitable[None]]) -> None:
    """Take up every config that the worker tells, as long as it lives."""
    from schemas.config import config_from_json
    from streams.told import next_message

    while (message := await next_message(told)) is not None:
        config = config_from_json(message)
        try:
            await take(config)
        except (StateError, OSError) as error:
            log.error("config %s can not be taken up, the one before it goes on: %s", config.hash, error)


async def run_part(part: str) -> int:
    """Build the engine or the rollup as the worker tells on standard input, and run it."""
    from schemas.config import config_from_json
    from streams.settings import load_key
    from streams.told import next_message, standard_input
    from streams.worker import Order

    told = await standard_input()
    first, second = await next_message(told), await next_message(told)
    if first is None or second is None:
        return FATAL_EXIT  # the worker is gone
    order, config = Order.decode(first), config_from_json(second)
    if part == "engine":
        from streams.engine import Engine

        engine = Engine(
            order.settings, config, load_key(order.settings.key_file), partitions=order.partitions
        )
        following = asyncio.create_task(follow(told, engine.take_config))
        code = await run(engine.app, engine.pulse, engine.finish)
        following.cancel()
        return code
    from streams.rollup import RollupApp

    fingerprint = load_key(order.settings.key_file).fingerprint
    rollup = RollupApp(order.settings, config, partitions=order.partitions, key_fingerprint=fingerprint)
    following = asyncio.create_task(follow(told, rollup.take_config))
    code = await run(rollup.app, rollup.pulse, rollup.finish)
    following.cancel()
    return code


def main() -> int:
    """Tie the process to its parent, read the order, run the part."""
    part, parent = sys.argv[1], int(sys.argv[2])
    die_with_parent(parent)
    signal.signal(signal.SIGTERM, _remember_sigterm)  # imports take seconds, and a stop may come meanwhile
    use_kernel_cache()
    from streams.logs import set_up_logs

    set_up_logs(part)
    return asyncio.run(run_part(part))


if __name__ == "__main__":
    sys.exit(main())

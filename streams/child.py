"""Entry point of the engine's and the rollup's process: ``python -m streams.child engine|rollup PARENT``.

What it needs comes on standard input, so that no secret stands in a process list.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import msgspec

from schemas.config import Config, config_from_json
from streams.context import FATAL_EXIT
from streams.engine import Engine
from streams.logs import set_up_logs
from streams.rollup import RollupApp
from streams.settings import Settings, load_key
from streams.transport import BatchApp
from streams.worker import die_with_parent

log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True):
    """What a child is told."""

    settings: Settings
    partitions: int


async def run(app: BatchApp, finish: signal.Signals = signal.SIGTERM) -> int:
    """Run a Faust app until it is told to stop or breaks."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(finish, stop.set)
    await app.start()
    stopping = asyncio.create_task(stop.wait())
    crashed = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait([stopping, crashed], return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        log.critical("the %s app stopped by itself: %r", app.conf.id, app.crash_reason)
        return FATAL_EXIT
    await app.stop()
    return 0


def main() -> int:
    """Read the order, build the app, run it."""
    part, parent = sys.argv[1], int(sys.argv[2])
    die_with_parent(parent)
    set_up_logs(part)
    told = sys.stdin.buffer.read()
    size = int.from_bytes(told[:8], "little")
    order = msgspec.json.decode(told[8 : 8 + size], type=Order)
    config = config_from_json(told[8 + size :])
    return asyncio.run(_run_part(part, order, config))


async def _run_part(part: str, order: Order, config: Config) -> int:
    if part == "engine":
        engine = Engine(order.settings, config, load_key(), partitions=order.partitions)
        return await run(engine.app)
    rollup = RollupApp(order.settings, partitions=order.partitions, key_fingerprint=load_key().fingerprint)
    return await run(rollup.app)


if __name__ == "__main__":
    sys.exit(main())

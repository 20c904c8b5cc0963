"""``woolwatch worker``: the engine on Kafka."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from commands.options import CONFIG, config_in, endpoints, setting, settings_of
from streams.settings import Settings, load_key


@click.command()
@CONFIG
@endpoints
@setting("--redis", default=Settings().redis, help="URL of Redis.  [default: redis://localhost:6379/0]")
@setting(
    "--out", default=Settings().out, show_default=True, help="Where the tables go (a folder or file:// URI)."
)
@setting(
    "--state",
    default=Settings().state,
    show_default=True,
    help="Where checkpoints go; shared by all workers.",
)
@setting(
    "--from",
    "start",
    default="earliest",
    show_default=True,
    help="Where a first start begins: earliest, latest, or epoch ms.",
)
def worker(config_folder: Path | None, **options: Any) -> None:
    """Judge events from Kafka until SIGTERM or Ctrl-C. Start as many as you like, with the same flags.

    \b
    woolwatch worker --config config --brokers localhost:9092 --redis redis://localhost:6379/0 --out out --state state
    """
    from streams.logs import set_up_logs
    from streams.warm_up import warm_up
    from streams.worker import end_at_once_on_signals, prepare, run_worker

    set_up_logs("worker")
    config = config_in(config_folder)
    load_key()
    warm_up()  # before partitions are taken, not within the first batch
    settings = settings_of(config, **options)

    async def run() -> int:
        end_at_once_on_signals()
        return await run_worker(settings, config, partitions=await prepare(settings))

    sys.exit(asyncio.run(run()))

"""``woolwatch worker``: the engine on Kafka."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click

from commands.options import (
    CONFIG,
    KEY_FILE,
    OUT,
    STATE,
    config_folder_in,
    endpoints,
    redis_endpoint,
    setting,
    settings_of,
)
from streams.settings import load_key

log = logging.getLogger(__name__)


@click.command()
@CONFIG
@endpoints
@redis_endpoint
@OUT
@STATE
@KEY_FILE
@setting("--http")
@setting("--checkpoint-every", type=click.IntRange(min=1))
@setting("--from", "start")
def worker(config_folder: Path | None, **options: Any) -> None:
    """Judge events from Kafka until SIGTERM or Ctrl-C. Start as many as you like, with the same flags.

    A changed config folder is taken up while events flow, within seconds (SIGHUP: at once). What is wrong is told and
    refused, and the config before it goes on. Topics, memory, lateness and alert channels need a
    restart of all workers.

    \b
    woolwatch worker --config config --brokers localhost:9092 --redis redis://localhost:6379/0 --out out --state state
    """
    from sinks.alert_channels import read_channels
    from streams.config_watch import ConfigWatch
    from streams.list_store import ListStore
    from streams.logs import set_up_logs
    from streams.warm_up import warm_up
    from streams.worker import end_at_once_on_signals, prepare, run_worker

    set_up_logs("worker")
    read = config_folder_in(config_folder, tell=log.info)
    config = read.config
    settings = settings_of(config, **options)
    ring = load_key(settings.key_file)
    read_channels(config.alerts)  # or say now what is missing
    lists = ListStore(settings.state_store, ring)
    watch = None if config_folder is None else ConfigWatch(config_folder, config, lists)
    warm_up()  # before partitions are taken, not within the first batch

    async def run() -> int:
        end_at_once_on_signals()
        partitions = await prepare(settings)
        lists.keep_all(read.lists)
        return await run_worker(settings, config, partitions=partitions, watch=watch)

    sys.exit(asyncio.run(run()))

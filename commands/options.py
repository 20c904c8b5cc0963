"""Options that several commands share, and what they make of them: config and settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from commands.progress import errors
from schemas.config import Config
from streams.settings import ENVIRONMENT_PREFIX, Settings

FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))


def setting(flag: str, *names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that is also an environment variable, WOOLWATCH_<FLAG>, for all commands alike."""
    variable = ENVIRONMENT_PREFIX + flag.removeprefix("--").upper()
    return click.option(flag, *names, envvar=variable, show_envvar=True, **attributes)


CONFIG = setting(
    "--config",
    "config_folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the config (YAML). Without it: the defaults.",
)
OUT = setting("--out", default=Settings().out, show_default=True, help="Where the tables are.")
STATE = setting("--state", default=Settings().state, show_default=True, help="Where checkpoints are.")


def endpoints(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where things are; each is also an environment variable WOOLWATCH_<NAME>."""
    defaults = Settings()
    for option in (
        setting(
            "--wait",
            default="60",
            show_default=True,
            help="Seconds that first contact may take; 0, or 'forever'.",
        ),
        setting(
            "--namespace",
            default=defaults.namespace,
            show_default=True,
            help="Prefix of Redis keys and groups.",
        ),
        setting(
            "--partitions",
            type=click.IntRange(min=1),
            default=defaults.partitions,
            show_default=True,
            help="Of topics that do not exist yet.",
        ),
        setting("--brokers", default=defaults.brokers, show_default=True, help="Kafka, host:port,host:port."),
    ):
        command = option(command)
    return command


def config_in(folder: Path | None) -> Config:
    """The config of a folder, what is worth knowing about it on standard error; without a folder the defaults."""
    from streams.config_files import read_config

    if folder is None:
        return Config()
    config, notices = read_config(folder)
    for notice in notices:
        errors.print(f"note: {notice}", markup=False)
    return config


def settings_of(config: Config, *, wait: str, **options: Any) -> Settings:
    """Settings from the options of a command."""
    wait_s = None if wait == "forever" else _seconds(wait)
    start = options.get("start", "earliest")
    if start not in ("earliest", "latest") and not start.isdigit():
        raise click.BadParameter("expected earliest, latest or epoch milliseconds", param_hint="--from")
    return Settings(wait_s=wait_s, **options).with_topics_of(config)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise click.BadParameter("expected seconds, 0 or 'forever'", param_hint="--wait")
    return seconds

"""``woolwatch check``: whether a config is good."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from commands.options import CONFIG, config_in
from commands.progress import errors
from schemas.errors import ConfigError


@click.command()
@CONFIG
def check(config_folder: Path | None) -> None:
    """Check a config; each problem with file, path, what was found and what was expected. Exit 1 if there is one.

    \b
    woolwatch check --config config
    """
    if config_folder is None or not config_folder.is_dir():
        raise click.UsageError("--config names the folder to check")
    try:
        config = config_in(config_folder)
    except ConfigError as error:
        # What was asked has its answer, and the answer is no; to the other commands it is wrong use.
        errors.print(str(error), markup=False)
        sys.exit(1)
    from sinks.alert_channels import read_channels

    try:
        read_channels(config.alerts)
    except ConfigError as error:
        # The place where a config is checked need not be the one where its secrets are.
        errors.print(f"note: a worker here could not tell that channel: {error}", markup=False)
    click.echo(
        f"good: {len(config.features)} features, {len(config.rules)} rules, {len(config.models)} models, "
        f"{len(config.funnels)} funnels; hash {config.hash}"
    )

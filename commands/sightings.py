"""``woolwatch sightings``: the log of sightings as a table."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from commands.options import CONFIG, STATE, config_in, endpoints, settings_of


@click.command()
@CONFIG
@endpoints
@STATE
@click.option("--out", "file", type=click.Path(path_type=Path), required=True, help="Parquet file to write.")
def sightings(config_folder: Path | None, file: Path, **options: Any) -> None:
    """Write the log of sightings as a table: what every shared feature was counted from, in its order.

    \b
    woolwatch sightings --brokers localhost:9092 --state state --out sightings.parquet
    """
    from streams.sightings_table import write_sightings

    rows = asyncio.run(write_sightings(settings_of(config_in(config_folder), **options), file))
    click.echo(f"{rows:,} sightings: {file}")

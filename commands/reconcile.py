"""``woolwatch reconcile``: every record accounted for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from commands.options import CONFIG, OUT, config_in, endpoints, settings_of


@click.command()
@CONFIG
@endpoints
@OUT
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def reconcile(config_folder: Path | None, as_json: bool, **options: Any) -> None:
    """Account for every record of every topic-partition; exit 1 where one is missing or doubled.

    \b
    woolwatch reconcile --brokers localhost:9092 --out out
    """
    from streams.reconcile import as_text
    from streams.reconcile import reconcile as run

    report = run(settings_of(config_in(config_folder), **options))
    click.echo(msgspec.json.encode(report).decode() if as_json else as_text(report))
    sys.exit(0 if report.holds else 1)

"""``woolwatch reconcile``: every record accounted for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from commands.options import CONFIG, OUT, config_in, endpoints, redis_endpoint, settings_of


@click.command()
@CONFIG
@endpoints
@OUT
@redis_endpoint
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.pass_context
def reconcile(context: click.Context, /, config_folder: Path | None, as_json: bool, **options: Any) -> None:
    """Account for every record of every topic-partition; exit 1 where one is missing or doubled.

    Where --redis is given, by whatever way, what Redis shows is compared with the tables, too.

    \b
    woolwatch reconcile --brokers localhost:9092 --out out
    woolwatch reconcile --brokers localhost:9092 --out out --redis redis://localhost:6379/0
    """
    from streams.reconcile import as_text
    from streams.reconcile import reconcile as run

    with_redis = context.get_parameter_source("redis") is not ParameterSource.DEFAULT
    report = run(settings_of(config_in(config_folder), **options), with_redis=with_redis)
    click.echo(msgspec.json.encode(report).decode() if as_json else as_text(report))
    sys.exit(0 if report.holds else 1)

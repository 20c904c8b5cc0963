"""``woolwatch load``: a recording into Kafka."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from commands.label_delay import LABEL_DELAY
from commands.options import CONFIG, FILES, config_in, endpoints, settings_of
from commands.progress import errors, progress


@click.command()
@FILES
@CONFIG
@endpoints
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="Keep the events' own pace, so many times as fast.",
)
@LABEL_DELAY
def load(
    files: Sequence[Path],
    config_folder: Path | None,
    rate: float | None,
    speed: float | None,
    label_delay_ms: int | None,
    **options: Any,
) -> None:
    """Publish a recording (Parquet, JSONL, CSV) to Kafka.

    \b
    woolwatch load events.parquet --brokers localhost:9092 --speed 60
    """
    from streams.load import load as run
    from streams.recordings import count_rows

    config = config_in(config_folder)
    with progress("load", count_rows(files)) as advance:
        summary = run(
            files,
            settings_of(config, **options),
            config,
            rate=rate,
            speed=speed,
            label_delay_ms=label_delay_ms,
            progress=advance,
        )
    counts = ", ".join(f"{count:,} to {topic}" for topic, count in summary.published.items())
    click.echo(f"published {counts} in {summary.seconds:.1f} s")
    if summary.odd_times:
        errors.print(
            f"{summary.odd_times:,} rows have a ts that will be rejected, the first is {summary.odd_time}; expected "
            "epoch milliseconds, or in CSV a time with its zone such as 2026-01-31T08:00:00+08:00",
            markup=False,
        )
    if summary.incomplete:
        errors.print(
            f"{summary.incomplete:,} rows will be rejected, for they have no {', '.join(summary.lacking)}; where your "
            "fields are called otherwise, the block `fields` of a config says so: --config",
            markup=False,
        )
    if summary.too_large:
        errors.print(f"{summary.too_large} rows are larger than any broker takes and were left out")
        sys.exit(1)

"""``woolwatch replay``: the core over a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from commands.label_delay import LABEL_DELAY
from commands.options import CONFIG, FILES, KEY_FILE, config_folder_in
from commands.progress import progress
from commands.settings_file import SETTINGS
from streams.settings import load_key


@click.command()
@FILES
@CONFIG
@KEY_FILE
@SETTINGS
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the tables.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1_000_000),
    default=16_384,
    show_default=True,
    help="Rows of a turn.",
)
@LABEL_DELAY
def replay(
    files: Sequence[Path],
    config_folder: Path | None,
    key_file: str | None,
    out: Path,
    batch_size: int,
    label_delay_ms: int | None,
) -> None:
    """Judge a recording (Parquet, JSONL, CSV) without a broker and write the tables.

    \b
    woolwatch replay monday.parquet tuesday.jsonl.gz --config config --out out
    """
    from streams.list_books import ListBooks
    from streams.recordings import count_rows
    from streams.replay import replay as run

    read, ring = config_folder_in(config_folder), load_key(key_file)
    lists = ListBooks(ring, read.lists.__getitem__).of(read.config)
    with progress("replay", count_rows(files)) as advance:
        summary = run(
            files,
            read.config,
            ring,
            out,
            lists=lists,
            batch_size=batch_size,
            label_delay_ms=label_delay_ms,
            progress=advance,
        )
    outcomes = summary.outcomes
    click.echo(
        f"{outcomes.consumed:,} records: {outcomes.verdicts:,} verdicts ({summary.flagged:,} of them review or block), "
        f"{outcomes.late:,} late, {outcomes.duplicates:,} duplicates, {outcomes.rejected:,} rejected"
    )
    click.echo(f"tables: {summary.out}")

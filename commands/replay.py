"""``woolwatch replay``: the core over a recording, or over recorded verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from commands.from_verdicts import TimeOption, refuse_mixtures, run_from_verdicts
from commands.label_delay import LABEL_DELAY
from commands.options import KEY_FILE, STATE, config_folder_in, setting
from commands.progress import progress
from commands.settings_file import SETTINGS
from schemas.keys import KeyRing
from streams.settings import load_key


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@setting(
    "--config",
    "config_folders",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder of the config (YAML); without it all is as by default. With --from-verdicts any number of them.",
)
@KEY_FILE
@SETTINGS
@click.option("--out", type=click.Path(path_type=Path), help="New folder for the tables.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1_000_000),
    default=16_384,
    show_default=True,
    help="Rows of a turn.",
)
@LABEL_DELAY
@click.option(
    "--from-verdicts",
    "tables",
    metavar="OUT",
    help="Judge the verdicts below this folder again, each by the config that it names, and compare.",
)
@STATE
@click.option(
    "--since", "since_ms", type=TimeOption(), help="With --from-verdicts: only events from then on."
)
@click.option("--until", "until_ms", type=TimeOption(), help="With --from-verdicts: only events before then.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --from-verdicts: also write the report to this file.",
)
@click.pass_context
def replay(
    context: click.Context,
    files: Sequence[Path],
    config_folders: Sequence[Path],
    key_file: str | None,
    out: Path | None,
    batch_size: int,
    label_delay_ms: int | None,
    tables: str | None,
    state: str,
    since_ms: int | None,
    until_ms: int | None,
    json_file: Path | None,
) -> None:
    """Judge a recording (Parquet, JSONL, CSV) without a broker and write the tables.

    \b
    woolwatch replay monday.parquet tuesday.jsonl.gz --config config --out out

    Or judge recorded verdicts again, by the configs that workers keep in their state folder or by those that are given,
    and tell whether score, level, reasons and evidence are the same to the bit: exit 0 if all are, 1 if not, 3 if a
    config is missing.

    \b
    woolwatch replay --from-verdicts out --state state
    woolwatch replay --from-verdicts out --config config --since 2026-11-11
    """
    refuse_mixtures(context, from_verdicts=tables is not None)
    ring = load_key(key_file)
    if tables is not None:
        times = {"since_ms": since_ms, "until_ms": until_ms}
        run_from_verdicts(tables, config_folders, ring, state=state, json_file=json_file, **times)
    elif out is not None:
        config_folder = config_folders[0] if config_folders else None
        _replay_recording(
            files, config_folder, ring, out, batch_size=batch_size, label_delay_ms=label_delay_ms
        )


def _replay_recording(
    files: Sequence[Path],
    config_folder: Path | None,
    ring: KeyRing,
    out: Path,
    *,
    batch_size: int,
    label_delay_ms: int | None,
) -> None:
    from streams.list_books import ListBooks
    from streams.recordings import count_rows
    from streams.replay import replay as run

    read = config_folder_in(config_folder)
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

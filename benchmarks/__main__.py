"""``python -m benchmarks``: measure, and print tables."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import checkpoints, distinct, live, parts, replays
from benchmarks.report import Table, machine
from streams.config_files import read_config

CONFIG = Path(__file__).with_name("config")
SUITES = ("parts", "replay", "live", "distinct", "checkpoints")


def _progress(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.argument("suites", nargs=-1, type=click.Choice(SUITES))
@click.option("--events", default=400_000, show_default=True, help="Events of live.")
@click.option("--recorded", default=1_000_000, show_default=True, help="Events of the recording to replay.")
@click.option("--rounds", default=3, show_default=True, help="Of replay, live and checkpoints.")
@click.option("--warm", default=300_000, show_default=True, help="Events before parts are measured.")
@click.option("--repeats", default=5, show_default=True, help="Of parts.")
@click.option(
    "--slice", "slice_events", default=40_000, show_default=True, help="Events of a repeat of parts."
)
@click.option("--workers", default=(1, 2), multiple=True, show_default=True, help="Of live; may come twice.")
@click.option("--longer", default=2_500_000, show_default=True, help="Events of checkpoints.")
@click.option("--users", default=10_000_000, show_default=True, help="Of distinct.")
@click.option("--markdown", is_flag=True, help="Tables as docs/BENCHMARKS.md has them.")
def main(
    *,
    suites: tuple[str, ...],
    events: int,
    recorded: int,
    rounds: int,
    warm: int,
    repeats: int,
    slice_events: int,
    workers: tuple[int, ...],
    longer: int,
    users: int,
    markdown: bool,
) -> None:
    """Measure woolwatch: parts of the core, replay, live beside a bare consumer; these by default.

    And ``distinct``: memory and counts under millions of users, in one process; ``checkpoints``: live with and without.

    Example: python -m benchmarks live --events 1000000 --rounds 5 --workers 1
    """
    chosen = suites or SUITES[:3]
    tables: list[Table] = []
    about = machine()
    if "parts" in chosen:
        config, _ = read_config(CONFIG)
        tables += parts.measure(
            config, warm=warm, repeats=repeats, slice_events=slice_events, report=_progress
        )
    if "replay" in chosen:
        tables += replays.measure(CONFIG, events=recorded, rounds=rounds, report=_progress)
    if "live" in chosen:
        tables += live.measure(CONFIG, events=events, rounds=rounds, workers=workers, report=_progress)
    if "distinct" in chosen:
        tables += distinct.measure(read_config(CONFIG)[0], users=users, report=_progress)
    if "checkpoints" in chosen:
        tables += checkpoints.measure(CONFIG, events=longer, rounds=rounds, report=_progress)
    click.echo(about)
    for table in tables:
        click.echo()
        click.echo(table.as_markdown() if markdown else table.as_text(), nl=False)


if __name__ == "__main__":
    main()

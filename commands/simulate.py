"""``woolwatch simulate``: a campaign as a recording, with planted wool parties."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from commands.progress import progress
from schemas.durations import parse_duration
from schemas.events import EARLIEST_TS_MS

_LATEST_START_MS = 4_102_444_800_000


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Recording to write: .parquet, .jsonl, .jsonl.gz or .jsonl.zst.",
)
@click.option("--events", type=click.IntRange(min=1), default=100_000, show_default=True, help="How many.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Same seed, same bytes."
)
@click.option(
    "--start",
    default="2026-03-02T00:00",
    show_default=True,
    help="Begin: 2026-03-02T10:00 (Shanghai), with an offset such as +00:00, or epoch ms.",
)
@click.option("--duration", default="3d", show_default=True, help="How long it runs, such as 3d or 12h.")
@click.option(
    "--break",
    "broken",
    help="A step that fails in one channel for a while: 'channel=ads, step=participate, from=44h, for=2h'.",
)
def simulate(out: Path, events: int, seed: int, start: str, duration: str, broken: str | None) -> None:
    """Make up a campaign: honest people, crowds that look suspicious, and wool parties of six kinds.

    \b
    The recording has `label` (1: planted), and beside it NAME.truth.parquet says who belongs to which party.

    \b
    woolwatch simulate --out spring.parquet --events 1000000 --seed 7
    """
    from simulation.acts import CHANNELS, EVENTS
    from simulation.breaks import parse_break
    from simulation.campaign import Campaign
    from simulation.files import truth_path, write_campaign

    start_ms, duration_ms = _start_ms(start), _duration_ms(duration)
    break_ = None
    if broken is not None:
        break_ = parse_break(broken, start_ms=start_ms, channels=CHANNELS, steps=EVENTS)
    campaign = Campaign(seed, events, start_ms, duration_ms, break_)
    with progress("simulate", events) as advance:
        rows = write_campaign(campaign.batches(), out, progress=advance)
    click.echo(f"{rows:,} events: {out}")
    click.echo(f"truth: {truth_path(out)}")


def _start_ms(text: str) -> int:
    from simulation.rhythm import TIMEZONE

    try:
        if text.isdigit():
            start_ms = int(text)
        else:
            time = datetime.fromisoformat(text)
            start_ms = int(
                (time if time.tzinfo else time.replace(tzinfo=ZoneInfo(TIMEZONE))).timestamp() * 1000
            )
    except (ValueError, OverflowError):
        start_ms = -1
    if not EARLIEST_TS_MS <= start_ms <= _LATEST_START_MS:
        expected = "a time such as 2026-03-02T10:00 or epoch milliseconds, from 2000 to 2099"
        raise click.BadParameter(f"found {text!r}; expected {expected}", param_hint="--start")
    return start_ms


def _duration_ms(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"found {text!r}; {error}", param_hint="--duration") from error

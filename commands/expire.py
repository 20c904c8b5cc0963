"""``woolwatch expire``: dates that are old enough leave the tables."""

from __future__ import annotations

import click

from commands.options import OUT
from commands.settings_file import SETTINGS
from commands.upkeep import AS_JSON, DRY_RUN, Duration, run, tell

_NOTE = "Removed for good; how many rows of which source stays in _log/, for woolwatch reconcile."


@click.command()
@OUT
@click.option(
    "--keep",
    "keep_ms",
    type=Duration(),
    required=True,
    help="What ended longer ago goes: before the newest date in the tables, and before now.",
)
@DRY_RUN
@AS_JSON
@SETTINGS
def expire(out: str, keep_ms: int, dry_run: bool, as_json: bool) -> None:
    """Remove old dates from verdicts, late, alerts and deliveries. Metrics stay; so does the state.

    May run beside workers, and be killed at any time: the next run ends what was begun. `woolwatch reconcile` knows
    what went, and still finds what is lost.

    \b
    woolwatch expire --out out --keep 90d --dry-run
    """
    from sinks.retention import plan_retention
    from streams.settings import open_store

    report = run(
        open_store(out),
        "expire",
        lambda store, now_ms: plan_retention(store, keep_ms=keep_ms, now_ms=now_ms),
        dry_run=dry_run,
    )
    tell(report, as_json=as_json, note=_NOTE, verb="expired")

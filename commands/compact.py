"""``woolwatch compact``: the small files of closed dates become few."""

from __future__ import annotations

import click

from commands.options import OUT
from commands.settings_file import SETTINGS
from commands.upkeep import AS_JSON, DRY_RUN, Duration, run, tell

_NOTE = (
    "Not atomic for readers that glob: from the moment a merged file stands until those that it replaces are removed, "
    "they see the rows of that date twice, and never fewer than all."
)


@click.command()
@OUT
@click.option(
    "--settle",
    "settle_ms",
    type=Duration(),
    default="1d",
    show_default=True,
    help="How long a date must have ended: before the newest date in the tables, and before now.",
)
@DRY_RUN
@AS_JSON
@SETTINGS
def compact(out: str, settle_ms: int, dry_run: bool, as_json: bool) -> None:
    """Merge the small files of closed dates: verdicts, late, alerts and deliveries.

    A date has one for each schema, or some of 512 MiB (on S3 128 MiB). May run beside workers, and be killed at any
    time: the next run ends what was begun. Not atomic for readers that glob: for a moment they see the rows of a date
    twice, never fewer than all. `woolwatch reconcile` sees each once.

    \b
    woolwatch compact --out out --settle 1d
    """
    from sinks.compaction import plan_compaction
    from streams.settings import open_store

    report = run(
        open_store(out),
        "compact",
        lambda store, now_ms: plan_compaction(store, settle_ms=settle_ms, now_ms=now_ms),
        dry_run=dry_run,
    )
    tell(report, as_json=as_json, note=_NOTE, verb="compacted")

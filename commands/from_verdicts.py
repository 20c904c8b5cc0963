"""``woolwatch replay --from-verdicts``: which options go with it, and what it does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from click.core import ParameterSource

from commands.options import config_folder_in
from commands.progress import progress
from schemas.keys import KeyRing
from streams.settings import EARLIEST, LATEST, Settings, parse_start

_OF_RECORDINGS = {
    "files": "FILES",
    "out": "--out",
    "batch_size": "--batch-size",
    "label_delay_ms": "--label-delay",
}
_OF_VERDICTS = {"state": "--state", "since_ms": "--since", "until_ms": "--until", "json_file": "--json"}


class TimeOption(click.ParamType):
    """A time as epoch milliseconds."""

    name = "time"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a date, a time with its zone, or epoch milliseconds."""
        if isinstance(value, int):
            return value
        expected = "expected a date, an ISO time with its zone, or epoch ms"
        try:
            start = parse_start(value)
        except ValueError:
            start = EARLIEST
        if start in (EARLIEST, LATEST):
            self.fail(f"{value!r}; {expected}", param, ctx)
        return int(start)


def refuse_mixtures(context: click.Context, *, from_verdicts: bool) -> None:
    """Refuse options of the other way to replay, and say what is missing.

    Raises
    ------
    click.UsageError
        With one sentence.
    """
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        and context.params[name] not in (None, ())
    }
    foreign = _OF_RECORDINGS if from_verdicts else _OF_VERDICTS
    if wrong := [flag for name, flag in foreign.items() if name in given]:
        raise click.UsageError(
            f"--from-verdicts reads tables that are there: it goes without {', '.join(wrong)}"
            if from_verdicts
            else f"{', '.join(wrong)} {'go' if len(wrong) > 1 else 'goes'} with --from-verdicts only"
        )
    if from_verdicts:
        return
    if missing := [_OF_RECORDINGS[name] for name in ("files", "out") if not context.params[name]]:
        raise click.UsageError(f"expected {' and '.join(missing)}, or --from-verdicts OUT")
    if len(context.params["config_folders"]) > 1:
        raise click.UsageError("a recording is judged by one --config; several go with --from-verdicts only")


def run_from_verdicts(
    tables: str,
    config_folders: Sequence[Path],
    ring: KeyRing,
    *,
    state: str,
    since_ms: int | None,
    until_ms: int | None,
    json_file: Path | None,
) -> None:
    """Judge the tables again, print the report, and end with its exit code."""
    from streams.kept_configs import KeptConfigs
    from streams.rejudge import rejudge
    from streams.rejudge_report import as_text

    places = Settings(out=tables, state=state)
    read = [config_folder_in(folder, lambda _: None) for folder in config_folders]
    kept = KeptConfigs(read, places.state_store, ring)
    with progress("judging again", None) as advance:
        report = rejudge(places.out_store, kept, ring, since_ms=since_ms, until_ms=until_ms, progress=advance)
    click.echo(as_text(report))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.encode(report) + b"\n")
    sys.exit(report.exit_code)

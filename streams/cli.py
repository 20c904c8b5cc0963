"""The ``woolwatch`` command: what people type, and nothing else.

Exit codes: 0 done; 1 the answer is no; 2 wrong use or config; 3 a component is unreachable or failed, or data was lost.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas.config import Config
from schemas.errors import ConfigError, WoolwatchError
from streams.kernel_cache import use_kernel_cache
from streams.settings import ENVIRONMENT_PREFIX, Settings, load_key

errors = Console(stderr=True, highlight=False, soft_wrap=True)

FILES = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))


def setting(flag: str, *names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that is also an environment variable, WOOLWATCH_<FLAG>, for all commands alike."""
    variable = ENVIRONMENT_PREFIX + flag.removeprefix("--").upper()
    return click.option(flag, *names, envvar=variable, show_envvar=True, **attributes)


CONFIG = setting(
    "--config",
    "config_folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the config (YAML). Without it: the defaults.",
)


def endpoints(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say where things are; each is also an environment variable WOOLWATCH_<NAME>."""
    defaults = Settings()
    for option in (
        setting(
            "--wait",
            default="60",
            show_default=True,
            help="Seconds that first contact may take; 0, or 'forever'.",
        ),
        setting(
            "--namespace",
            default=defaults.namespace,
            show_default=True,
            help="Prefix of Redis keys and groups.",
        ),
        setting(
            "--partitions",
            type=click.IntRange(min=1),
            default=defaults.partitions,
            show_default=True,
            help="Of topics that do not exist yet.",
        ),
        setting("--brokers", default=defaults.brokers, show_default=True, help="Kafka, host:port,host:port."),
    ):
        command = option(command)
    return command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="woolwatch")
def cli() -> None:
    """Watch campaigns for wool parties (羊毛党), and count what is left without them.

    \b
    Try:  woolwatch replay events.parquet --config config --out out
    """


@cli.command()
@FILES
@CONFIG
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the tables.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1_000_000),
    default=16_384,
    show_default=True,
    help="Rows of a turn.",
)
def replay(files: Sequence[Path], config_folder: Path | None, out: Path, batch_size: int) -> None:
    """Judge a recording (Parquet, JSONL, CSV) without a broker and write the tables.

    \b
    woolwatch replay monday.parquet tuesday.jsonl.gz --config config --out out
    """
    from streams.recordings import count_rows
    from streams.replay import replay as run

    config = _config(config_folder)
    with _progress("replay", count_rows(files)) as advance:
        summary = run(files, config, load_key(), out, batch_size=batch_size, progress=advance)
    outcomes = summary.outcomes
    click.echo(
        f"{outcomes.consumed:,} records: {outcomes.verdicts:,} verdicts ({summary.flagged:,} of them review or block), "
        f"{outcomes.late:,} late, {outcomes.duplicates:,} duplicates, {outcomes.rejected:,} rejected"
    )
    click.echo(f"tables: {summary.out}")


@cli.command()
@CONFIG
@endpoints
@setting("--redis", default=Settings().redis, help="URL of Redis.  [default: redis://localhost:6379/0]")
@setting(
    "--out", default=Settings().out, show_default=True, help="Where the tables go (a folder or file:// URI)."
)
@setting(
    "--state",
    default=Settings().state,
    show_default=True,
    help="Where checkpoints go; shared by all workers.",
)
@setting(
    "--from",
    "start",
    default="earliest",
    show_default=True,
    help="Where a first start begins: earliest, latest, or epoch ms.",
)
def worker(config_folder: Path | None, **options: Any) -> None:
    """Judge events from Kafka until SIGTERM or Ctrl-C. Start as many as you like, with the same flags.

    \b
    woolwatch worker --config config --brokers localhost:9092 --redis redis://localhost:6379/0 --out out --state state
    """
    from streams.logs import set_up_logs
    from streams.warm_up import warm_up
    from streams.worker import end_at_once_on_signals, prepare, run_worker

    set_up_logs("worker")
    config = _config(config_folder)
    load_key()
    warm_up()  # before partitions are taken, not within the first batch
    settings = _settings(config, **options)

    async def run() -> int:
        end_at_once_on_signals()
        return await run_worker(settings, config, partitions=await prepare(settings))

    sys.exit(asyncio.run(run()))


@cli.command()
@FILES
@CONFIG
@endpoints
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    help="Keep the events' own pace, so many times as fast.",
)
def load(
    files: Sequence[Path], config_folder: Path | None, rate: float | None, speed: float | None, **options: Any
) -> None:
    """Publish a recording (Parquet, JSONL, CSV) to Kafka.

    \b
    woolwatch load events.parquet --brokers localhost:9092 --speed 60
    """
    from streams.load import load as run
    from streams.recordings import count_rows

    config = _config(config_folder)
    with _progress("load", count_rows(files)) as advance:
        summary = run(files, _settings(config, **options), config, rate=rate, speed=speed, progress=advance)
    counts = ", ".join(f"{count:,} to {topic}" for topic, count in summary.published.items())
    click.echo(f"published {counts} in {summary.seconds:.1f} s")
    if summary.too_large:
        errors.print(f"{summary.too_large} rows are larger than any broker takes and were left out")
        sys.exit(1)


@cli.command()
@CONFIG
def check(config_folder: Path | None) -> None:
    """Check a config; each problem with file, path, what was found and what was expected. Exit 1 if there is one.

    \b
    woolwatch check --config config
    """
    if config_folder is None or not config_folder.is_dir():
        raise click.UsageError("--config names the folder to check")
    try:
        config = _config(config_folder)
    except ConfigError as error:
        # What was asked has its answer, and the answer is no; to the other commands it is wrong use.
        errors.print(str(error), markup=False)
        sys.exit(1)
    click.echo(
        f"good: {len(config.features)} features, {len(config.rules)} rules, {len(config.models)} models, "
        f"{len(config.funnels)} funnels; hash {config.hash}"
    )


@cli.command()
@CONFIG
@endpoints
@setting("--out", default=Settings().out, show_default=True, help="Where the tables are.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def reconcile(config_folder: Path | None, as_json: bool, **options: Any) -> None:
    """Account for every record of every topic-partition; exit 1 where one is missing or doubled.

    \b
    woolwatch reconcile --brokers localhost:9092 --out out
    """
    from streams.reconcile import as_text
    from streams.reconcile import reconcile as run

    report = run(_settings(_config(config_folder), **options))
    click.echo(msgspec.json.encode(report).decode() if as_json else as_text(report))
    sys.exit(0 if report.holds else 1)


@cli.command()
@CONFIG
@endpoints
@setting("--state", default=Settings().state, show_default=True, help="Where checkpoints are.")
@click.option("--out", "file", type=click.Path(path_type=Path), required=True, help="Parquet file to write.")
def sightings(config_folder: Path | None, file: Path, **options: Any) -> None:
    """Write the log of sightings as a table: what every shared feature was counted from, in its order.

    \b
    woolwatch sightings --brokers localhost:9092 --state state --out sightings.parquet
    """
    from streams.sightings_table import write_sightings

    rows = asyncio.run(write_sightings(_settings(_config(config_folder), **options), file))
    click.echo(f"{rows:,} sightings: {file}")


@cli.command()
@click.argument("kind", type=click.Choice(["user", "device", "ip"]))
@click.argument("value")
def pseudonym(kind: str, value: str) -> None:
    """Show the pseudonym under which the tables and Redis keep a user, a device or an address.

    \b
    woolwatch pseudonym user u0042
    """
    from schemas.pseudonyms import Pseudonyms

    pseudonyms = Pseudonyms(load_key())
    try:
        click.echo(pseudonyms.pseudonym(kind, value))
    except ValueError as error:
        raise click.BadParameter("expected an IPv4 or IPv6 address", param_hint="VALUE") from error


def main() -> None:
    """Run the command; our own errors end in one plain sentence and their exit code."""
    use_kernel_cache()
    try:
        cli(standalone_mode=True)
    except WoolwatchError as error:
        errors.print(str(error), markup=False)
        sys.exit(error.exit_code)


def _config(folder: Path | None) -> Config:
    from streams.config_files import read_config

    if folder is None:
        return Config()
    config, notices = read_config(folder)
    for notice in notices:
        errors.print(f"note: {notice}", markup=False)
    return config


def _settings(config: Config, *, wait: str, **options: Any) -> Settings:
    wait_s = None if wait == "forever" else _seconds(wait)
    start = options.get("start", "earliest")
    if start not in ("earliest", "latest") and not start.isdigit():
        raise click.BadParameter("expected earliest, latest or epoch milliseconds", param_hint="--from")
    return Settings(wait_s=wait_s, **options).with_topics_of(config)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise click.BadParameter("expected seconds, 0 or 'forever'", param_hint="--wait")
    return seconds


class _progress:  # noqa: N801 - used as a function, in a with statement
    """A bar on a terminal, a plain line every few seconds otherwise."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True)
        self._next_line = 1_000_000

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        self._task = self._bar.add_task(self._what, total=self._total)
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, rows: int) -> None:
        self._done += rows
        self._bar.advance(self._task, rows)
        if not errors.is_terminal and self._done >= self._next_line:
            errors.print(f"{self._what}: {self._done:,} rows", markup=False)
            self._next_line += 1_000_000

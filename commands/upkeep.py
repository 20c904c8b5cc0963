"""What ``compact`` and ``expire`` have in common: settings, the run, and the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from commands.progress import errors, progress
from schemas.durations import EXPECTED, parse_duration
from schemas.errors import StateError, WoolwatchError

if TYPE_CHECKING:
    from sinks.store import Store
    from sinks.upkeep_journal import Plan, Step

DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="The report as JSON.")

Planner = Callable[["Store", int], "Plan"]
"""Plans for a store and the wall clock in epoch ms."""


class Done(msgspec.Struct, frozen=True):
    """One date of one table: how many files became how many, and the rows in them."""

    table: str
    date: str
    files_before: int
    files_after: int
    rows: int


class UpkeepReport(msgspec.Struct, frozen=True):
    """What was done, or with ``dry_run`` would be; ``finished`` had been begun by a run that was killed."""

    dry_run: bool
    finished: tuple[Done, ...]
    done: tuple[Done, ...]
    problems: tuple[str, ...]


class Duration(click.ParamType):
    """A span of time as the config writes it, in ms."""

    name = "duration"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See :func:`schemas.durations.parse_duration`."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError:
            self.fail(f"found {value[:40]!r}; expected {EXPECTED}", param, ctx)


def run(store: Store, what: str, planner: Planner, *, dry_run: bool) -> UpkeepReport:
    """Finish, plan and carry out, alone; with ``dry_run`` only plan.

    Raises
    ------
    ConfigError
        There are no tables.
    RefusedError
        The store does not let us in.
    StateError
        Somebody else is at work, or the store failed.
    """
    from sinks.table_files import alone, require_tables
    from sinks.upkeep import carry_out, finish
    from sinks.upkeep_journal import Plan, UpkeepJournal

    now_ms = int(time.time() * 1000)
    try:
        store.check(writing=False)
        if dry_run:
            require_tables(store)
            begun = UpkeepJournal(store).begun_steps()
            # What a step that is at work leaves is known when it has ended.
            plan = planner(store, now_ms) if not begun else Plan((), ())
            return UpkeepReport(True, tuple(map(_done, begun)), tuple(map(_done, plan.steps)), plan.problems)
        with alone(store):
            with progress(f"{what}: what was left", None) as advance:
                finished, problems = finish(store, advance)
            plan = planner(store, now_ms)
            with progress(what, plan.rows) as advance:
                problems += carry_out(store, plan.steps, advance)
    except OSError as error:
        raise StateError(f"{what}: {error}; no row is lost, and the next run ends what was begun") from error
    return UpkeepReport(
        False, tuple(map(_done, finished)), tuple(map(_done, plan.steps)), (*problems, *plan.problems)
    )


def tell(report: UpkeepReport, *, as_json: bool, note: str, verb: str) -> None:
    """Print a report and end the command: exit 3 where a file could not be read or merged."""
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        click.echo(note)
        for done in report.finished:
            begun = "begun by a run before this one" + (", would be ended" if report.dry_run else ", ended")
            click.echo(f"{_line(done)} ({begun})")
        for done in report.done:
            click.echo(_line(done))
        dates = f"{len(report.done):,} date{'' if len(report.done) == 1 else 's'} of tables"
        click.echo(f"{dates} {'would be ' if report.dry_run else ''}{verb}")
    for problem in report.problems:
        errors.print(problem, markup=False)
    sys.exit(WoolwatchError.exit_code if report.problems else 0)


def _done(step: Step) -> Done:
    return Done(step.table, step.folder.removeprefix("date="), step.files_before, step.files_after, step.rows)


def _line(done: Done) -> str:
    return (
        f"{done.table} {done.date}: {done.files_before:,} -> {done.files_after:,} files, {done.rows:,} rows"
    )

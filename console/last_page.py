"""The demo's last page: what was planted, what was caught, whom it hit, and where to look further."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from console.figures import Count
from console.live_view import QUIET_STYLE, bar
from console.outcome import TRUTH_FILE, Caught, CaughtKind, Outcome, People

_BAR_WIDTH = 20


def page(outcome: Outcome) -> RenderableType:
    """Everything, some 50 lines of 80 columns."""
    return Group(
        _heading("What was planted, and what was caught"),
        _kinds(outcome.kinds),
        Text.assemble(
            f"of all caught people, planted: {outcome.precision:.1%} (precision)   "
            f"of all planted people, caught: {outcome.recall:.1%} (recall)"
        ),
        _heading("Honest people who were held back, by the crowd they stand in"),
        _crowds(outcome.crowds),
        _heading("Reasons, and how many of the people they caught were planted"),
        _reasons(outcome),
        _heading("Money that the campaign gives away"),
        _money(outcome),
        _heading("Funnel and daily users: everybody, and without the suspects"),
        _people([*outcome.funnel, *outcome.daily_users]),
        _heading("Every record accounted for"),
        Text(_account(outcome)),
    )


def where_to_look(out: Path) -> Iterator[str]:
    """Plain lines to be copied: where the tables lie, and a first question to them."""
    shown = _shown(out)
    yield f"The tables:  {shown}/  (verdicts, metrics, alerts; {TRUTH_FILE} says who was planted)"
    yield "Ask them, for example which reasons stopped whom:"
    query = (
        f"select truth_kind, reasons, count(*) from '{shown}/verdicts/**/*.parquet' "
        f"join '{shown}/{TRUTH_FILE}' using (event_id) where level = 'block' group by all order by 3 desc"
    )
    if find_spec("duckdb") is None:
        yield f"  {_shown(Path(sys.executable))} -m pip install duckdb"
    yield f'  {_shown(Path(sys.executable))} -c "import duckdb; duckdb.sql(\\"{query}\\").show()"'


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _kinds(kinds: Sequence[CaughtKind]) -> Table:
    grid = _grid("kind", "people", "caught", "recall", "precision")
    for kind in kinds:
        shown = bar(Count(kind.name, kind.users, kind.users - kind.flagged), kind.users, _BAR_WIDTH)
        grid.add_row(
            kind.name,
            f"{kind.users:,}",
            f"{kind.flagged:,}",
            f"{kind.recall:.0%}",
            f"{kind.precision:.1%}",
            shown,
        )
    return grid


def _crowds(crowds: Sequence[Caught]) -> Table:
    grid = _grid("crowd", "people", "held back", "share")
    for crowd in crowds:
        grid.add_row(crowd.name, f"{crowd.users:,}", f"{crowd.flagged:,}", f"{crowd.share:.2%}", "")
    users, flagged = (sum(getattr(crowd, name) for crowd in crowds) for name in ("users", "flagged"))
    grid.add_row("all honest people", f"{users:,}", f"{flagged:,}", f"{flagged / max(users, 1):.2%}", "")
    return grid


def _reasons(outcome: Outcome) -> Table:
    grid = _grid("reason", "people", "planted", "precision")
    for reason in outcome.reasons:
        grid.add_row(reason.name, f"{reason.users:,}", f"{reason.planted:,}", f"{reason.precision:.1%}", "")
    return grid


def _money(outcome: Outcome) -> Table:
    grid = _grid("", "amount")
    for what, amount_minor in (
        ("at stake: to planted people", outcome.planted_cost_minor),
        ("of it prevented", outcome.prevented_cost_minor),
        ("still lost", outcome.planted_cost_minor - outcome.prevented_cost_minor),
        ("held back from honest people", outcome.refused_cost_minor),
    ):
        grid.add_row(what, f"{amount_minor / 100:,.2f}", "")
    return grid


def _people(people: Sequence[People]) -> Table:
    grid = _grid("", "gross", "suspect", "clean")
    largest = max((row.gross for row in people), default=0)
    for row in people:
        shown = bar(Count(row.name, row.gross, row.suspect), largest, _BAR_WIDTH)
        grid.add_row(row.name, f"{row.gross:,}", f"{row.suspect:,}", f"{row.clean:,}", shown)
    return grid


def _account(outcome: Outcome) -> str:
    events = outcome.events
    return (
        f"{events.consumed:,} consumed = {events.verdicts:,} verdicts + {events.late:,} late + "
        f"{events.duplicates:,} duplicates + {events.rejected:,} rejected, in {outcome.seconds:.0f} s"
    )


def _grid(first: str, *numbers: str) -> Table:
    """A first column of names, columns of numbers, and one for a bar."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=22)
    for _ in numbers:
        grid.add_column(justify="right", min_width=9)
    grid.add_column()
    grid.add_row(first, *numbers, "", style=QUIET_STYLE)
    return grid


def _shown(path: Path) -> str:
    """Relative to where the command was typed, where that is shorter to read."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

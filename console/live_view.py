"""The running campaign in a terminal: one picture of a moment, drawn anew a few times a second."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from console.figures import Count, Notice

CLEAN_STYLE, SUSPECT_STYLE, QUIET_STYLE = "green", "red", "dim"
SHOWN_ALERTS = 3
"""Of two lines each; with more the view would be higher than the 24 lines that every terminal has."""
_BAR_WIDTH = 34
_FETCHED_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_PICTURE_WIDTH = 100
_LEVEL_STYLES = {"block": "bold red", "review": "yellow", "observe": "cyan"}


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known at one moment of the demo.

    Parameters
    ----------
    campaign, timezone
        Its name, and in which its days are days.
    event_time_ms
        Of the newest event that was published.
    published, total
        Events.
    events_per_s
        Published lately.
    elapsed_s
        Since the first event.
    funnel, daily_users
        As Redis has them.
    alerts
        All so far, oldest first.
    """

    campaign: str
    timezone: str
    event_time_ms: int
    published: int
    total: int
    events_per_s: float
    elapsed_s: float
    funnel: Sequence[Count]
    daily_users: Sequence[Count]
    alerts: Sequence[Notice]

    def local_time(self, time_ms: int) -> str:
        """A time of the campaign, in its own zone, to the minute."""
        return (
            datetime.fromtimestamp(time_ms / 1000, UTC)
            .astimezone(ZoneInfo(self.timezone))
            .strftime("%d %b %H:%M")
        )


def draw(moment: Moment) -> RenderableType:
    """The whole view; 24 lines of 80 columns, or fewer."""
    return Group(
        _head(moment),
        _panel("funnel: people by step 漏斗", _bars(moment.funnel)),
        _panel("daily users 日活", _bars(moment.daily_users)),
        _panel("latest alerts 最新告警", _alerts(moment)),
    )


def line(moment: Moment) -> str:
    """The same for where there is no terminal: the essence in one line."""
    parts = [
        f"{moment.elapsed_s:3.0f} s",
        f"{moment.published:,} of {moment.total:,} events",
        f"{moment.events_per_s:,.0f}/s",
        f"campaign time {moment.local_time(moment.event_time_ms)}",
    ]
    if moment.funnel:
        last = moment.funnel[-1]
        parts.append(f"{last.name}: {last.gross:,} people, {last.clean:,} clean")
    return "  ".join(parts)


def save_picture(moment: Moment, file: Path) -> None:
    """Draw the view as an SVG."""
    console = Console(record=True, width=_PICTURE_WIDTH, file=StringIO(), force_terminal=True)
    console.print(draw(moment))
    # Without the fonts that it would fetch from elsewhere: whoever looks has a monospaced one.
    drawn = _FETCHED_FONTS.sub("", console.export_svg(title="woolwatch demo"))
    file.write_text(drawn, encoding="utf-8")


def alert_line(notice: Notice, moment: Moment) -> str:
    """An alert in one plain line."""
    told = f"{notice.title_zh}  {notice.title_en}"
    return f"alert ({notice.severity}, {notice.state}) of {moment.local_time(notice.since_ms)}: {told}"


def _head(moment: Moment) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_row(
        Text.assemble(("woolwatch demo", "bold"), f"  campaign {moment.campaign} under attack"),
        Text(f"campaign time {moment.local_time(moment.event_time_ms)}"),
    )
    grid.add_row(
        Text(f"{moment.published:,} of {moment.total:,} events, {moment.events_per_s:,.0f}/s"),
        Text(f"{moment.elapsed_s:.0f} s"),
    )
    progress = Table.grid(expand=True)  # alone, the bar would end without a line's end
    progress.add_row(ProgressBar(total=moment.total, completed=moment.published))
    return Group(grid, progress)


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", border_style=QUIET_STYLE)


def _bars(counts: Sequence[Count]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=12)
    grid.add_column(width=_BAR_WIDTH)
    for name, style in (("gross", ""), ("clean", CLEAN_STYLE), ("suspect", SUSPECT_STYLE)):
        grid.add_column(name, justify="right", min_width=7, style=style)
    grid.add_row("", "", "gross", "clean", "suspect", style=QUIET_STYLE)
    largest = max((count.gross for count in counts), default=0)
    for count in counts:
        grid.add_row(
            count.name, bar(count, largest), f"{count.gross:,}", f"{count.clean:,}", f"{count.suspect:,}"
        )
    return grid


def bar(count: Count, largest: int, width: int = _BAR_WIDTH) -> Text:
    """Clean, then suspect; the bar of the largest count fills the width. Nobody who is there is without a cell."""
    whole = round(width * count.gross / largest) if largest else 0
    suspect = min(whole, max(round(width * count.suspect / largest), 1)) if count.suspect else 0
    return Text.assemble(("█" * (whole - suspect), CLEAN_STYLE), ("░" * suspect, SUSPECT_STYLE))


def _alerts(moment: Moment) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    # Whatever the titles want, when and how bad stays whole.
    grid.add_column(no_wrap=True, min_width=len("02 Mar 00:00"))
    grid.add_column(no_wrap=True, min_width=len("resolved"))
    grid.add_column()
    shown = list(reversed(moment.alerts[-SHOWN_ALERTS:]))
    for notice in shown:
        resolved = notice.state == "resolved"
        style = CLEAN_STYLE if resolved else _LEVEL_STYLES.get(notice.severity, "")
        told = notice.state if resolved else notice.severity
        grid.add_row(moment.local_time(notice.since_ms), Text(told, style), _cut(notice.title_zh))
        grid.add_row("", "", _cut(notice.title_en, QUIET_STYLE))
    for _ in range(2 * (SHOWN_ALERTS - len(shown))):  # the view keeps its height
        grid.add_row("", "", "")
    return grid


def _cut(told: str, style: str = "") -> Text:
    """One line, whatever its length; that something is missing is seen."""
    return Text(told, style, no_wrap=True, overflow="ellipsis")

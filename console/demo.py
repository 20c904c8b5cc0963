"""The demo: a campaign under attack on this machine alone, in about a minute and a half.

Starts an embedded broker, a Redis and the real worker, publishes a simulated campaign, shows what Redis has of it, and
at the end compares what the worker wrote to Parquet with what was planted.
"""

from __future__ import annotations

import math
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from redis import Redis
from rich.console import Console
from rich.live import Live

from console.children import adopt_orphans, end_all
from console.figures import Figures, Notice
from console.interruption import Interruption
from console.last_page import page, where_to_look
from console.live_view import Moment, alert_line, draw, line, save_picture
from console.outcome import TRUTH_FILE, count_events, outcome
from console.publisher import Publisher
from console.services import Services
from schemas.config import Config
from schemas.errors import ConfigError, UnreachableError
from simulation.acts import CAMPAIGN
from simulation.campaign import Campaign
from simulation.rhythm import TIMEZONE
from sinks.store import STAGING_FOLDER

START_MS = 1_772_380_800_000
"""2026-03-02 00:00 in the campaign's time zone."""
DURATION_MS = 48 * 3_600_000
_FRAMES_A_S = 4
_LINE_EVERY_S = 5.0
_COUNT_EVERY_S = 1.0
_RATE_OVER_S = 3.0
_PICTURED_AT = 0.8
_LONGEST_PATH = 90
"""Bytes; with a file's name in it, a Unix socket's path may have 107."""
_JUDGED_WITHIN_S = 120.0
"""After the last event, on a machine that has other things to do."""


@dataclass(frozen=True)
class Wish:
    """What somebody asked for.

    Parameters
    ----------
    out
        Folder that does not exist yet, for the tables.
    config_folder, config
        What the worker judges by; it has at least one funnel.
    events, seconds, seed
        Of the campaign: how many, in how long, and which one.
    json_file, picture
        Where the outcome, and the live view as SVG, go besides the screen, if anywhere.
    """

    out: Path
    config_folder: Path
    config: Config
    events: int
    seconds: float
    seed: int
    json_file: Path | None = None
    picture: Path | None = None


def run_demo(wish: Wish, console: Console, interruption: Interruption) -> None:
    """Run it; nothing of it is left when this returns but the tables, whole ones even if it was cut short.

    Raises
    ------
    UnreachableError
        A part did not start, failed or stood still.
    Interrupted
        Somebody asked it to end.
    """
    if not wish.config.funnels:
        raise ConfigError(
            file=str(wish.config_folder), path="$.funnels", found="none", expected="a funnel to show"
        )
    folder = _new_folder()
    demo = _Demo(wish, console, folder, interruption)
    try:
        try:
            demo.run()
        finally:
            interruption.disarm()
    finally:  # again, for a signal may have come just before the other
        interruption.disarm()
        console.show_cursor()
        demo.tidy_up()


def _new_folder() -> Path:
    """A name for the folder of what is temporary; the socket of Redis in it must not have too long a path."""
    bases = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - the name is drawn, the folder is ours alone
    folders = [base / f"woolwatch-{secrets.token_hex(6)}" for base in bases]
    return next((folder for folder in folders if len(bytes(folder)) <= _LONGEST_PATH), folders[-1])


class _Watch:
    """Puts together what is known at a moment."""

    def __init__(self, publisher: Publisher, figures: Figures, total: int) -> None:
        self._publisher, self._figures, self._total = publisher, figures, total
        self._began_s = time.monotonic()
        self._lately: deque[tuple[float, int]] = deque([(self._began_s, 0)])
        self._alerts: list[Notice] = []

    def look(self) -> Moment:
        now_s, published = time.monotonic(), self._publisher.published
        self._lately.append((now_s, published))
        while len(self._lately) > 2 and self._lately[1][0] < now_s - _RATE_OVER_S:
            self._lately.popleft()
        then_s, then = self._lately[0]
        self._alerts += self._figures.new_alerts()
        return Moment(
            campaign=CAMPAIGN,
            timezone=TIMEZONE,
            event_time_ms=self._publisher.event_time_ms,
            published=published,
            total=self._total,
            events_per_s=(published - then) / max(now_s - then_s, 1e-3),
            elapsed_s=now_s - self._began_s,
            funnel=self._figures.funnel(),
            daily_users=self._figures.daily_users(),
            alerts=self._alerts,
        )


class _Demo:
    def __init__(self, wish: Wish, console: Console, folder: Path, interruption: Interruption) -> None:
        self._wish, self._console, self._folder = wish, console, folder
        self._interruption = interruption
        self._publisher: Publisher | None = None
        self._funnel = next(iter(wish.config.funnels))
        self._truth = folder / TRUTH_FILE
        self._began_s = time.monotonic()

    def run(self) -> None:
        """From nothing to the last page."""
        wish = self._wish
        adopt_orphans()
        self._folder.mkdir(mode=0o700)
        wish.out.mkdir(parents=True)
        services = Services(self._folder, wish.out, wish.config_folder, wish.config)
        self._say(f"The tables go to {wish.out}")
        with self._console.status("starting broker, Redis and worker"):
            services.start()
        self._say(f"Broker, Redis and worker run after {self._elapsed_s():.0f} s; the campaign begins.")
        self._flow(services)
        with self._console.status("the worker hands on what it holds"):
            services.stop_worker()
        shutil.copyfile(self._truth, wish.out / TRUTH_FILE)
        self._show_outcome()

    def tidy_up(self) -> None:
        """Leave no process and no temporary file; keep tables if there are any."""
        if self._publisher is not None:
            self._publisher.stop()
        end_all()
        shutil.rmtree(self._folder, ignore_errors=True)
        out = self._wish.out
        if not any(out.glob("verdicts/*/*.parquet")):
            shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(out / STAGING_FOLDER, ignore_errors=True)

    def _flow(self, services: Services) -> None:
        wish, settings = self._wish, services.settings
        campaign = Campaign(wish.seed, wish.events, START_MS, DURATION_MS)
        rate = wish.events / wish.seconds
        publisher = Publisher(campaign, settings, wish.config, truth=self._truth, rate=rate)
        self._publisher = publisher
        publisher.start()
        with Redis.from_url(settings.redis) as client:
            figures = Figures(client, namespace=settings.namespace, campaign=CAMPAIGN, funnel=self._funnel)
            moments = self._pictured(
                self._moments(_Watch(publisher, figures, wish.events), publisher, services)
            )
            if self._console.is_terminal:
                self._show(moments)
            else:
                self._tell(moments)

    def _moments(self, watch: _Watch, publisher: Publisher, services: Services) -> Iterator[Moment]:
        """One every quarter of a second, until the worker has written what was published."""
        next_count_s, deadline_s = 0.0, math.inf
        while True:
            self._interruption.check()
            services.require_alive()
            yield watch.look()
            now_s = time.monotonic()
            if publisher.done and now_s >= next_count_s:
                deadline_s = min(deadline_s, now_s + _JUDGED_WITHIN_S)
                next_count_s = now_s + _COUNT_EVERY_S
                if count_events(self._wish.out).consumed >= self._wish.events:
                    return
            if now_s > deadline_s:
                raise UnreachableError(f"the worker did not judge everything within {_JUDGED_WITHIN_S:.0f} s")
            time.sleep(1 / _FRAMES_A_S)

    def _pictured(self, moments: Iterator[Moment]) -> Iterator[Moment]:
        """The same moments; the first after most of the campaign is drawn to the file, too."""
        file = self._wish.picture
        for moment in moments:
            if file is not None and moment.published >= moment.total * _PICTURED_AT:
                save_picture(moment, file)
                file = None
            yield moment

    def _show(self, moments: Iterator[Moment]) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            for moment in moments:
                live.update(draw(moment), refresh=True)

    def _tell(self, moments: Iterator[Moment]) -> None:
        told, next_line_s = 0, 0.0
        for moment in moments:
            for notice in moment.alerts[told:]:
                self._say(alert_line(notice, moment))
            told = len(moment.alerts)
            if time.monotonic() >= next_line_s:
                self._say(line(moment))
                next_line_s = time.monotonic() + _LINE_EVERY_S

    def _show_outcome(self) -> None:
        wish = self._wish
        found = outcome(wish.out, campaign=CAMPAIGN, funnel=self._funnel, seconds=self._elapsed_s())
        if wish.json_file is not None:
            wish.json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        self._console.print(page(found))
        for told in ("", *where_to_look(wish.out)):
            self._say(told)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _say(self, text: str) -> None:
        """A plain line that can be copied: not wrapped, nothing in it taken for markup."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

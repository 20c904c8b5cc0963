"""``python -m benchmarks.soak``: two workers for a long while at half of their full speed, one killed each minute.

Prints a line a minute and, at the end, whether memory stayed flat, how long recoveries took, what was on its way, and
whether every event that was sent has exactly one verdict and is counted once: by what was sent, not by what woolwatch
says of itself. A worker that ends unasked is wrong; it is started again, as a supervisor would.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.soak_feed import CYCLE, Feed
from benchmarks.soak_minutes import Minute, table, what_grew
from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore
from tests.faults.processes import children_of, memory_by_part, wait_until_gone
from tests.installation import Installation
from tests.recounts import asked, redis_equals_parquet
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

_CONFIG = Path(__file__).with_name("config")
_PARTITIONS, _WORKERS = 4, 2
_FULL_SPEED_EVENTS = 2 * CYCLE
_PATIENCE_S = 300.0
_REASONS = 20
"""Lines of its log that are shown of a worker that ends by itself."""
_MOST_ENDS = 5
"""Of workers by themselves; then it is no soak any more."""


class Soak:
    """The workers, their feed, and what is killed.

    Parameters
    ----------
    installation
        Services, folders and flags.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._workers = [installation.start_worker() for _ in range(_WORKERS)]
        self._ended: list[str] = []
        self.feed = Feed(installation)
        self.minutes: list[Minute] = []

    def full_speed(self) -> float:
        """Events a second that two workers take from a full log; the caches are warm behind it."""
        for count in (CYCLE // 4, _FULL_SPEED_EVENTS):
            self.feed.send(count)
            self.feed.flush()
            began_s = time.monotonic()
            goal, missing = self.feed.sent, self.feed.sent - self._consumed()
            self._wait_for(goal)
        return missing / (time.monotonic() - began_s)

    def minute(self) -> None:
        """One minute, or until the workers have caught up: kill one, start another, and look at memory."""
        ends_s, sent_before = time.monotonic() + 60, self.feed.sent
        self._kill(len(self.minutes) % _WORKERS)
        killed_s = time.monotonic()
        self._wait_for(self.feed.sent)
        recovery_s = time.monotonic() - killed_s
        while (left_s := ends_s - time.monotonic()) > 0:
            self._look_after()
            time.sleep(min(1.0, left_s))
        self.feed.require_alive()
        memory = [memory_by_part(worker) for worker in self._workers]
        self._look_after()
        consumed = self._consumed()
        seen = Minute(
            sent=self.feed.sent - sent_before,
            on_their_way=self.feed.sent - consumed,
            memory_mib=memory,
            recovery_s=recovery_s,
        )
        self.minutes.append(seen)
        click.echo(f"minute {len(self.minutes)}: {seen}")

    def _kill(self, victim: int) -> None:
        """Kill a worker, and start another in its place."""
        self._look_after()
        worker = self._workers[victim]
        parts = children_of(worker.pid)
        self._installation.kill(worker)
        wait_until_gone(parts)
        if worker.returncode != -signal.SIGKILL:  # it was faster
            self._look_after()
        else:
            self._workers[victim] = self._installation.start_worker()

    def _look_after(self) -> None:
        """Start again whoever has ended unasked, and remember it."""
        for place, worker in enumerate(self._workers):
            if (code := worker.poll()) is not None:
                self._ended.append(
                    f"minute {len(self.minutes) + 1}: worker {place + 1} ended by itself (exit code {code})"
                )
                lines = self._installation.log_of(worker).splitlines()
                reasons = [line for line in lines if '"level":"info"' not in line]
                click.echo("\n".join([f"{self._ended[-1]}:", *reasons[-_REASONS:]]))
                if len(self._ended) > _MOST_ENDS:
                    raise RuntimeError("workers end by themselves again and again")
                self._workers[place] = self._installation.start_worker()

    def end(self) -> list[str]:
        """Let all be judged, stop the workers, and count; returns what is wrong, a sentence each."""
        self._wait_for(self.feed.sent)
        codes = [self._installation.stop(worker) for worker in self._workers]
        out, wrong = self._installation.out, [*self._ended, *what_grew(self.minutes)]
        if any(codes):
            wrong.append(f"stopped workers ended with {codes}")
        wrong += self._installation.reconcile(with_redis=True)["problems"]
        verdicts = f"read_parquet('{out}/verdicts/**/*.parquet')"
        rows, places = asked(
            f'select count(*), count(distinct (topic, partition, "offset")) from {verdicts}'
        )[0]
        if not rows == places == self.feed.sent:
            wrong.append(f"{self.feed.sent} events were sent, {rows} verdicts of {places} records are there")
        for what, query in (
            ("verdicts", f"select event, campaign, count(*) from {verdicts} group by all"),
            (
                "metrics",
                f"select event, campaign, sum(count) from '{out}/metrics/events/*.parquet' group by all",
            ),
        ):
            counted = {(event, campaign): int(count) for event, campaign, count in asked(query)}
            if counted != self.feed.by_name:
                wrong.append(f"{what} by event and campaign are not what was sent: {counted}")
        people = asked(
            f"""select sum(users_gross)::bigint, (select count(distinct ("user", ts::date)) from {verdicts})
            from '{out}/metrics/dau/*.parquet' where dim = 'all_campaigns'"""
        )[0]
        if people[0] != people[1]:
            wrong.append(f"{people[0]} daily users are counted, {people[1]} are in the verdicts")
        try:
            redis_equals_parquet(self._installation.redis.url, self._installation.namespace, out)
        except AssertionError as error:
            wrong.append(f"Redis does not say what the tables say: {error}")
        return wrong

    def _wait_for(self, goal: int) -> None:
        def reached() -> bool:
            self._look_after()
            return self._consumed() >= goal

        wait_until(reached, self._installation.logs, patience_s=_PATIENCE_S)

    def _consumed(self) -> int:
        sources = read_accounts(LocalStore(self._installation.out)).sources
        return sum(source.outcomes.consumed for source in sources)


@click.command()
@click.option(
    "--minutes",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How long; a worker is killed in each.",
)
@click.option(
    "--rate", type=float, help="Events a second.  [default: half of the full speed, measured first]"
)
def main(minutes: int, rate: float | None) -> None:
    """Run for a long while and kill a worker each minute: flat memory, nothing lost, nothing doubled.

    Example: python -m benchmarks.soak --minutes 20
    """
    with TemporaryDirectory(prefix="woolwatch-soak-") as name:
        folder = Path(name)
        shutil.copytree(_CONFIG, folder / "config")
        with KafkaBroker(folder) as kafka, RedisServer(folder) as store:
            installation = Installation(
                folder, kafka, store, "soak-", folder / "config", partitions=_PARTITIONS
            )
            try:
                soak = Soak(installation)
                full = soak.full_speed()
                rate = rate or full / 2
                click.echo(f"full speed {full:,.0f} events/s; {rate:,.0f} events/s for {minutes} minutes")
                with soak.feed.running(rate):
                    for _ in range(minutes):
                        soak.minute()
                wrong = soak.end()
            finally:
                installation.close()
    click.echo("\n" + "\n".join(table(soak.minutes, sent=soak.feed.sent, wrong=len(wrong))))
    for sentence in wrong:
        click.echo(sentence)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()

"""``python -m benchmarks.soak``: two workers for a long while at half of their full speed, one killed each minute.

Prints a line a minute and, at the end, whether memory stayed flat, how long recoveries took, and whether every event
that was sent has exactly one verdict and is counted once: by what was sent, not by what woolwatch says of itself.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import orjson
from confluent_kafka import Producer

from benchmarks.events import EVENTS_PER_S, FIRST_MS, make_events
from schemas.events import PARTICIPATION_EVENTS
from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore
from tests.faults.processes import memory_mib, wait_for_parts, wait_until_gone
from tests.installation import Installation
from tests.recounts import asked, redis_equals_parquet
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

_CONFIG = Path(__file__).with_name("config")
_PARTITIONS, _WORKERS = 4, 2
_CYCLE = 200_000
"""Events that are sent again and again, each time as new events of a later time: so the population is bounded."""
_TIME_FACTOR = 20
"""Event time runs so much faster: windows of a day are full after some minutes, and memory has no reason to grow."""
_CHUNK = 500
_FULL_SPEED_EVENTS = 2 * _CYCLE
_PATIENCE_S = 300.0


class Feed:
    """Sends events for as long as it is asked to, and remembers how many of each name and campaign.

    Parameters
    ----------
    installation
        Where to.
    """

    def __init__(self, installation: Installation) -> None:
        self._clicks, self._participations = installation.topics("clicks", "participations")
        self._producer = Producer(
            {
                "bootstrap.servers": installation.kafka.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 20,
                "log_level": 2,
                "queue.buffering.max.messages": 2 * _CYCLE,
                "topic.metadata.propagation.max.ms": 120_000,
            }
        )
        self._rows = make_events(_CYCLE).rows(0, _CYCLE)
        self._refused: list[object] = []
        self._stop = threading.Event()
        self._sending: Future[None] | None = None
        self.sent = 0
        self.by_name: Counter[tuple[str, str]] = Counter()

    def send(self, count: int) -> None:
        """Send the next so many events as fast as Kafka takes them; returns when it has them."""
        for number in range(self.sent, self.sent + count):
            cycle, place = divmod(number, _CYCLE)
            row = self._rows[place]
            name, since_ms = row["event"], row["ts"] - FIRST_MS + cycle * _CYCLE * 1000 // EVENTS_PER_S
            event = row | {"event_id": f"e{number:010d}", "ts": FIRST_MS + _TIME_FACTOR * since_ms}
            self._producer.produce(
                self._participations if name in PARTICIPATION_EVENTS else self._clicks,
                orjson.dumps(event),
                row["user_id"],
                on_delivery=self._delivered,
            )
            self.by_name[name, row["campaign"]] += 1
        self.sent += count
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until Kafka has all that was sent."""
        if self._producer.flush(_PATIENCE_S) or self._refused:
            raise RuntimeError(f"Kafka does not take events: {self._refused[:1]}")

    def _delivered(self, error: object, _: object) -> None:
        if error is not None:
            self._refused.append(error)

    @contextmanager
    def running(self, rate: float) -> Iterator[None]:
        """Send so many events a second while the block runs; a feed that ends before is an error."""
        with ThreadPoolExecutor(1) as pool:
            self._sending = pool.submit(self._keep_sending, rate)
            try:
                yield
            finally:
                self._stop.set()
            self._sending.result(_PATIENCE_S)
        self.flush()

    def require_alive(self) -> None:
        """Raise what sending ended by, if it has ended."""
        if self._sending is not None and self._sending.done():
            self._sending.result()
            raise RuntimeError("the feed has ended by itself")

    def _keep_sending(self, rate: float) -> None:
        began_s, begins_at = time.monotonic(), self.sent
        while not self._stop.is_set():
            self.send(_CHUNK)
            ahead_s = (self.sent - begins_at) / rate - (time.monotonic() - began_s)
            self._stop.wait(max(0.0, ahead_s))


@dataclass
class Minutes:
    """What was seen, minute by minute."""

    memory_mib: list[float] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)

    def growth(self) -> float:
        """Of memory over the second half, in percent of its middle, by a straight line through its minutes."""
        half = np.array(self.memory_mib[len(self.memory_mib) // 2 :])
        if len(half) < 2:
            return 0.0
        slope = np.polyfit(np.arange(len(half)), half, 1)[0]
        return float(100 * slope * (len(half) - 1) / np.median(half))


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
        self._parts = [wait_for_parts(worker) for worker in self._workers]
        self.feed = Feed(installation)
        self.minutes = Minutes()

    def full_speed(self) -> float:
        """Events a second that two workers take from a full log; the caches are warm behind it."""
        for count in (_CYCLE // 4, _FULL_SPEED_EVENTS):
            self.feed.send(count)
            self.feed.flush()
            began_s = time.monotonic()
            goal, missing = self.feed.sent, self.feed.sent - self._consumed()
            self._wait_for(goal)
        return missing / (time.monotonic() - began_s)

    def minute(self, number: int) -> None:
        """One minute, or until the workers have caught up: kill one, start another, and look at memory."""
        ends_s = time.monotonic() + 60
        victim = number % _WORKERS
        self._installation.kill(self._workers[victim])
        wait_until_gone(self._parts[victim])
        killed_s, goal = time.monotonic(), self.feed.sent
        self._workers[victim] = self._installation.start_worker()
        self._wait_for(goal)
        self.minutes.recovery_s.append(time.monotonic() - killed_s)
        self._parts[victim] = wait_for_parts(self._workers[victim])
        time.sleep(max(0.0, ends_s - time.monotonic()))
        self.feed.require_alive()
        self.minutes.memory_mib.append(sum(map(memory_mib, self._workers)))
        click.echo(
            f"minute {number + 1}: {self.feed.sent:,} sent, {self.feed.sent - self._consumed():,} on their way, "
            f"{self.minutes.memory_mib[-1]:,.0f} MiB, recovered in {self.minutes.recovery_s[-1]:.0f} s"
        )

    def end(self) -> list[str]:
        """Let all be judged, stop the workers, and count; returns what is wrong, a sentence each."""
        self._wait_for(self.feed.sent)
        codes = [self._installation.stop(worker) for worker in self._workers]
        out, wrong = self._installation.out, []
        if any(codes):
            wrong.append(f"stopped workers ended with {codes}")
        wrong += self._installation.reconcile()["problems"]
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
        redis_equals_parquet(self._installation.redis.url, self._installation.namespace, out)
        return wrong

    def _wait_for(self, goal: int) -> None:
        wait_until(lambda: self._consumed() >= goal, self._installation.logs, patience_s=_PATIENCE_S)

    def _consumed(self) -> int:
        sources = read_accounts(LocalStore(self._installation.out)).sources
        return sum(source.outcomes.consumed for source in sources)


@click.command()
@click.option("--minutes", default=20, show_default=True, help="How long; a worker is killed in each.")
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
                    for number in range(minutes):
                        soak.minute(number)
                wrong = soak.end()
            finally:
                installation.close()
    seen = soak.minutes
    click.echo("\n| events | kills | recovery, s | memory, MiB | growth in the second half | wrong |")
    click.echo("|--:|--:|--:|--:|--:|---|")
    click.echo(
        f"| {soak.feed.sent:,} | {minutes} | {np.median(seen.recovery_s):.0f} "
        f"[{min(seen.recovery_s):.0f}..{max(seen.recovery_s):.0f}] | {np.median(seen.memory_mib):,.0f} "
        f"[{min(seen.memory_mib):,.0f}..{max(seen.memory_mib):,.0f}] | {seen.growth():+.1f} % | {len(wrong)} |"
    )
    for sentence in wrong:
        click.echo(sentence)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()

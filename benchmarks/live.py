"""Events a second from Kafka to verdicts and counts, beside a bare consumer over the same topics.

Contenders take turns, so that a noisy minute meets them all; shares are of the floor of the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import floor, topics, worker
from benchmarks.events import Events, make_events
from benchmarks.outcome import Outcome
from benchmarks.report import Table, spread
from streams.config_files import read_config
from tests.services import KafkaBroker, RedisServer

FLOOR = "floor: confluent-kafka, tuned, and orjson"
_WARM_EVENTS = 20_000

Rounds = dict[str, list[Outcome]]


def measure(
    config: Path, *, events: int, rounds: int, workers: Sequence[int], report: Callable[[str], None]
) -> list[Table]:
    """Load the events once, then let every contender take them, round by round."""
    with loaded(config, events=events, report=report) as (setting, folder):
        found = _take_turns(setting, folder, rounds, workers, report)
    return [_table(found, events, rounds)]


@contextmanager
def loaded(
    config: Path, *, events: int, report: Callable[[str], None]
) -> Iterator[tuple[worker.Setting, Path]]:
    """Kafka with so many events in it, Redis, a folder for runs, and a first run behind that warmed caches."""
    with TemporaryDirectory(prefix="woolwatch-bench-") as name:
        folder = Path(name)
        with KafkaBroker(folder) as kafka, RedisServer(folder) as store:

            def load(made: Events, run: str) -> worker.Setting:
                names = topics.names_of(("clicks", "participations"), run)
                topics.create(kafka.bootstrap, names.values())
                topics.load(kafka.bootstrap, made, read_config(config)[0], names)
                return worker.Setting(kafka, store, made, names, config)

            report("warming up")
            worker.measure(load(make_events(_WARM_EVENTS), "warm"), fresh(folder, "warm-up"), workers=1)
            report(f"loading {events:,} events")
            yield load(make_events(events), "bench"), folder


def _take_turns(
    setting: worker.Setting, folder: Path, rounds: int, workers: Sequence[int], report: Callable[[str], None]
) -> Rounds:
    found: Rounds = {}
    for number in range(rounds):
        outcome = floor.measure(setting.kafka.bootstrap, len(setting.events), [*setting.topics.values()])
        found.setdefault(FLOOR, []).append(outcome)
        report(f"live: round {number}, floor: {outcome.events_per_s:,.0f} events/s")
        for count in workers:
            run = fresh(folder, f"run-{number}-{count}")
            outcome = worker.measure(setting, run, workers=count)
            found.setdefault(f"woolwatch, {count} worker{'s' * (count > 1)}", []).append(outcome)
            report(f"live: round {number}, {count} worker(s): {outcome.events_per_s:,.0f} events/s")
    return found


def fresh(folder: Path, name: str) -> Path:
    """A new folder for a run, which is named by it."""
    made = folder / name
    made.mkdir()
    return made


def _table(found: Rounds, events: int, rounds: int) -> Table:
    floors = found[FLOOR]
    return Table(
        title=f"Live, {events:,} events in two topics of {topics.PARTITIONS} partitions",
        head=[
            "contender",
            "events/s",
            "% of floor",
            "turns decided",
            "in Parquet",
            "events a turn",
            "CPU-s per M",
            "peak MB",
            "Kafka, Redis CPU-s per M",
        ],
        rows=[_row(name, outcomes, floors) for name, outcomes in found.items()],
        notes=_notes(rounds),
    )


def _row(name: str, outcomes: Sequence[Outcome], floors: Sequence[Outcome]) -> list[str]:
    shares = [
        100 * mine.events_per_s / floor.events_per_s for mine, floor in zip(outcomes, floors, strict=True)
    ]
    bare = name == FLOOR
    million = outcomes[0].events / 1e6
    services = [
        spread([outcome.broker_cpu_s / million for outcome in outcomes]),
        spread([outcome.redis_cpu_s / million for outcome in outcomes]),
    ]
    return [
        name,
        spread([outcome.events_per_s for outcome in outcomes]).text(),
        "100" if bare else spread(shares).text(1),
        "" if bare else spread([outcome.rate_until(worker.SIGHTINGS) for outcome in outcomes]).text(),
        "" if bare else spread([outcome.rate_until(worker.TABLES) for outcome in outcomes]).text(),
        "" if bare else spread([outcome.events / outcome.turns for outcome in outcomes]).text(),
        spread([outcome.cpu_s_per_million for outcome in outcomes]).text(1),
        spread([outcome.peak_mb for outcome in outcomes]).text(),
        "" if bare else ", ".join(f"{service.median:.1f}" for service in services),
    ]


def _notes(rounds: int) -> list[str]:
    done = (
        f"Median [smallest..largest] of {rounds} rounds. events/s: until the last verdict is in Parquet and "
        "Redis and all counts are shown in both."
    )
    stages = (
        "turns decided, in Parquet: events/s until the last turn is durable in the sightings log, until the "
        "last verdict is durable in Parquet."
    )
    return [done, stages, "After every run: one verdict for each event, and woolwatch reconcile agrees."]

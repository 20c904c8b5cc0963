"""What checkpoints cost: the same events through a worker that writes them and one that writes none, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import topics, worker
from benchmarks.live import fresh, loaded
from benchmarks.outcome import Outcome
from benchmarks.report import Table, spread

_NEVER = ("--checkpoint-every=1000000",)
"""Seconds: none is written but at the start and at the end."""
_CONTENDERS: dict[str, Sequence[str]] = {"checkpoints as by default": (), "none": _NEVER}


def measure(config: Path, *, events: int, rounds: int, report: Callable[[str], None]) -> list[Table]:
    """Load the events once, then let both take them, round by round; who is first changes with each round."""
    found: dict[str, list[Outcome]] = {name: [] for name in _CONTENDERS}
    with loaded(config, events=events, report=report) as (setting, folder):
        for number in range(rounds):
            for name in sorted(_CONTENDERS, reverse=bool(number % 2)):
                run = fresh(folder, f"run-{number}-{'without' if _CONTENDERS[name] else 'with'}")
                outcome = worker.measure(setting, run, workers=1, flags=_CONTENDERS[name])
                found[name].append(outcome)
                report(f"checkpoints: round {number}, {name}: {outcome.events_per_s:,.0f} events/s")
    return [_table(found, events, rounds)]


def _table(found: dict[str, list[Outcome]], events: int, rounds: int) -> Table:
    written, none = found.values()
    shares = [100 * mine.events_per_s / other.events_per_s for mine, other in zip(written, none, strict=True)]
    note = (
        f"Median [smallest..largest] of {rounds} rounds; shares are within a round. By default one is written every "
        "15 s, so runs of less than a minute say little."
    )
    return Table(
        title=f"Checkpoints, {events:,} events in two topics of {topics.PARTITIONS} partitions, one worker",
        head=["contender", "events/s", "% of none", "seconds", "CPU-s per M", "peak MB"],
        rows=[
            [
                name,
                spread([outcome.events_per_s for outcome in outcomes]).text(),
                "100" if outcomes is none else spread(shares).text(1),
                spread([outcome.last_s - outcome.first_s for outcome in outcomes]).text(),
                spread([outcome.cpu_s_per_million for outcome in outcomes]).text(1),
                spread([outcome.peak_mb for outcome in outcomes]).text(),
            ]
            for name, outcomes in found.items()
        ],
        notes=[note],
    )

"""What ``woolwatch replay`` costs an event, from Parquet and from JSONL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.dataset as pa_dataset

from benchmarks.events import Events, make_events, write_jsonl, write_parquet
from benchmarks.processes import Cost, command, run
from benchmarks.report import Table, spread

_WRITERS: dict[str, Callable[[Events, Path], None]] = {"parquet": write_parquet, "jsonl": write_jsonl}


def measure(config: Path, *, events: int, rounds: int, report: Callable[[str], None]) -> list[Table]:
    """Replay a recording and an empty one in each format, the formats by turns."""
    with TemporaryDirectory(prefix="woolwatch-bench-") as name:
        folder = Path(name)
        report(f"replay: making {events:,} events")
        made, nothing = make_events(events), make_events(0)
        for ending, write in _WRITERS.items():
            write(made, folder / f"full.{ending}")
            write(nothing, folder / f"empty.{ending}")
        costs: dict[str, list[tuple[Cost, Cost]]] = {ending: [] for ending in _WRITERS}
        for number in range(rounds + 1):
            for ending, found in costs.items():
                pair = (
                    _replay(folder / f"full.{ending}", config, folder / "out", events),
                    _replay(folder / f"empty.{ending}", config, folder / "out", 0),
                )
                # The first round may compile and fills the disk's cache.
                if number:
                    found.append(pair)
                report(
                    f"replay: {ending}, {f'round {number}' if number else 'warming up'}: {_short(pair[0])}"
                )
    return [_table(costs, events, rounds)]


def _replay(recording: Path, config: Path, out: Path, events: int) -> Cost:
    cost = run([command("woolwatch"), "replay", str(recording), "--config", str(config), "--out", str(out)])
    files = [str(file) for file in (out / "verdicts").glob("**/*.parquet")]
    rows = pa_dataset.dataset(files, format="parquet").count_rows() if files else 0
    assert rows == events, f"{rows} verdicts of {events} events"
    shutil.rmtree(out)
    return cost


def _short(cost: Cost) -> str:
    return f"{cost.cpu_s:.1f} CPU s, {cost.wall_s:.1f} s"


def _table(costs: dict[str, list[tuple[Cost, Cost]]], events: int, rounds: int) -> Table:
    rows: list[Sequence[str]] = []
    for ending, found in costs.items():
        full, empty = [pair[0] for pair in found], [pair[1] for pair in found]
        million = events / 1e6
        rows.append(
            [
                ending,
                spread([cost.cpu_s / million for cost in full]).text(2),
                spread([(f.cpu_s - e.cpu_s) / million for f, e in found]).text(2),
                spread([cost.wall_s for cost in full]).text(1),
                spread([events / cost.wall_s for cost in full]).text(),
                spread([cost.peak_mb for cost in full]).text(),
                spread([cost.cpu_s for cost in empty]).text(1),
            ]
        )
    return Table(
        title=f"woolwatch replay of {events:,} events",
        head=["recording", "CPU us/event", "less start", "wall s", "events/s", "peak MB", "start, CPU s"],
        rows=rows,
        notes=[
            f"Median [smallest..largest] of {rounds} rounds. CPU: user and system time of the whole process.",
            "less start: without what the same command costs for an empty recording.",
        ],
    )

"""A simulated campaign, judged by a config of this repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from schemas.alerts import Alert
from schemas.keys import KeyRing
from schemas.verdicts import Outcomes
from simulation.breaks import Break
from simulation.campaign import Campaign
from simulation.files import truth_path, write_campaign
from simulation.score import Score, score
from streams.config_files import read_config_folder
from streams.list_books import ListBooks
from streams.recordings import unseen
from streams.replay import replay
from tests.services import REPOSITORY

START_MS = 1_772_380_800_000  # 2026-03-02, midnight in Shanghai
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Judged:
    """A replay of a campaign under a config: its outcomes, its score, and a folder to ask questions of."""

    out: Path
    truth: Path
    outcomes: Outcomes
    score: Score
    kpi_alerts: tuple[Alert, ...]

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """What DuckDB answers; ``verdicts``, ``truth`` and ``funnel`` are the tables."""
        with duckdb.connect() as connection:
            for view, files in (
                ("verdicts", self.out / "verdicts/**/*.parquet"),
                ("funnel", self.out / "metrics/funnel/*.parquet"),
                ("truth", self.truth),
            ):
                connection.execute(f"CREATE VIEW {view} AS FROM read_parquet('{files}')")
            return connection.execute(question).fetchall()


def judge(folder: Path, config: str, *, seed: int, events: int, break_: Break | None = None) -> Judged:
    """Simulate two days, replay them under the config folder ``config`` of the repository, and score."""
    path = folder / "campaign.parquet"
    campaign = Campaign(seed=seed, events=events, start_ms=START_MS, duration_ms=2 * DAY_MS, break_=break_)
    write_campaign(campaign.batches(), path, progress=unseen)
    read, ring = read_config_folder(REPOSITORY / config), KeyRing(b"k" * 32)
    assert read.notices == []
    lists = ListBooks(ring, read.lists.__getitem__).of(read.config)
    summary = replay([path], read.config, ring, folder / "out", lists=lists)
    truth = truth_path(path)
    return Judged(folder / "out", truth, summary.outcomes, score(folder / "out", truth), summary.kpi_alerts)

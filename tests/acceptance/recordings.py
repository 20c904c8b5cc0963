"""Recorded events replayed once for many tests, and how their tables are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from schemas.config import Config
from schemas.keys import KeyRing
from streams.config_files import read_config
from streams.replay import DEFAULT_BATCH_SIZE, ReplaySummary, replay

KEY = b"a key for tests, of 32 bytes ...."
METRICS = ("metrics/funnel", "metrics/dau", "metrics/retention", "metrics/events")
LATENESS_MS = 3_600_000
CONFIG = """
features:
  device_other_users:     {entity: device_id, distinct: user_id, exclude: self}
  device_other_users_24h: {entity: device_id, distinct: user_id, exclude: self, window: 24h}
  ip_other_users:         {entity: ip, distinct: user_id, exclude: self}
  ip24_participations_1h: {entity: ip_prefix_24, count: participate, window: 1h}
  user_events:            {entity: user_id, count: "*"}
  since_signup_s:         {entity: user_id, since: signup}
  price:                  {field: attrs.price}
rules:
  shared_device:
    when: device_other_users_24h >= 2
    applies_to: [participate, redeem]
    weight: 0.5
  instant_participation: {when: dwell_ms < 60000 and since_signup_s < 60, weight: 0.6}
  costly: {when: price > 1500, weight: 0.3}
models:
  anomaly: {kind: half_space_trees, features: [device_other_users, ip_other_users, dwell_ms], weight: 0.3}
funnels:
  shop:      {steps: [product_view, add_to_cart, purchase], within: 24h, by: [channel, platform], windows: [all, 1d]}
  shop_ties: {steps: [product_view, add_to_cart, purchase], within: 24h, order: ties_allowed}
  market:    {steps: [view, cart, purchase], within: 24h, windows: [all, 1h]}
dau: {by: [channel, platform]}
retention: {days: 20}
"""


class Replays:
    """Replays of recordings under one config, each done once.

    Parameters
    ----------
    data
        The folder of recorded events.
    folder
        Where config and tables go.
    """

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.config_folder = folder / "config"
        self.config_folder.mkdir()
        (self.config_folder / "all.yaml").write_text(CONFIG)
        self.config: Config = read_config(self.config_folder)[0]
        self._done: dict[tuple[Path, int], tuple[Path, ReplaySummary]] = {}

    def recording(self, name: str) -> Path:
        """Path of a recording."""
        return self.data / f"{name}.parquet"

    def tables(self, recording: str | Path, batch_size: int = DEFAULT_BATCH_SIZE) -> Path:
        """Folder of the tables of a recording."""
        return self._replay(recording, batch_size)[0]

    def summary(self, recording: str | Path) -> ReplaySummary:
        """What the replay of a recording counted."""
        return self._replay(recording, DEFAULT_BATCH_SIZE)[1]

    def _replay(self, recording: str | Path, batch_size: int) -> tuple[Path, ReplaySummary]:
        path = self.recording(recording) if isinstance(recording, str) else recording
        if (path, batch_size) not in self._done:
            out = self.folder / f"out-{len(self._done)}"
            summary = replay([path], self.config, KeyRing(KEY), out, batch_size=batch_size)
            self._done[path, batch_size] = out, summary
        return self._done[path, batch_size]


def sql(query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def table(folder: Path, name: str) -> str:
    """A table as SQL reads it; files by name, that is in judged order where all is one commit."""
    return f"read_parquet('{folder}/{name}/**/*.parquet', hive_partitioning = false)"


def differences(left: Path, right: Path, name: str, columns: str = "*") -> int:
    """Rows of a table that the other folder does not have as often, both ways."""
    ours, theirs = (f"select {columns} from {table(folder, name)}" for folder in (left, right))
    ((counted,),) = sql(
        f"""select (select count(*) from ({ours} except all {theirs}))
        + (select count(*) from ({theirs} except all {ours}))"""
    )
    return int(counted)


def rows(folder: Path, name: str) -> int:
    """Rows of a table; 0 where it has no file."""
    if not any((folder / name).glob("**/*.parquet")):
        return 0
    ((counted,),) = sql(f"select count(*) from {table(folder, name)}")
    return int(counted)

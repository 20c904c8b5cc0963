"""Alerts, and what became of each delivery, as Parquet (CONTRACT 3)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.alerts import Alert
from sinks.merge_plan import is_compacted
from sinks.staged_commits import StagedCommits, StagedTable
from sinks.store import Store
from sinks.tables import Table, by_date
from sinks.upkeep_journal import UpkeepJournal

ALERTS, DELIVERIES = "alerts", "deliveries"

_MOMENT = pa.timestamp("ms", "UTC")
_TEXT_FIELDS = (
    *("id", "kind", "name", "state", "severity", "campaign", "dim", "dim_value"),
    *("title_zh", "title_en", "text_zh", "text_en", "config_hash"),
)
ALERT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXT_FIELDS[:8]),
        ("since", _MOMENT),
        ("ts", _MOMENT),
        *((name, pa.string()) for name in _TEXT_FIELDS[8:12]),
        ("evidence", pa.string()),
        ("config_hash", pa.string()),
    ]
)
DELIVERY_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("state", pa.string()),
        ("channel", pa.string()),
        ("outcome", pa.string()),
        ("attempts", pa.int64()),
        ("reason", pa.string()),
        ("ts", _MOMENT),
        ("ended", _MOMENT),
    ]
)
MOST_REMEMBERED = 100_000
"""Alerts whose repeats are recognised; a repeat comes soon after a crash or not at all."""

_MOST_FILES = 2_000
"""Read when a partition is taken over, each about a millisecond."""


class Delivery(NamedTuple):
    """How telling one channel of one alert ended: ``sent``, or ``failed`` and why."""

    offset: int
    alert: Alert
    channel: str
    outcome: str
    attempts: int
    reason: str | None
    ended_ms: int


def alert_table(alerts: Sequence[Alert]) -> Table:
    """Rows of ALERT_SCHEMA, in this order."""
    columns: dict[str, Any] = {name: [getattr(alert, name) for alert in alerts] for name in _TEXT_FIELDS}
    columns["since"] = [alert.since_ms for alert in alerts]
    columns["ts"] = [alert.ts_ms for alert in alerts]
    columns["evidence"] = [msgspec.json.encode(alert.evidence, order="sorted").decode() for alert in alerts]
    return pa.table(columns, schema=ALERT_SCHEMA)


def delivery_table(deliveries: Sequence[Delivery]) -> Table:
    """Rows of DELIVERY_SCHEMA, in this order; ``ts`` is that of the alert."""
    return pa.table(
        {
            "id": [each.alert.id for each in deliveries],
            "state": [each.alert.state for each in deliveries],
            "channel": [each.channel for each in deliveries],
            "outcome": [each.outcome for each in deliveries],
            "attempts": [each.attempts for each in deliveries],
            "reason": [each.reason for each in deliveries],
            "ts": [each.alert.ts_ms for each in deliveries],
            "ended": [each.ended_ms for each in deliveries],
        },
        schema=DELIVERY_SCHEMA,
    )


class AlertTables:
    """The tables ``alerts/`` and ``deliveries/`` of one partition of the alerts topic.

    Delivery: each alert once in each of its states, each delivery once; two chains of commits, named by offsets of the
    topic. Blocks on the store, so an event loop calls it in a thread.

    Parameters
    ----------
    store
        Where the tables are.
    partition
        Of the alerts topic.
    key_fingerprint
        Of the key that made the pseudonyms.
    """

    def __init__(self, store: Store, partition: int, *, key_fingerprint: str) -> None:
        self._store, self._partition = store, partition
        self._alerts, self._deliveries = (
            StagedCommits(store, partition, key_fingerprint=key_fingerprint, table=table)
            for table in (ALERTS, DELIVERIES)
        )
        self._known: dict[str, None] = {}

    def open(self) -> int:
        """Finish what an earlier owner began; returns the offset up to which all deliveries have ended."""
        self._alerts.open()
        self._known = {}
        self._remember(self._committed_keys())
        return self._deliveries.open()

    def write_alerts(self, alerts: Sequence[Alert], *, next_: int) -> None:
        """Commit the alerts of the offsets up to ``next_``, in order; those that are in already aside.

        Raises
        ------
        OSError
            The store does not take it. The same call may be made again.
        """
        while self._alerts.position < next_:
            fresh: dict[str, Alert] = {}
            for alert in alerts:
                if alert.key not in self._known:
                    fresh.setdefault(alert.key, alert)
            if not fresh:
                return
            table = alert_table(list(fresh.values()))
            self._alerts.commit(next_, self._files(ALERTS, self._alerts.position, table))
            # Of another writer's commit we know no keys; the files do.
            self._remember(fresh if self._alerts.position == next_ else self._committed_keys())

    def write_deliveries(self, deliveries: Sequence[Delivery], *, next_: int) -> None:
        """Commit how the deliveries of the offsets up to ``next_`` ended; those that are in already aside.

        Raises
        ------
        OSError
            As :meth:`write_alerts`.
        """
        while self._deliveries.position < next_:
            first = self._deliveries.position
            fresh = [delivery for delivery in deliveries if delivery.offset >= first]
            if not fresh:
                return
            self._deliveries.commit(next_, self._files(DELIVERIES, first, delivery_table(fresh)))

    def _files(self, table: str, first: int, rows: Table) -> list[StagedTable]:
        name = f"p{self._partition}-{first:020d}.parquet"
        return [StagedTable(f"{table}/date={date}/{name}", part) for date, part in by_date(rows)]

    def _committed_keys(self) -> list[str]:
        """Keys in the newest files, oldest first, as many as are remembered.

        What compaction has merged comes first, for it is of dates long past; it holds alerts of all partitions.
        """
        mine = re.compile(rf"p{self._partition}-\d+\.parquet")
        journal = UpkeepJournal(self._store)
        while True:
            files = [(name.rpartition("/")[2], name) for name in journal.view(ALERTS).files]
            wanted = sorted(
                (not is_compacted(file), file, name)
                for file, name in files
                if is_compacted(file) or mine.fullmatch(file)
            )
            with contextlib.suppress(FileNotFoundError):  # compacted while we looked
                return self._keys_in([name for _, _, name in wanted[-_MOST_FILES:]])

    def _keys_in(self, files: list[str]) -> list[str]:
        keys: list[str] = []
        while files and len(keys) < MOST_REMEMBERED:
            with self._store.open(files.pop()) as file:
                rows = pq.read_table(file, columns=["id", "state"]).to_pylist()
            keys += [f"{row['id']}:{row['state']}" for row in rows]
        return keys[::-1]

    def _remember(self, keys: Iterable[str]) -> None:
        self._known |= dict.fromkeys(keys)
        for key in list(self._known)[: len(self._known) - MOST_REMEMBERED]:
            del self._known[key]

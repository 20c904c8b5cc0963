"""What came of the demo's campaign: computed from the files that the worker wrote and from the truth, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simulation.score import Kind, Score, read_flags, score
from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore

TRUTH_FILE = "truth.parquet"

Table: TypeAlias = Any
"""A pyarrow.Table; pyarrow has no types."""


class Caught(msgspec.Struct, frozen=True):
    """Users of one crowd, and how many of them have a verdict of ``review`` or ``block``."""

    name: str
    users: int
    flagged: int
    share: float


class CaughtKind(msgspec.Struct, frozen=True):
    """Planted users of one kind; ``charged``: honest ones flagged on its account (:mod:`simulation.false_alarms`)."""

    name: str
    users: int
    flagged: int
    recall: float
    charged: float
    precision: float


class Reason(msgspec.Struct, frozen=True):
    """Users flagged with a reason among others, how many of them were planted, and the share of these."""

    name: str
    users: int
    planted: int
    precision: float


class People(msgspec.Struct, frozen=True):
    """Users of a funnel step or a date."""

    name: str
    gross: int
    suspect: int
    clean: int


class Events(msgspec.Struct, frozen=True):
    """Records that the worker consumed, by what became of them."""

    consumed: int
    verdicts: int
    late: int
    duplicates: int
    rejected: int


class Outcome(msgspec.Struct, frozen=True):
    """The last page, and what ``--json`` writes.

    Parameters
    ----------
    out
        Folder of the tables and the truth.
    events
        What became of every record.
    kinds
        Planted users by kind. An honest user belongs to none, and is charged to kinds by the reasons that flagged them;
        over all kinds this adds up to the flagged honest users.
    crowds
        Honest users by the crowd they stand in; ``share`` were wrongly flagged.
    precision, recall
        Planted among the flagged; flagged among the planted.
    reasons
        By number of users.
    planted_cost_minor, prevented_cost_minor, refused_cost_minor
        What the campaign gave or would have given to planted users; the part of it in events judged review or block;
        what was held back from honest users in the same way.
    funnel, daily_users
        Of the whole campaign, from ``metrics/``.
    seconds
        How long the demo took, from its start to the last page.
    """

    out: str
    events: Events
    kinds: tuple[CaughtKind, ...]
    crowds: tuple[Caught, ...]
    precision: float
    recall: float
    reasons: tuple[Reason, ...]
    planted_cost_minor: int
    prevented_cost_minor: int
    refused_cost_minor: int
    funnel: tuple[People, ...]
    daily_users: tuple[People, ...]
    seconds: float


def count_events(out: Path) -> Events:
    """What became of the records up to the newest commits; while the worker runs, a second or four behind."""
    sources = read_accounts(LocalStore(out)).sources
    counts = {
        name: sum(getattr(source, name) for source in sources)
        for name in ("verdicts", "late", "duplicates", "rejected")
    }
    return Events(consumed=sum(counts.values()), **counts)


def outcome(out: Path, *, campaign: str, funnel: str, seconds: float) -> Outcome:
    """Compute everything anew from the files.

    Raises
    ------
    RecordingError
        There are no verdicts.
    """
    found: Score = score(out, out / TRUTH_FILE)
    return Outcome(
        out=str(out),
        events=count_events(out),
        kinds=tuple(map(_kind, found.kinds)),
        crowds=tuple(Caught(crowd.name, crowd.users, crowd.flagged, crowd.share) for crowd in found.crowds),
        precision=found.precision,
        recall=found.recall,
        reasons=_reasons(out),
        planted_cost_minor=found.planted_cost_minor,
        prevented_cost_minor=found.prevented_cost_minor,
        refused_cost_minor=found.refused_cost_minor,
        funnel=_funnel(out, campaign, funnel),
        daily_users=_daily_users(out, campaign),
        seconds=round(seconds, 1),
    )


def _kind(kind: Kind) -> CaughtKind:
    return CaughtKind(kind.name, kind.users, kind.flagged, kind.share, kind.charged, kind.precision)


def _reasons(out: Path) -> tuple[Reason, ...]:
    flags = read_flags(out, out / TRUTH_FILE)
    columns = {"reason": flags["reason"], "planted": pc.is_valid(flags["kind"]).cast(pa.int64())}
    counted = pa.table(columns).group_by("reason").aggregate([("planted", "count"), ("planted", "sum")])
    found = [
        Reason(row["reason"], users, planted, planted / users)
        for row in counted.to_pylist()
        for users, planted in [(row["planted_count"], row["planted_sum"])]
    ]
    return tuple(sorted(found, key=lambda reason: (-reason.users, reason.name)))


def _funnel(out: Path, campaign: str, funnel: str) -> tuple[People, ...]:
    wanted = {"campaign": campaign, "funnel": funnel, "window": "all", "dim": "all"}
    rows = _metric(out / "metrics" / "funnel", wanted).sort_by("step").to_pylist()
    return tuple(_people(row["step_name"], row) for row in rows)


def _daily_users(out: Path, campaign: str) -> tuple[People, ...]:
    rows = _metric(out / "metrics" / "dau", {"campaign": campaign, "dim": "all"}).sort_by("date").to_pylist()
    return tuple(_people(row["date"].isoformat(), row) for row in rows)


def _metric(folder: Path, wanted: dict[str, str]) -> Table:
    # pq.read_table would open a file twice; while workers run, it may be replaced in between.
    table = pa.concat_tables([pq.ParquetFile(file).read() for file in sorted(folder.glob("*.parquet"))])
    for column, value in wanted.items():
        table = table.filter(pc.equal(table[column], value))
    return table


def _people(name: str, row: dict[str, Any]) -> People:
    return People(name, row["users_gross"], row["users_suspect"], row["users_clean"])

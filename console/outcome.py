"""What came of the demo's campaign: computed from the files that the worker wrote and from the truth, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simulation.score import FLAGGED, Group, Score, score
from sinks.commit_log import read_accounts

TRUTH_FILE = "truth.parquet"

Table: TypeAlias = Any
"""A pyarrow.Table; pyarrow has no types."""


class Caught(msgspec.Struct, frozen=True):
    """Users of one kind or crowd, and how many of them have a verdict of ``review`` or ``block``."""

    name: str
    users: int
    flagged: int
    share: float


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
        Planted users by kind; ``share`` is the recall.
    crowds
        Honest users by the crowd they stand in; ``share`` were wrongly flagged.
    precision, recall
        Planted among the flagged; flagged among the planted.
    reasons
        By number of users. An honest user belongs to no kind, so precision is told by reason.
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
    kinds: tuple[Caught, ...]
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
    sources = read_accounts(out).sources
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
        kinds=_caught(found.kinds),
        crowds=_caught(found.crowds),
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


def _caught(groups: tuple[Group, ...]) -> tuple[Caught, ...]:
    return tuple(Caught(group.name, group.users, group.flagged, group.share) for group in groups)


def _reasons(out: Path) -> tuple[Reason, ...]:
    verdicts = pq.read_table(
        out / "verdicts", columns=["event_id", "reasons"], filters=pc.field("level").isin(FLAGGED)
    )
    truth = pq.read_table(out / TRUTH_FILE, columns=["event_id", "user_id", "label"])
    verdicts = verdicts.combine_chunks()
    parents = pc.list_parent_indices(verdicts["reasons"])
    reasons = {"event_id": verdicts["event_id"].take(parents), "reason": pc.list_flatten(verdicts["reasons"])}
    rows = pa.table(reasons).join(truth, "event_id", join_type="inner")
    users = rows.group_by(["reason", "user_id", "label"]).aggregate([])
    counted = users.group_by("reason").aggregate([("user_id", "count"), ("label", "sum")])
    found = [
        Reason(row["reason"], row["user_id_count"], row["label_sum"], row["label_sum"] / row["user_id_count"])
        for row in counted.to_pylist()
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
    table = pq.read_table(folder)
    for column, value in wanted.items():
        table = table.filter(pc.equal(table[column], value))
    return table


def _people(name: str, row: dict[str, Any]) -> People:
    return People(name, row["users_gross"], row["users_suspect"], row["users_clean"])

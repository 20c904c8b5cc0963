"""What was planted against what was caught: the verdicts' tables beside the truth of a simulated campaign.

``python -m simulation.score OUT TRUTH`` prints it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.errors import RecordingError
from simulation.false_alarms import charges
from simulation.rendering import Table

FLAGGED = ("review", "block")
"""A user is flagged by one verdict of these levels."""
_VERDICT_COLUMNS = ["event_id", "level", "cost_minor"]
_TRUTH_COLUMNS = ["event_id", "user_id", "truth_kind", "truth_crowd"]


@dataclass(frozen=True, slots=True)
class Group:
    """Users of one kind or crowd: how many there are, and how many of them are flagged."""

    name: str
    users: int
    flagged: int

    @property
    def share(self) -> float:
        """Flagged of all; the recall of a kind."""
        return self.flagged / self.users if self.users else 0.0


@dataclass(frozen=True, slots=True)
class Kind(Group):
    """Planted users of one kind, and the honest people who were flagged on its account.

    ``charged`` is a number of people, but seldom a whole one: see :mod:`simulation.false_alarms`.
    """

    charged: float

    @property
    def precision(self) -> float:
        """Caught of this kind among these and the honest people charged to it; 1 if there are neither."""
        flagged = self.flagged + self.charged
        return self.flagged / flagged if flagged else 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """A campaign's outcome, counted in users; money in minor units.

    Parameters
    ----------
    kinds
        Planted users by kind, alphabetically; what is charged to them adds up to all flagged honest users.
    crowds
        Honest users by the crowd they stand in; ``none`` are those in no crowd.
    planted_cost_minor
        What the campaign gave, or would have given, to planted users.
    prevented_cost_minor
        The part of it in events judged ``review`` or ``block``.
    refused_cost_minor
        What was held back from honest users in the same way.
    """

    kinds: tuple[Kind, ...]
    crowds: tuple[Group, ...]
    planted_cost_minor: int
    prevented_cost_minor: int
    refused_cost_minor: int

    @property
    def planted(self) -> Group:
        """All planted users."""
        return _sum("planted", self.kinds)

    @property
    def honest(self) -> Group:
        """All honest users; those flagged are wrongly so."""
        return _sum("honest", self.crowds)

    @property
    def precision(self) -> float:
        """Planted among the flagged; 1 if nobody is flagged."""
        flagged = self.planted.flagged + self.honest.flagged
        return self.planted.flagged / flagged if flagged else 1.0

    @property
    def recall(self) -> float:
        """Flagged among the planted."""
        return self.planted.share


def score(out: Path, truth: Path) -> Score:
    """Compare all verdicts below a sink folder with the truth of the campaign they are about.

    Parameters
    ----------
    out
        The folder that holds ``verdicts/``; late events do not count.
    truth
        The file beside the recording (:func:`simulation.files.truth_path`). Events that have no verdict yet are
        left out, and verdicts of other events, too.

    Raises
    ------
    RecordingError
        There are no verdicts, or a file is not what it should be.

    Notes
    -----
    Reads three columns of the verdicts and four of the truth: some 150 bytes an event in memory.
    """
    try:
        verdicts = pq.read_table(out / "verdicts", columns=_VERDICT_COLUMNS)
        known = pq.read_table(truth, columns=_TRUTH_COLUMNS)
        flags = read_flags(out, truth)
    except (OSError, pa.ArrowException) as error:
        raise RecordingError(f"{out / 'verdicts'} beside {truth}: not readable: {error}") from error
    rows = verdicts.join(known, "event_id", join_type="inner")
    flagged = pc.is_in(rows["level"], pa.array(FLAGGED)).to_numpy()
    planted = pc.is_valid(rows["truth_kind"]).to_numpy()
    cost = pc.fill_null(rows["cost_minor"], 0).to_numpy()
    users = _users(rows, flagged)
    kinds = _groups(users.filter(pc.is_valid(users["kind"])), "kind")
    return Score(
        kinds=_kinds(kinds, flags),
        crowds=_groups(users.filter(pc.is_null(users["kind"])), "crowd"),
        planted_cost_minor=int(cost[planted].sum()),
        prevented_cost_minor=int(cost[planted & flagged].sum()),
        refused_cost_minor=int(cost[~planted & flagged].sum()),
    )


def read_flags(out: Path, truth: Path) -> Table:
    """Who was flagged by what: a row of ``user``, ``kind`` (null: honest) and ``reason`` for each reason of a user."""
    verdicts = pq.read_table(
        out / "verdicts", columns=["event_id", "reasons"], filters=pc.field("level").isin(FLAGGED)
    ).combine_chunks()
    known = pq.read_table(truth, columns=["event_id", "user_id", "truth_kind"])
    at = pc.list_parent_indices(verdicts["reasons"])
    flagged = pa.table(
        {"event_id": verdicts["event_id"].take(at), "reason": pc.list_flatten(verdicts["reasons"])}
    )
    rows = flagged.join(known, "event_id", join_type="inner").rename_columns(
        {"user_id": "user", "truth_kind": "kind"}
    )
    return rows.group_by(["user", "kind", "reason"]).aggregate([])


def as_text(score: Score) -> str:
    """The score as a table for people."""
    lines = ["planted            users   caught   recall  precision"]
    lines += [
        f"{kind.name:<16}{kind.users:8,}{kind.flagged:9,}{kind.share:9.3f}{kind.precision:11.4f}"
        for kind in score.kinds
    ]
    lines += ["", "honest             users  flagged"]
    lines += [f"{group.name:<16}{group.users:8,}{group.flagged:9,}" for group in score.crowds]
    planted, prevented, refused = (
        f"{minor / 100:,.2f}"
        for minor in (score.planted_cost_minor, score.prevented_cost_minor, score.refused_cost_minor)
    )
    lines += ["", f"precision {score.precision:.4f}   recall {score.recall:.4f}"]
    lines += [
        f"cost to wool parties {planted}, of it prevented {prevented}; held back from the honest {refused}"
    ]
    return "\n".join(lines)


def _users(rows: Table, flagged: NDArray[np.bool_]) -> Table:
    """One row a user: kind, crowd, and whether any verdict flagged them."""
    columns = {"user": rows["user_id"], "kind": rows["truth_kind"], "crowd": rows["truth_crowd"]}
    table = pa.table({**columns, "flagged": flagged})
    grouped = table.group_by(["user", "kind", "crowd"]).aggregate([("flagged", "any")])
    return grouped.rename_columns({"flagged_any": "flagged"})


def _groups(users: Table, column: str) -> tuple[Group, ...]:
    named = pa.table(
        {"name": pc.fill_null(users[column], "none"), "flagged": users["flagged"].cast(pa.int64())}
    )
    grouped = named.group_by("name").aggregate([("flagged", "count"), ("flagged", "sum")]).sort_by("name")
    return tuple(Group(row["name"], row["flagged_count"], row["flagged_sum"]) for row in grouped.to_pylist())


def _kinds(kinds: tuple[Group, ...], flags: Table) -> tuple[Kind, ...]:
    charged = charges(flags, [kind.name for kind in kinds])
    return tuple(
        Kind(kind.name, kind.users, kind.flagged, people) for kind, people in zip(kinds, charged, strict=True)
    )


def _sum(name: str, groups: tuple[Group, ...]) -> Group:
    return Group(name, sum(group.users for group in groups), sum(group.flagged for group in groups))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m simulation.score OUT TRUTH")
    sys.stdout.write(as_text(score(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")

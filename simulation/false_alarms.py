"""To which kinds of wool party the flagged honest people are charged, so that precision can be told by kind.

An honest person belongs to no kind, but was flagged by reasons, and reasons catch kinds. So a false alarm is divided
evenly among the person's reasons, and what falls to a reason in proportion to the planted people of each kind whom
that reason flagged. Every flagged honest person is charged once in all: the charges add up to the false alarms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulation.rendering import Table


def charges(flags: Table, kinds: Sequence[str]) -> list[float]:
    """Divide the flagged honest people among the kinds.

    Parameters
    ----------
    flags
        ``user``, ``kind`` (null: honest) and ``reason``: one row for each reason of each flagged user, each once.
    kinds
        All kinds that occur, at least one if anybody is honest.

    Returns
    -------
    list of float
        People charged to each of ``kinds``. A reason that flagged nobody planted is charged to all kinds alike.

    Examples
    --------
    ``rushed`` catches two of the farm and one of the ring; of the honest, h1 was flagged by both reasons.

    >>> rows = [("f1", "farm", "shared"), ("f1", "farm", "rushed"), ("f2", "farm", "rushed"), ("r1", "ring", "rushed")]
    >>> rows += [("h1", None, "shared"), ("h1", None, "rushed"), ("h2", None, "rushed")]
    >>> flags = pa.table(dict(zip(("user", "kind", "reason"), zip(*rows))))
    >>> [round(people, 3) for people in charges(flags, ["farm", "ring"])]
    [1.5, 0.5]
    """
    users, reasons = _codes(flags["user"]), _codes(flags["reason"])
    kind = pc.fill_null(pc.index_in(flags["kind"], pa.array(kinds, pa.string())), -1).to_numpy()
    honest = kind < 0
    caught = np.zeros((reasons.max(initial=-1) + 1, len(kinds)))
    np.add.at(caught, (reasons[~honest], kind[~honest]), 1)
    caught[~caught.any(axis=1)] = 1
    share_of_kind = caught / caught.sum(axis=1, keepdims=True)
    reasons_of_user = np.bincount(users)
    charged = share_of_kind[reasons[honest]] / reasons_of_user[users[honest], None]
    return [float(people) for people in charged.sum(axis=0)]


def _codes(column: Table) -> NDArray[np.int64]:
    """A number for each distinct value."""
    codes: NDArray[np.int64] = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes

"""The charges against SQL that joins what the code multiplies, on drawn flags."""

from __future__ import annotations

import random
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from simulation.false_alarms import charges
from tests.recounts import CHARGED

KINDS = ["farm", "ring", "script"]
CATCHING = {"farm": ["shared", "quick"], "ring": ["ring"], "script": ["quick", "steady", "ring"]}


def drawn(seed: int) -> list[tuple[str, str | None, list[str]]]:
    """User, kind and reasons of flagged events; ``odd`` flags the honest alone."""
    draw = random.Random(seed)
    rows: list[tuple[str, str | None, list[str]]] = []
    for number in range(400):
        kind = draw.choice([*KINDS, None])
        reasons = CATCHING[kind] if kind else ["shared", "quick", "steady", "ring", "odd"]
        rows.append((f"{kind}{number % 90}", kind, draw.sample(reasons, draw.randint(1, len(reasons)))))
    return rows


def table_of(rows: list[tuple[str, str | None, list[str]]]) -> Any:
    flat = sorted({(user, str(kind), reason) for user, kind, reasons in rows for reason in reasons})
    text = pa.string()
    return pa.table(
        {
            "user": pa.array([row[0] for row in flat], text),
            "kind": pa.array([row[1] if row[1] != "None" else None for row in flat], text),
            "reason": pa.array([row[2] for row in flat], text),
        }
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_what_sql_finds(seed: int) -> None:
    rows = drawn(seed)
    judged = pa.table(
        {
            "user_id": [row[0] for row in rows],
            "truth_kind": [row[1] for row in rows],
            "reasons": [row[2] for row in rows],
            "flagged": [True] * len(rows),
        }
    )
    with duckdb.connect() as connection:
        connection.register("judged", judged)
        found = connection.execute(CHARGED.format(judged="judged")).fetchall()
    assert found == [
        (kind, pytest.approx(people))
        for kind, people in zip(KINDS, charges(table_of(rows), KINDS), strict=True)
    ]
    assert sum(people for _, people in found) == pytest.approx(
        len({row[0] for row in rows if row[1] is None})
    )


def test_nobody_flagged_charges_nobody() -> None:
    assert charges(table_of([]), KINDS) == [0.0, 0.0, 0.0]
    assert charges(table_of([]), []) == []


def test_where_nobody_planted_was_caught_all_kinds_are_charged_alike() -> None:
    assert charges(table_of([("h", None, ["odd", "quick"])]), KINDS) == pytest.approx([1 / 3] * 3)

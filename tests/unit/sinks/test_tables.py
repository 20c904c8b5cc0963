"""Verdict tables against rows made by plain Python."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

import numpy as np
import pyarrow as pa
import pytest

import sinks.tables
from schemas.events import RECORDING, TOPICS
from sinks.tables import by_config, by_date, verdict_schema, verdict_table
from tests.unit.sinks.turns import Made, Row, made_turn


def rows_of(made: list[Made], table: str) -> list[Row]:
    return [row for turn in made for row in getattr(turn, table)]


@pytest.mark.parametrize("turns", [1, 7])
@pytest.mark.parametrize("events", [1, 40])
def test_tables_hold_every_verdict_in_judged_order(turns: int, events: int) -> None:
    made = [made_turn(number, events=events) for number in range(turns)]

    verdicts, late = verdict_table([turn.turn for turn in made])

    assert verdicts.to_pylist() == rows_of(made, "verdicts")
    assert late.to_pylist() == rows_of(made, "late")
    verdicts.validate(full=True)
    late.validate(full=True)


def test_columns_are_those_of_the_contract_in_its_order() -> None:
    verdicts, late = verdict_table([made_turn(0, features=("b", "a"), models=("m",)).turn])
    text = (
        "event_id, event, ts, topic, partition, offset, user, device, ip, channel, campaign, page, "
        "platform, variant, dwell_ms, amount_minor, cost_minor, score, level, reasons, evidence, "
        "config_hash, f_b, f_a, m_m"
    )
    assert verdicts.column_names == late.column_names == text.split(", ")
    assert verdicts.schema == late.schema == verdict_schema(("b", "a"), ("m",))
    assert verdicts.schema.field("ts").type == pa.timestamp("ms", "UTC")
    assert verdicts.schema.field("offset").type == pa.int64()
    assert verdicts.schema.field("reasons").type == pa.list_(pa.string())


def test_a_turn_without_verdicts_makes_empty_tables_of_the_same_schema() -> None:
    verdicts, late = verdict_table([made_turn(0, events=0).turn])
    assert (verdicts.num_rows, late.num_rows) == (0, 0)
    assert verdicts.schema == verdict_schema(("ip_users", "dwell"), ("anomaly",))


def test_a_config_without_features_and_models() -> None:
    made = made_turn(0, features=(), models=())
    assert verdict_table([made.turn])[0].to_pylist() == made.verdicts


def test_pseudonyms_are_hex_digits_and_zero_is_null() -> None:
    turn = made_turn(0, events=3, only_verdicts=True).turn
    turn.ip = np.array([[0] * 16, [0] * 15 + [1], list(range(240, 256))], np.uint8)
    assert verdict_table([turn])[0]["ip"].to_pylist() == [None, "0" * 31 + "1", bytes(range(240, 256)).hex()]


def test_text_that_is_too_much_for_one_array_becomes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [made_turn(number) for number in range(5)]
    turns = [turn.turn for turn in made]
    monkeypatch.setattr(sinks.tables, "_GROUP_BYTES", 2 * len(turns[0].batch.buffer))

    verdicts, _ = verdict_table(turns)

    assert verdicts["event_id"].num_chunks > 1
    assert verdicts.to_pylist() == rows_of(made, "verdicts")


def test_rows_of_a_recording_name_their_own_topic() -> None:
    turn = made_turn(0, events=9).turn
    topics = np.arange(9, dtype=np.uint8) % 2
    turn.batch = replace(turn.batch, topic=RECORDING, topics=topics)

    verdicts, late = verdict_table([turn])

    shown = {row["event_id"]: row["topic"] for row in [*verdicts.to_pylist(), *late.to_pylist()]}
    assert shown == {f"id-0-{row}": TOPICS[row % 2] for row in turn.rows.tolist()}


def test_turns_of_different_configs_are_no_one_table() -> None:
    turns = [made_turn(number, config="ab"[number // 2]).turn for number in range(4)]
    assert by_config(turns) == [turns[:2], turns[2:]]
    with pytest.raises(ValueError, match="one config"):
        verdict_table(turns)


@pytest.mark.parametrize("days", [1, 4])
def test_rows_are_split_by_their_utc_date_in_their_order(days: int) -> None:
    made = [made_turn(number, events=50, days=days) for number in range(3)]
    expected: dict[str, list[Row]] = {}
    for row in rows_of(made, "verdicts"):
        expected.setdefault(row["ts"].astimezone(UTC).strftime("%Y-%m-%d"), []).append(row)

    table, _ = verdict_table([turn.turn for turn in made])
    split = [(date, rows.to_pylist()) for date, rows in by_date(table)]

    assert split == sorted(expected.items())
    assert list(by_date(table.slice(0, 0))) == []

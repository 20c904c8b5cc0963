"""Turns made up for the tests of sinks, and by plain Python what rows they must become."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from schemas.events import BUFFER_PADDING, INTEGER_FIELDS, STRING_FIELDS, EventBatch, RejectCode, Rejection
from schemas.verdicts import LEVELS, Outcomes, Verdicts

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_TS_MS = 1_577_836_800_000  # 2020-01-01T00:00:00Z
REASONS = ("shared_device", "instant", "多账号")

Row = dict[str, Any]
"""A row of ``verdicts/`` or ``late/`` as a reader sees it."""


@dataclass
class Made:
    """A turn, and the rows that it must become."""

    turn: Verdicts
    verdicts: list[Row] = field(default_factory=list)
    late: list[Row] = field(default_factory=list)


def made_turn(
    number: int,
    *,
    events: int = 12,
    partition: int = 3,
    start: int | None = None,
    days: int = 3,
    features: tuple[str, ...] = ("ip_users", "dwell"),
    models: tuple[str, ...] = ("anomaly",),
    config: str = "a",
    users: int = 5,
    only_verdicts: bool = False,
) -> Made:
    """A turn that depends on its arguments alone; some events are late, doubled or broken."""
    draw = random.Random(f"{number} {config}")
    topic = ("clicks", "participations")[number % 2]
    if start is None:
        start = (number // 2) * (events + 1)
    fates = [0 if only_verdicts else draw.choice((0, 0, 0, 0, 1, 2, 3)) for _ in range(events)]
    texts: list[dict[str, str]] = []
    integers: list[dict[str, int]] = []
    for row in range(events):
        user = draw.randrange(users)
        texts.append(
            {
                "event_id": f"id-{number}-{row}",
                "event": draw.choice(("click", "参加", 'quo"te')),
                "user_id": f"user {user}",
                "device_id": draw.choice(("", f"device {user % 2}")),
                "campaign": draw.choice(("", "spring/%1", "秋")),
                "page": draw.choice(("", "/" * draw.randrange(30))),
                "channel": draw.choice(("", "ads")),
            }
        )
        ts = FIRST_TS_MS + draw.randrange(days * 86_400_000)
        integers.append(
            {"ts": ts, "dwell_ms": draw.choice((-1, 0, 2**53)), "cost_minor": draw.choice((-1, 5))}
        )
    batch = _batch(topic, partition, start, texts, integers, fates)
    return _judged(number, batch, texts, integers, fates, draw, features, models, config)


def _batch(
    topic: str,
    partition: int,
    start: int,
    texts: list[dict[str, str]],
    integers: list[dict[str, int]],
    fates: list[int],
) -> EventBatch:
    events = len(texts)
    buffer = bytearray(b"####")
    starts = np.zeros((len(STRING_FIELDS), events), np.int32)
    lengths = np.zeros((len(STRING_FIELDS), events), np.int32)
    for row in range(events):
        for column, name in enumerate(STRING_FIELDS):
            value = texts[row].get(name, "").encode()
            starts[column, row], lengths[column, row] = len(buffer), len(value)
            buffer += value
    rejections = tuple(
        Rejection(
            row, RejectCode.BAD_IP, "$.ip", "an IP address", b"raw %d" % row, 1000 + row, bytes([row]) * 32
        )
        for row in range(events)
        if fates[row] == 3
    )
    return EventBatch(
        topic=topic,
        partition=partition,
        start=start,
        next=start + events + 1,  # the last offset is a transaction marker
        offsets=np.arange(start, start + events, dtype=np.int64),
        buffer=np.frombuffer(bytes(buffer) + bytes(BUFFER_PADDING), np.uint8),
        starts=starts,
        lengths=lengths,
        integers=np.array(
            [[row.get(name, -1) for row in integers] for name in INTEGER_FIELDS], np.int64
        ).reshape(4, -1),
        floats=np.full((2, events), np.nan),
        attributes=(),
        attribute_numbers=np.zeros((0, events)),
        labels=np.full(events, -1, np.int8),
        rejected=np.array([RejectCode.BAD_IP if fate == 3 else 0 for fate in fates], np.uint8),
        rejections=rejections,
    )


def _judged(
    number: int,
    batch: EventBatch,
    texts: list[dict[str, str]],
    integers: list[dict[str, int]],
    fates: list[int],
    draw: random.Random,
    features: tuple[str, ...],
    models: tuple[str, ...],
    config: str,
) -> Made:
    rows = [row for row, fate in enumerate(fates) if fate in (0, 1)]
    users = [_pseudonym(texts[row]["user_id"]) for row in rows]
    devices = [_pseudonym(texts[row]["device_id"]) for row in rows]
    scores = [draw.choice((0.0, 1.0, 0.1 + 0.2, draw.random())) for _ in rows]
    levels = [draw.randrange(4) for _ in rows]
    reasons = [sorted(draw.sample(range(len(REASONS)), level)) for level in levels]
    evidence = [
        json.dumps({"证据": level}, ensure_ascii=False).encode() if level else b"" for level in levels
    ]
    floats = [[draw.choice((float("nan"), draw.random())) for _ in rows] for _ in (*features, *models)]
    turn = Verdicts(
        turn=number,
        batch=batch,
        rows=np.array(rows, np.int64),
        late=np.array([fates[row] for row in rows], np.uint8),
        user_keys=np.array([int.from_bytes(user[:8], "little") for user in users], np.uint64),
        device_keys=np.array([int.from_bytes(device[:8], "little") for device in devices], np.uint64),
        user=np.array([list(user) for user in users], np.uint8).reshape(-1, 16),
        device=np.array([list(device) for device in devices], np.uint8).reshape(-1, 16),
        ip=np.zeros((len(rows), 16), np.uint8),
        score=np.array(scores, np.float64),
        level=np.array(levels, np.uint8),
        features=np.array(floats[: len(features)], np.float64).reshape(len(features), len(rows)),
        models=np.array(floats[len(features) :], np.float64).reshape(len(models), len(rows)),
        reason_offsets=np.array([0, *np.cumsum([len(codes) for codes in reasons])], np.int32),
        reason_codes=np.array([code for codes in reasons for code in codes], np.int32),
        evidence_offsets=np.array([0, *np.cumsum([len(text) for text in evidence])], np.int32),
        evidence_bytes=np.frombuffer(b"".join(evidence), np.uint8),
        feature_names=features,
        model_names=models,
        reason_names=REASONS,
        config_hash=(config * 32)[:32],
        outcomes=Outcomes(*(fates.count(fate) for fate in range(4))),
    )
    made = Made(turn)
    for i, row in enumerate(rows):
        expected: Row = {
            "event_id": texts[row]["event_id"],
            "event": texts[row]["event"],
            "ts": EPOCH + timedelta(milliseconds=integers[row]["ts"]),
            "topic": batch.topic,
            "partition": batch.partition,
            "offset": batch.start + row,
            "user": users[i].hex(),
            "device": devices[i].hex() if texts[row]["device_id"] else None,
            "ip": None,
            **{
                name: texts[row].get(name) or None
                for name in ("channel", "campaign", "page", "platform", "variant")
            },
            **{
                name: _or_none(integers[row].get(name, -1))
                for name in ("dwell_ms", "amount_minor", "cost_minor")
            },
            "score": scores[i],
            "level": LEVELS[levels[i]],
            "reasons": [REASONS[code] for code in reasons[i]],
            "evidence": evidence[i].decode() or None,
            "config_hash": turn.config_hash,
        }
        for name, values in zip(
            (*(f"f_{n}" for n in features), *(f"m_{n}" for n in models)), floats, strict=True
        ):
            expected[name] = None if values[i] != values[i] else values[i]
        (made.late if fates[row] else made.verdicts).append(expected)
    return made


def _pseudonym(value: str) -> bytes:
    return random.Random(value).randbytes(16) if value else bytes(16)


def _or_none(value: int) -> int | None:
    return None if value < 0 else value

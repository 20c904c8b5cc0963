"""Which lessons of the log count: repeats and those of an overtaken owner do not, wherever they stand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from detectors.judge import Judge
from schemas.config import Config, parse_config
from schemas.errors import Abandoned, StateError
from schemas.keys import KeyRing
from schemas.lessons import Lessons, decode_lessons, encode_lesson_claim, encode_lessons
from schemas.sightings import Claim
from streams.lesson_log import LessonReader, LessonWriter
from streams.log_tail import Stretch
from tests.labelled_events import CONFIG

CONFIG_PARSED, _ = parse_config({"a.yaml": CONFIG.encode()})
OLD, NEW = b"o" * 16, b"n" * 16


def _lesson(turn: int, *, claim: bytes = OLD, source: int = 0, part: int = 0, value: float = 1.0) -> Lessons:
    x = np.array([[value, np.nan, 3.0], [2.0, value, 4.0]])
    config = bytes.fromhex(CONFIG_PARSED.hash)
    return Lessons(source, turn, part, claim, config, np.array([1, 0], np.uint8), x)


class _Tail:
    """Records in memory, two at a time."""

    def __init__(self, values: list[bytes]) -> None:
        self._records = [SimpleNamespace(offset=offset, value=value) for offset, value in enumerate(values)]

    async def read(self, start: int, end: int) -> Stretch:
        next_ = min(start + 2, end)
        return Stretch(start, next_, cast("Any", self._records[start:next_]))


async def _kept(_: bytes) -> Config:
    return CONFIG_PARSED


def _learned(values: list[bytes], *, up_to: int | None = None, before_turn: int | None = None) -> int:
    judge = Judge(CONFIG_PARSED, KeyRing(bytes(16)), partition=0, owners=2)
    configs = SimpleNamespace(kept=_kept)
    reader = LessonReader(cast("Any", _Tail(values)), cast("Any", configs))
    end = len(values) if up_to is None else up_to
    asyncio.run(reader.learn(judge, end, before_turn=before_turn))
    assert reader.position == end
    return judge.supervised.lessons_learned("labelled")


def test_lessons_survive_the_way() -> None:
    lesson = _lesson(3, part=2)
    found = decode_lessons(encode_lessons(lesson))
    assert isinstance(found, Lessons)
    assert np.array_equal(found.x, lesson.x, equal_nan=True)
    assert found.label.tolist() == [1, 0]
    assert replace(found, x=lesson.x, label=lesson.label) == lesson
    assert decode_lessons(encode_lesson_claim(Claim(4, NEW))) == Claim(4, NEW)
    for broken in (b"", encode_lessons(lesson)[:-1], b"\x09" + encode_lessons(lesson)[1:]):
        with pytest.raises(StateError):
            decode_lessons(broken)


def test_repeats_and_overtaken_owners_teach_nothing() -> None:
    claim = encode_lesson_claim(Claim(0, NEW))
    one, two = encode_lessons(_lesson(1)), encode_lessons(_lesson(2))
    assert _learned([one, two]) == 4
    assert _learned([one, one, two, one]) == 4
    assert _learned([one, encode_lessons(_lesson(1, part=1))]) == 4
    assert _learned([one, encode_lessons(_lesson(1, source=1))]) == 4
    assert _learned([one, claim, two]) == 2
    assert _learned([one, claim, encode_lessons(_lesson(2, claim=NEW)), two]) == 4
    assert _learned([one, claim, encode_lessons(_lesson(1, claim=NEW))]) == 2
    assert _learned([one, two], up_to=1) == 2
    assert _learned([one, two], before_turn=2) == 2


def test_many_lessons_of_a_turn_are_cut_and_sent_one_after_the_other() -> None:
    sent: list[Lessons] = []
    acknowledged: list[int] = []

    async def acknowledge(offset: int) -> int:
        acknowledged.append(offset)
        return offset

    async def send(topic: str, partition: int, value: bytes, key: bytes | None = None) -> Any:
        assert (topic, partition, key) == ("lessons", 0, None)
        found = decode_lessons(value)
        assert isinstance(found, Lessons)
        assert len(acknowledged) == len(sent)  # one that is sent again must not come behind a later one
        sent.append(found)
        return acknowledge(len(sent))

    judge = Judge(CONFIG_PARSED, KeyRing(bytes(16)), partition=0, owners=2)
    judge.supervised.lessons = [(i % 2, np.full(3, float(i))) for i in range(2_500)]
    asyncio.run(LessonWriter(send, cast("Any", None), Claim(7, NEW)).write(judge, 9))
    assert [(one.source, one.turn, one.part, len(one.label)) for one in sent] == [
        (7, 9, 0, 1000),
        (7, 9, 1, 1000),
        (7, 9, 2, 500),
    ]
    assert np.concatenate([one.x[:, 0] for one in sent]).tolist() == [float(i) for i in range(2_500)]


@pytest.mark.parametrize(
    ("overtaken_after", "void"),
    [(None, False), (2, False), (1, True), (0, True)],
    ids=["never", "late", "amid", "early"],
)
def test_lessons_are_proven_unless_the_partition_was_claimed_before_the_last_of_them(
    overtaken_after: int | None, *, void: bool
) -> None:
    values: list[bytes] = [encode_lessons(_lesson(1))]

    async def send(topic: str, partition: int, value: bytes, key: bytes | None = None) -> Any:
        async def offset(at: int) -> int:
            return at

        values.append(value)
        return offset(len(values) - 1)

    async def run() -> None:
        judge = Judge(CONFIG_PARSED, KeyRing(bytes(16)), partition=0, owners=2)
        judge.supervised.lessons = [(1, np.zeros(3))]
        writer = LessonWriter(
            send, cast("Any", SimpleNamespace(read=lambda *at: _Tail(values).read(*at))), Claim(0, NEW)
        )
        await writer.claim()
        values.append(encode_lesson_claim(Claim(1, OLD)))
        for turn in range(3):
            if turn == overtaken_after:
                values.append(encode_lesson_claim(Claim(0, OLD)))
            if turn < 2:
                await writer.write(judge, turn)
        await writer.prove()

    if void:
        with pytest.raises(Abandoned):
            asyncio.run(run())
    else:
        asyncio.run(run())

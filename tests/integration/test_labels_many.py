"""Labels with several judges: every turn says up to where it learned, and River learns the same from the same log."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from river import linear_model, preprocessing

from schemas.events import TOPICS
from schemas.lessons import Lessons, decode_lessons
from schemas.sightings import Sightings, decode_sightings
from tests.installation import Install
from tests.labelled_events import CONFIG, DAY_MS, INPUTS, labelled_events, write_labelled
from tests.recounts import rows_of
from tests.services import KafkaBroker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

PARTITIONS = 4
PAST = 1_700_000_000_000
BAD = {
    b"no JSON": ("not_json", "$"),
    b"[]": ("not_an_object", "$"),
    b'{"label":1,"ts":%d}' % PAST: ("missing", "$.event_id"),
    b'{"event_id":"e","label":2,"ts":%d}' % PAST: ("out_of_range", "$.label"),
    b'{"event_id":"e","label":true,"ts":%d}' % PAST: ("wrong_type", "$.label"),
    b'{"event_id":7,"label":1,"ts":%d}' % PAST: ("wrong_type", "$.event_id"),
    b'{"event_id":"%s","label":1,"ts":%d}' % (b"e" * 65, PAST): ("too_long", "$.event_id"),
    b'{"event_id":"e","label":1,"ts":1700000000}': ("too_old", "$.ts"),
    b'{"event_id":"e","label":1,"ts":%d}' % ((int(time.time()) + 3600) * 1000): ("in_the_future", "$.ts"),
    b'{"event_id":"' + b"e" * 70_000 + b'"}': ("too_large", "$"),
}


def _log(kafka: KafkaBroker, topic: str, partition: int) -> list[Any]:
    tp = TopicPartition(topic, partition)
    consumer = KafkaConsumer(bootstrap_servers=[kafka.bootstrap], group_id=None, auto_offset_reset="earliest")
    try:
        consumer.assign([tp])
        end = consumer.end_offsets([tp])[tp]
        records: list[Any] = []
        while consumer.position(tp) < end:
            records += consumer.poll(timeout_ms=500).get(tp, [])
        return records
    finally:
        consumer.close()


def _publish(kafka: KafkaBroker, topic: str, values: Any) -> None:
    producer = KafkaProducer(bootstrap_servers=[kafka.bootstrap])
    for value in values:
        producer.send(topic, value)
    producer.flush()
    producer.close()


def test_every_judge_learns_the_one_log(
    install: Install, tmp_path: Path, kafka: KafkaBroker, topic_prefix: str
) -> None:
    installation = install(PARTITIONS, CONFIG)
    events = labelled_events(4000)
    workers = [installation.start_worker(), installation.start_worker()]
    for part in (events[:1500], events[1500:2800], events[2800:]):
        # In three pieces, so that judges learn of one another's labels in between.
        recording = write_labelled(tmp_path / f"from-{part[0]['event_id']}.jsonl", part)
        installation.load(recording, label_delay="1d")
        installation.wait_until_judged(min(len(events), events.index(part[0]) + len(part)))
    _publish(kafka, f"{topic_prefix}labels", BAD)
    letters = _bad_labels(kafka, topic_prefix)
    assert [installation.stop(worker) for worker in workers] == [0, 0]
    assert Counter(letters) == Counter(BAD.values())
    lessons = [
        (record.offset, found)
        for record in _log(kafka, f"{topic_prefix}lessons", 0)
        if isinstance(found := decode_lessons(record.value), Lessons)
    ]
    turns = sorted(_turns(kafka, topic_prefix), key=lambda turn: turn.models)
    _compare(installation.out, turns, lessons)
    _features_are_those_judged(installation.out, events, lessons)


def _bad_labels(kafka: KafkaBroker, topic_prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    deadline = time.monotonic() + 60
    while len(found) < len(BAD) and time.monotonic() < deadline:
        letters = [
            json.loads(record.value)
            for partition in range(PARTITIONS)
            for record in _log(kafka, f"{topic_prefix}deadletters", partition)
        ]
        found = [(letter["code"], letter["path"]) for letter in letters if letter["topic"] == "labels"]
    return found


def _turns(kafka: KafkaBroker, topic_prefix: str) -> list[Sightings]:
    found: dict[tuple[int, int], Sightings] = {}
    for partition in range(PARTITIONS):
        for record in _log(kafka, f"{topic_prefix}sightings", partition):
            turn = decode_sightings(record.value)
            if isinstance(turn, Sightings) and turn.source == partition and turn.topic < len(TOPICS):
                found[turn.source, turn.turn] = turn
    return list(found.values())


def _compare(out: Path, turns: list[Sightings], lessons: list[tuple[int, Lessons]]) -> None:
    """Every strength again by River, from the lessons below the number that stands in the turn."""
    model: Any = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    columns = 'topic, partition, "offset", f_device_other_users, dwell_ms, amount_minor, m_labelled'
    rows = {row[:3]: row[3:] for table in ("verdicts", "late") for row in rows_of(out, table, columns)}
    learned, compared = 0, 0
    for turn in turns:
        while learned < len(lessons) and lessons[learned][0] < turn.models[0]:
            for label, x in zip(lessons[learned][1].label, lessons[learned][1].x, strict=True):
                model.learn_one(dict(zip(INPUTS, np.nan_to_num(x).tolist(), strict=True)), bool(label))
            learned += 1
        for offset in range(turn.start, turn.next):
            row = rows.pop((TOPICS[turn.topic], turn.source, offset), None)
            if row is not None:
                x = dict(zip(INPUTS, (value or 0.0 for value in row[:-1]), strict=True))
                assert row[-1] == (model.predict_proba_one(x)[True] if learned else 0.0)
                compared += learned > 0
    assert not rows
    assert compared > 1000
    assert len({turn.models for turn in turns}) > 3


def _features_are_those_judged(
    out: Path, events: list[dict[str, Any]], lessons: list[tuple[int, Lessons]]
) -> None:
    labels = {event["event_id"]: event["label"] for event in reversed(events) if "label" in event}
    columns = "event_id, f_device_other_users, dwell_ms, amount_minor"
    judged = Counter(
        (labels[row[0]], *(value or 0.0 for value in row[1:]))
        for row in rows_of(out, "verdicts", columns)
        if row[0] in labels
    )
    taught = Counter(
        (int(label), *np.nan_to_num(x).tolist())
        for _, one in lessons
        for label, x in zip(one.label, one.x, strict=True)
    )
    assert taught <= judged
    newest = max(event["ts"] for event in events)
    old_enough = sum(
        event["ts"] + DAY_MS < newest - DAY_MS for event in events if event["event_id"] in labels
    )
    assert taught.total() > 0.8 * old_enough

"""However wide a config is: no record of a turn is larger than its topic takes."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from detectors.inquiry import sightings_of
from detectors.judge import Judge
from detectors.shard import Shard
from schemas.config import Config, parse_config
from schemas.decode import decode_json
from schemas.events import CLICKS, STRING_FIELDS
from schemas.keys import KeyRing
from schemas.sightings import encode_answers, encode_sightings

RECORD_BYTES = 1 << 20
CLAIM = bytes(16)
ENTITIES = [
    *(field for field in STRING_FIELDS if field not in ("event_id", "event", "ip", "phone")),
    "attrs.a",
]


def wide(features: dict[str, str]) -> Config:
    lines = "".join(f"  {name}: {{{feature}}}\n" for name, feature in features.items())
    return parse_config({"a.yaml": f"features:\n{lines}".encode()})[0]


MANY_ANSWERS = wide({f"f{i}": f"entity: user_id, count: '*', window: {i + 1}s" for i in range(300)})
MANY_KINDS = wide({f"f{i}": f"entity: {kind}, count: '*'" for i, kind in enumerate(ENTITIES)})
MANY_MEMBERS = wide(
    {f"f{i}": f"entity: user_id, distinct: {kind}" for i, kind in enumerate(ENTITIES) if kind != "user_id"}
)


@pytest.mark.parametrize("config", [MANY_ANSWERS, MANY_KINDS, MANY_MEMBERS])
def test_the_fullest_turn_fits_its_records(config: Config) -> None:
    judge = Judge(config, KeyRing(bytes(32)), partition=0, owners=1)
    events = judge.plan.most_events(RECORD_BYTES)
    fields = {field: "x" for field in STRING_FIELDS if field not in ("ip", "phone")}
    values = [
        orjson.dumps({**fields, "event_id": str(i), "ts": 1_700_000_000_000, "a": "x"}) for i in range(events)
    ]
    batch = decode_json(
        values,
        topic=CLICKS,
        partition=0,
        start=0,
        next=events,
        offsets=np.arange(events),
        record_ts_ms=np.full(events, 1_700_000_000_000),
        attributes=config.attributes_used,
        fields=config.fields,
    )
    inquiry = judge.ask(batch)
    sightings = sightings_of(inquiry, 0, judge.plan, topic=0, claim=CLAIM)
    shard = Shard(0, max_keys=1 << 16, lateness_ms=config.lateness_ms)
    answers = shard.take(sightings, lambda _: judge.plan)
    assert answers is not None
    assert len(inquiry.rows) == events
    largest = max(len(encode_sightings(sightings)), len(encode_answers(answers)))
    assert 0.9 * RECORD_BYTES < largest <= RECORD_BYTES


def test_a_turn_has_an_event_at_least() -> None:
    assert Judge(MANY_ANSWERS, KeyRing(bytes(32)), partition=0, owners=1).plan.most_events(1) == 1

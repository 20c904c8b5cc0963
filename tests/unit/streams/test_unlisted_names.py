"""Names outside the events block: told once each, and never more than the bound."""

from __future__ import annotations

import json

import numpy as np
import pytest

from schemas.config import Config, parse_config
from schemas.decode import decode_json
from schemas.events import EventBatch
from schemas.keys import KeyRing
from streams.unlisted_names import MAX_TOLD, UnlistedNames

RING = KeyRing(bytes(32))


def batch(names: list[str]) -> EventBatch:
    rows = [
        json.dumps({"event_id": f"e{i}", "event": name, "ts": 1_760_000_000_000, "user_id": "u"}).encode()
        for i, name in enumerate(names)
    ]
    return decode_json(
        [*rows, b"{"],
        topic="clicks",
        partition=0,
        start=0,
        next=len(rows) + 1,
        offsets=np.arange(len(rows) + 1),
        record_ts_ms=np.full(len(rows) + 1, -1),
        attributes=(),
        fields={},
        strict_names=None,
    )


def config(text: str) -> Config:
    return parse_config({"a.yaml": text.encode()})[0]


def test_each_new_name_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    listed = config("events: {view: {}}\nfunnels: {f: {steps: [view, buy]}}")
    names = UnlistedNames(3, RING)
    assert names.look(batch(["view", "clik", "signup", "clik", "buy", "a\nb"]), listed, listed.hash) == [
        '"clik"',
        '"a·b"',
    ]
    assert names.look(batch(["clik", "看"]), listed, listed.hash) == ['"看"']
    assert caplog.text.count("event name") == 3
    assert caplog.text.count("未列入") == 3
    other = config("events: {clik: {}}")
    assert names.look(batch(["view", "clik", "看"]), other, other.hash) == ['"view"']


def test_without_a_block_every_name_is_fine() -> None:
    for plain in (Config(), config("rules: {r: {when: event == 'x' and dwell_ms < 5}}")):
        assert UnlistedNames(0, RING).look(batch(["anything"]), plain, plain.hash) == []


def test_whoever_invents_names_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    listed = config("events: {view: {}}")
    names = UnlistedNames(0, RING)
    told = [names.look(batch([f"n{i}-{j}" for j in range(40)]), listed, listed.hash) for i in range(10)]
    assert sum(map(len, told)) == MAX_TOLD
    assert len(caplog.records) == MAX_TOLD + 1

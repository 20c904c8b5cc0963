"""What is no event becomes one dead letter that says why and shows nothing; its neighbours never notice."""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.partitioner.default import murmur2

from schemas.keys import KeyRing
from schemas.sealing import Sealer
from tests.command import run_woolwatch
from tests.installation import KEY, Installation
from tests.made_events import write_recording
from tests.recounts import rows_of
from tests.services import KafkaBroker, RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOW_MS = int(time.time() * 1000) - 600_000
WEEK_MS = 7 * 86_400_000
KEPT_BYTES = 64 * 1024
PARTITIONS = 2
LEAK = "LEAKED"
"""Stands in every broken record, and must stand nowhere else."""
CONFIG = """
features: {user_events: {entity: user_id, count: "*"}}
events: {strict: true, view: {topic: clicks}, purchase: {topic: participations}}
"""


def event(name: str, **fields: Any) -> dict[str, Any]:
    plain = {"event_id": name, "event": "view", "ts": NOW_MS, "user_id": f"u-{name}", "channel": LEAK}
    return {**plain, **fields}


def line(name: str, **fields: Any) -> bytes:
    return json.dumps(event(name, **fields)).encode()


def without(name: str, missing: str) -> bytes:
    return json.dumps({k: v for k, v in event(name).items() if k != missing}).encode()


def with_text(name: str, text: str) -> bytes:
    """An event with a piece of JSON, or of none, in its last member."""
    return line(name)[:-1] + f", {text}}}".encode()


@dataclass(frozen=True)
class Bad:
    """A record that is no event: its code, and the path of the culprit."""

    raw: bytes
    code: str
    path: str = "$"


BROKEN: dict[str, Bad] = {
    "not utf-8": Bad(line("utf8").replace(b"LEAKED", b"LEAKED\xff"), "not_utf8"),
    "half a surrogate in utf-8": Bad(line("cesu").replace(b"LEAKED", b"LEAKED\xed\xa0\x80"), "not_utf8"),
    "half an escaped surrogate": Bad(with_text("lone", '"page": "\\ud800"'), "not_json"),
    "not json": Bad(b"LEAKED, no JSON at all", "not_json"),
    "truncated": Bad(line("truncated")[:-9], "not_json"),
    "cut in a string": Bad(line("cut")[:30], "not_json"),
    "two objects": Bad(line("two") + line("more"), "not_json"),
    "an array": Bad(b"[" + line("array") + b"]", "not_an_object"),
    "a string": Bad(b'"LEAKED"', "not_an_object"),
    "null": Bad(b"null", "not_an_object"),
    "1024 levels": Bad(with_text("deep", '"a": ' + "[" * 1024 + "]" * 1024), "too_deep"),
    "1024 open brackets": Bad(b'{"a":' * 1024, "too_deep"),
    "nan": Bad(with_text("nan", '"lat": NaN, "lon": 1'), "not_json"),
    "infinity": Bad(with_text("inf", '"dwell_ms": -Infinity'), "not_json"),
    "1e999": Bad(with_text("huge", '"lat": 1e999, "lon": 1'), "out_of_range"),
    "2^64": Bad(line("2e64", dwell_ms=2**64), "out_of_range", "$.dwell_ms"),
    "2^63": Bad(line("2e63", amount_minor=2**63), "out_of_range", "$.amount_minor"),
    "2^53": Bad(line("2e53", cost_minor=2**53), "out_of_range", "$.cost_minor"),
    "ts of 2^64": Bad(line("ts64", ts=2**64), "out_of_range", "$.ts"),
    "negative": Bad(line("negative", dwell_ms=-1), "out_of_range", "$.dwell_ms"),
    "number as user": Bad(line("number", user_id=7), "wrong_type", "$.user_id"),
    "object as event": Bad(line("object", event={"LEAKED": 1}), "wrong_type", "$.event"),
    "text as ts": Bad(line("text", ts="LEAKED"), "wrong_type", "$.ts"),
    "fraction as ts": Bad(line("fraction", ts=NOW_MS + 0.5), "wrong_type", "$.ts"),
    "boolean as dwell": Bad(line("boolean", dwell_ms=True), "wrong_type", "$.dwell_ms"),
    "list as channel": Bad(line("list", channel=["LEAKED"]), "wrong_type", "$.channel"),
    "text as latitude": Bad(line("north", lat="LEAKED", lon=1), "wrong_type", "$.lat"),
    "nested attribute": Bad(line("nested", extra={"LEAKED": 1}), "wrong_type", "$.extra"),
    "nested attribute of an odd name": Bad(line("odd", **{"LEAKED, no word": []}), "wrong_type", "$.*"),
    "label of 2": Bad(line("label", label=2), "out_of_range", "$.label"),
    **{
        f"no {name}": Bad(without(f"no-{name}", name), "missing", f"$.{name}")
        for name in ("event_id", "event", "ts", "user_id")
    },
    **{
        f"empty {name}": Bad(line(f"empty-{name}", **{name: ""}), "missing", f"$.{name}")
        for name in ("event_id", "event", "user_id")
    },
    "null user": Bad(line("null", user_id=None), "missing", "$.user_id"),
    "long event id": Bad(line("e" * 65), "too_long", "$.event_id"),
    "long event": Bad(line("long-event", event="e" * 65), "too_long", "$.event"),
    "long user": Bad(line("long-user", user_id="微" * 129), "too_long", "$.user_id"),
    "hundreds of fields": Bad(
        line("fields", **{f"x{i}": LEAK for i in range(300)}), "too_many_attributes", "$"
    ),
    "33 fields": Bad(line("fields33", **{f"x{i}": 1 for i in range(33)}), "too_many_attributes", "$"),
    "64 KiB and a byte": Bad(
        line("full", extra="x" * (KEPT_BYTES + 1 - len(line("full", extra="")))), "too_large"
    ),
    "1 MB": Bad(line("1mb", extra=LEAK * 170_000), "too_large"),
    "bad ip": Bad(line("ip", ip="1.2.3.999"), "bad_ip", "$.ip"),
    "host name as ip": Bad(line("host", ip="LEAKED.example"), "bad_ip", "$.ip"),
    "latitude alone": Bad(line("lat", lat=31.2), "half_coordinate", "$.lon"),
    "longitude alone": Bad(line("lon", lon=121.5), "half_coordinate", "$.lat"),
    "latitude of 91": Bad(line("pole", lat=91, lon=0), "out_of_range", "$.lat"),
    "ts in seconds": Bad(line("seconds", ts=NOW_MS // 1000), "too_old", "$.ts"),
    "ts of 1970": Bad(line("1970", ts=0), "too_old", "$.ts"),
    "ts of 1999": Bad(line("1999", ts=946_684_799_999), "too_old", "$.ts"),
    "name not listed under strict": Bad(line("strict", event="LEAKED"), "unknown_event", "$.event"),
}
QUARANTINED: dict[str, Bad] = {
    # Hours, for the record's own time is that of its sending, long after this line in a run of all tests.
    "in some hours": Bad(line("soon", ts=NOW_MS + 5 * 3_600_000), "in_the_future", "$.ts"),
    "from next week": Bad(line("week", ts=NOW_MS + WEEK_MS), "in_the_future", "$.ts"),
}
"""Live only: a replay knows no future."""
TEN_MB = Bad(line("10mb", extra=LEAK * 1_700_000), "too_large")
ODD: dict[str, bytes] = {
    "duplicate keys": with_text("twice", '"event": "purchase", "event": "view", "channel": "last"'),
    "empty optional fields": line("empty", channel="", device_id="", ip=None, dwell_ms=None),
    "32 further fields": line("fields32", **{f"x{i}": 1 for i in range(32)}),
    "further numbers beyond 2^64": line("big", extra=2**70),
    "an event of exactly 64 KiB": line("brim", extra="x" * (KEPT_BYTES - len(line("brim", extra="")))),
    "a name in Chinese, escaped": line("sign", channel="微信"),
    "mapped address": line("mapped", ip="::ffff:10.0.0.1"),
}
"""Strange, yet events."""
ASTRAY = 20
"""Events in the partition of another user."""


def neighbour(number: int) -> bytes:
    return line(f"good-{number}", event="purchase" if number % 3 == 0 else "view", channel="calm")


def recording(records: list[bytes]) -> list[bytes]:
    """The records, a good neighbour before each and one behind all."""
    lines = [part for number, raw in enumerate(records) for part in (neighbour(number), raw)]
    return [*lines, neighbour(len(records))]


@dataclass
class Outcome:
    """What a run made of the records."""

    verdicts: dict[str, dict[str, Any]]
    letters: list[dict[str, Any]]
    shown: str
    """Everything that people may read of it."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    places: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def letter(self, bad: Bad) -> dict[str, Any]:
        """The only dead letter of a record."""
        digest = hashlib.sha256(bad.raw).hexdigest()
        (found,) = [letter for letter in self.letters if letter["sha256"] == digest]
        return found


def verdicts_of(out: Path) -> dict[str, dict[str, Any]]:
    names = ("event_id", "event", "channel", "page", "device", "ip", "topic", "partition")
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows_of(out, "verdicts", ", ".join(names))}


def consume(brokers: str, topic: str) -> list[Any]:
    """Every record of a topic, as far as it reaches now."""
    with closing(
        KafkaConsumer(bootstrap_servers=brokers, group_id=None, enable_auto_commit=False)
    ) as consumer:
        tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        ends, records = consumer.end_offsets(tps), []
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            records += [record for found in consumer.poll(timeout_ms=500).values() for record in found]
    return records


def topic_of(installation: Installation, role: str) -> str:
    return f"{installation.namespace}-{role}"


def publish_astray(installation: Installation) -> None:
    """Events as a producer sends them that hashes keys in its own way, and a tombstone."""
    topic = topic_of(installation, "clicks")
    with closing(KafkaProducer(bootstrap_servers=installation.kafka.bootstrap, acks="all")) as producer:
        for number in range(ASTRAY):
            key = f"u-astray-{number}".encode()
            wrong = 1 - int((murmur2(key) & 0x7FFFFFFF) % PARTITIONS)
            producer.send(topic, line(f"astray-{number}", channel="calm"), key=key, partition=wrong)
        producer.send(topic, None, key=b"u-tombstone", partition=0)
        producer.flush()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strict")
    (folder / "all.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaBroker, redis_server: RedisServer, config: Path
) -> Iterator[Outcome]:
    """All records through Kafka and one worker."""
    folder = tmp_path_factory.mktemp("bad-input")
    prefix = f"bad-input-{folder.name[-1]}{NOW_MS}-"
    installation = Installation(folder, kafka, redis_server, prefix, config, partitions=PARTITIONS)
    bad = [case.raw for case in (BROKEN | QUARANTINED).values()]
    lines = recording([*bad, *ODD.values()])
    try:
        worker = installation.start_worker()
        installation.load(write_recording(folder / "events.jsonl", lines))
        publish_astray(installation)
        report = installation.wait_until_judged(len(lines) + ASTRAY + 1)
        assert installation.stop(worker) == 0
        records = consume(kafka.bootstrap, topic_of(installation, "deadletters"))
        places = {
            hashlib.sha256(record.value or b"").hexdigest(): (role, record.partition, record.offset)
            for role in ("clicks", "participations")
            for record in consume(kafka.bootstrap, topic_of(installation, role))
        }
        yield Outcome(
            verdicts_of(installation.out),
            [json.loads(record.value) for record in records],
            "".join(path.read_text() for path in folder.glob("worker-*.log"))
            + "".join(str(record.key) for record in records),
            report["sources"],
            places,
        )
    finally:
        installation.close()


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Outcome:
    """All records through `replay`, and one of 10 MB."""
    folder = tmp_path_factory.mktemp("bad-replay")
    bad = [case.raw for case in BROKEN.values()]
    # At the end what only a replay accepts: behind it everything is late.
    lines = [*recording([*bad, TEN_MB.raw, *ODD.values()]), *(case.raw for case in QUARANTINED.values())]
    path = write_recording(folder / "events.jsonl", lines)
    done = run_woolwatch("replay", path, "--config", config, "--out", folder / "out", key=KEY.encode())
    assert f"{len(BROKEN) + 1} rejected" in done.stdout
    columns = ("topic", "partition", "offset", "code", "path", "expected", "length", "sha256", "sealed")
    letters = [
        dict(zip(columns, row, strict=True))
        for row in rows_of(folder / "out", "deadletters", ", ".join(f'"{name}"' for name in columns))
    ]
    return Outcome(verdicts_of(folder / "out"), letters, done.stdout + done.stderr)


def check_letter(letter: dict[str, Any], bad: Bad) -> None:
    assert (letter["code"], letter["path"], letter["length"]) == (bad.code, bad.path, len(bad.raw))
    sealed = letter.pop("sealed")
    assert LEAK not in str(letter)
    assert letter["expected"]
    place = {name: letter[name] for name in ("topic", "partition", "offset")}
    sealed = b64decode(sealed) if isinstance(sealed, str) else bytes(sealed)
    assert LEAK.encode() not in sealed
    assert Sealer(KeyRing(KEY.encode())).open_sealed(sealed, **place) == bad.raw[:KEPT_BYTES]


@pytest.mark.parametrize("name", BROKEN | QUARANTINED)
def test_a_bad_record_is_one_dead_letter(live: Outcome, name: str) -> None:
    bad = (BROKEN | QUARANTINED)[name]
    letter = live.letter(bad)
    assert (letter["topic"], letter["partition"], letter["offset"]) == live.places[letter["sha256"]]
    check_letter(dict(letter), bad)


@pytest.mark.parametrize("name", [*BROKEN, "10 MB"])
def test_a_bad_line_is_one_dead_letter_of_a_replay(replayed: Outcome, name: str) -> None:
    bad = BROKEN.get(name, TEN_MB)
    check_letter(dict(replayed.letter(bad)), bad)


def test_a_replay_knows_no_future(replayed: Outcome) -> None:
    assert {"week", "soon"} <= replayed.verdicts.keys()
    assert len(replayed.letters) == len(BROKEN) + 1


@pytest.mark.parametrize("name", ODD)
def test_a_strange_event_is_an_event(live: Outcome, replayed: Outcome, name: str) -> None:
    event_id = json.loads(ODD[name])["event_id"]
    live_verdict, replayed_verdict = live.verdicts[event_id], replayed.verdicts[event_id]
    assert live_verdict | {"partition": 0} == replayed_verdict


def test_of_a_key_that_comes_twice_the_last_counts(live: Outcome) -> None:
    verdict = live.verdicts["twice"]
    assert (verdict["event"], verdict["channel"], verdict["topic"]) == ("view", "last", "clicks")


def test_empty_means_absent(live: Outcome) -> None:
    verdict = live.verdicts["empty"]
    assert (verdict["channel"], verdict["device"], verdict["ip"]) == (None, None, None)


def test_neighbours_are_unharmed(live: Outcome, replayed: Outcome) -> None:
    live_neighbours = {f"good-{number}" for number in range(len(BROKEN | QUARANTINED | ODD) + 1)}
    replayed_neighbours = {f"good-{number}" for number in range(len(BROKEN | ODD) + 2)}
    odd = {json.loads(raw)["event_id"] for raw in ODD.values()}
    astray = {f"astray-{number}" for number in range(ASTRAY)}
    assert live.verdicts.keys() == live_neighbours | odd | astray
    assert replayed.verdicts.keys() == replayed_neighbours | odd | {"soon", "week"}


def test_every_record_is_accounted_for(live: Outcome) -> None:
    counted = {
        name: sum(source[name] for source in live.sources)
        for name in ("consumed", "verdicts", "rejected", "duplicates", "late", "waiting", "difference")
    }
    rejected = len(BROKEN | QUARANTINED) + 1
    assert counted == {
        "consumed": len(live.verdicts) + rejected,
        "verdicts": len(live.verdicts),
        "rejected": rejected,
        "duplicates": 0,
        "late": 0,
        "waiting": 0,
        "difference": 0,
    }


def test_a_dead_letter_is_written_once(live: Outcome) -> None:
    places = [(letter["topic"], letter["partition"], letter["offset"]) for letter in live.letters]
    assert len(places) == len(set(places)) == len(BROKEN | QUARANTINED) + 1


def test_a_tombstone_is_a_dead_letter(live: Outcome) -> None:
    (letter,) = [letter for letter in live.letters if letter["length"] == 0]
    assert (letter["topic"], letter["partition"], letter["code"], letter["path"]) == (
        "clicks",
        0,
        "not_json",
        "$",
    )


def test_no_value_is_shown_anywhere(live: Outcome, replayed: Outcome) -> None:
    for outcome in (live, replayed):
        assert LEAK not in outcome.shown
        assert "Traceback" not in outcome.shown


def test_a_producer_that_hashes_otherwise_is_named_with_the_cure(live: Outcome) -> None:
    wrong = [1 - int((murmur2(f"u-astray-{i}".encode()) & 0x7FFFFFFF) % PARTITIONS) for i in range(ASTRAY)]
    assert [live.verdicts[f"astray-{i}"]["partition"] for i in range(ASTRAY)] == wrong
    complaints = [said for said in live.shown.splitlines() if "belong to another partition" in said]
    sources = {said["message"].partition(":")[0] for said in map(json.loads, complaints)}
    assert sources == {f"clicks-{partition}" for partition in set(wrong)}
    assert len(complaints) == len(sources)
    assert {json.loads(said)["level"] for said in complaints} == {"error"}
    assert all("murmur2_random" in said for said in complaints)


def test_a_row_that_no_broker_takes_is_left_out_of_a_load_and_said(
    tmp_path: Path, kafka: KafkaBroker, redis_server: RedisServer, topic_prefix: str
) -> None:
    (tmp_path / "config").mkdir()
    installation = Installation(
        tmp_path, kafka, redis_server, topic_prefix, tmp_path / "config", partitions=PARTITIONS
    )
    path = write_recording(tmp_path / "events.jsonl", [neighbour(1), TEN_MB.raw, neighbour(2)])
    places = ("--config", installation.config, "--brokers", kafka.bootstrap, "--partitions", PARTITIONS)
    done = run_woolwatch("load", path, *map(str, places), key=KEY.encode(), expect=1)
    assert "1 rows are larger than any broker takes" in done.stderr
    assert len(consume(kafka.bootstrap, topic_of(installation, "clicks"))) == 2


# -- the config --------------------------------------------------------------------------------------------

BAD_CONFIGS = {
    "a typo": ("fetaures: {}", "$.fetaures", ["fetaures", "features"]),
    "a typo in a feature": (
        "features: {other: {entity: device_id, distinctt: user_id}}",
        "$.features.other.distinctt",
        ["distinctt", "distinct"],
    ),
    "an unknown feature": (
        "features: {other: {entity: device_id, distinct: user_id}}\nrules: {shared: {when: othr >= 2}}",
        "$.rules.shared.when",
        ["othr", "other"],
    ),
    "a weight of 7": (
        "rules: {quick: {when: dwell_ms < 900, weight: 7}}",
        "$.rules.quick.weight",
        ["7", "0 to 1"],
    ),
    "no yaml": ("rules: {quick: [", "$", []),
}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("check", name) for name in BAD_CONFIGS),
        ("replay", "an unknown feature"),
        ("worker", "a weight of 7"),
    ],
)
def test_a_bad_config_is_refused_in_full_sentences(tmp_path: Path, command: str, name: str) -> None:
    text, path, words = BAD_CONFIGS[name]
    config = tmp_path / "config"
    config.mkdir()
    (config / "detectors.yaml").write_text(text)
    recorded = write_recording(tmp_path / "events.jsonl", [neighbour(1)])
    out = tmp_path / "out"
    arguments: dict[str, list[str | Path]] = {
        "check": [],
        "replay": [recorded, "--out", out],
        "worker": ["--brokers", "127.0.0.1:9", "--wait", "0", "--out", out, "--state", tmp_path / "state"],
    }
    # To check it is to ask, and the answer is no; to run with it is wrong use.
    code = 1 if command == "check" else 2
    said = run_woolwatch(
        command, *arguments[command], "--config", config, key=KEY.encode(), expect=code
    ).stderr
    assert f"detectors.yaml: {path}" in said
    assert "found " in said
    assert "expected " in said
    assert all(word in said for word in words)
    assert not out.exists()

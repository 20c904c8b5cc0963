"""How a worker starts, and what it says when it can not; how it stops, and that nothing is left over then."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewPartitions
from redis import Redis

from schemas.keys import KeyRing
from schemas.pseudonyms import Pseudonyms
from tests.command import WOOLWATCH, run_woolwatch
from tests.faults.processes import children_of
from tests.installation import KEY, Install, Installation
from tests.made_events import made_events, write_config, write_recording
from tests.recounts import rows_of, same_tables
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOBODY = "127.0.0.1:9"
PATIENCE_S = 60.0
LOST = 2
"""The start before which the state folder is lost."""
TABLES = ("verdicts", "late", "metrics/funnel", "metrics/dau", "metrics/events")


def participations(rows: int, seed: int) -> list[bytes]:
    """Events of one topic, so that their order is the same everywhere."""
    return [
        raw for raw in made_events(rows, seed, broken=False) if b'"signup"' in raw or b'"purchase"' in raw
    ]


def messages(log: Path) -> list[str]:
    """What a worker and its children logged; each line must be JSON."""
    return [json.loads(said)["message"] for said in log.read_text().splitlines()]


def wait_for(log: Path, words: str) -> None:
    """Wait until a log says something."""
    wait_until(lambda: words in log.read_text(), lambda: f"{words!r} was never said:\n{log.read_text()}")


# -- nobody there ------------------------------------------------------------------------------------------


def plain_sentences(stderr: str) -> list[str]:
    """The lines that are no log entries: what is said to the person who typed the command."""
    return [said for said in stderr.splitlines() if not said.startswith("{")]


@pytest.mark.parametrize("command", ["worker", "load", "reconcile", "sightings"])
def test_without_kafka_a_command_tries_again_then_ends_with_a_sentence(tmp_path: Path, command: str) -> None:
    recording = write_recording(tmp_path / "events.jsonl", made_events(1, broken=False))
    more: dict[str, list[str | Path]] = {
        "load": [recording],
        "sightings": ["--out", tmp_path / "log.parquet"],
    }
    said = run_woolwatch(
        command,
        *more.get(command, []),
        "--brokers",
        NOBODY,
        "--wait",
        "2",
        key=KEY.encode(),
        expect=3,
        cwd=tmp_path,
    ).stderr
    assert plain_sentences(said)[-1] == f"no Kafka broker answered at {NOBODY} within 2 seconds"
    assert said.count("trying again") >= 2


def test_without_redis_a_worker_tries_again_then_ends_with_a_sentence(
    tmp_path: Path, kafka: KafkaBroker, topic_prefix: str
) -> None:
    (tmp_path / "config").mkdir()
    absent = RedisServer(tmp_path)
    installation = Installation(tmp_path, kafka, absent, topic_prefix, tmp_path / "config", partitions=1)
    command: list[str | Path] = ["worker", "--config", installation.config, "--brokers", kafka.bootstrap]
    command += ["--redis", f"redis://someone:secret-word@{NOBODY}/0", "--wait", "2"]
    said = run_woolwatch(*command, key=KEY.encode(), expect=3, cwd=tmp_path).stderr
    assert plain_sentences(said) == [f"Redis at redis://{NOBODY}/0 did not answer within 2 seconds"]
    assert said.count("trying again") >= 2
    assert "secret-word" not in said


def test_reconcile_reads_redis_where_it_is_named(
    tmp_path: Path, kafka: KafkaBroker, topic_prefix: str
) -> None:
    (tmp_path / "config").mkdir()
    absent = RedisServer(tmp_path)
    installation = Installation(tmp_path, kafka, absent, topic_prefix, tmp_path / "config", partitions=1)
    command: list[str | Path] = ["reconcile", *installation.endpoints(), "--wait", "0", "--out", tmp_path]
    said = run_woolwatch(*command, key=KEY.encode(), cwd=tmp_path).stdout
    assert "Redis was not read" in said
    (tmp_path / "settings.yaml").write_text(f"redis: redis://{NOBODY}/0\n")
    for named in (["--redis", f"redis://{NOBODY}/0"], ["--settings", "settings.yaml"]):
        said = run_woolwatch(*command, *named, key=KEY.encode(), expect=3, cwd=tmp_path).stderr
        assert plain_sentences(said) == [f"Redis at redis://{NOBODY}/0 did not answer at once"]


@pytest.mark.parametrize("component", ["kafka", "redis"])
def test_wait_0_tries_once(tmp_path: Path, kafka: KafkaBroker, topic_prefix: str, component: str) -> None:
    (tmp_path / "config").mkdir()
    Installation(tmp_path, kafka, RedisServer(tmp_path), topic_prefix, tmp_path / "config", partitions=1)
    brokers = NOBODY if component == "kafka" else kafka.bootstrap
    command: list[str | Path] = [
        "worker",
        "--config",
        tmp_path / "config",
        "--brokers",
        brokers,
        "--wait",
        "0",
    ]
    command += ["--redis", f"redis://{NOBODY}/0"]
    said = run_woolwatch(*command, key=KEY.encode(), expect=3, cwd=tmp_path).stderr
    assert len(plain_sentences(said)) == 1
    assert "at once" in said
    assert "trying again" not in said


def test_the_environment_names_what_flags_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOLWATCH_BROKERS", NOBODY)
    monkeypatch.setenv("WOOLWATCH_WAIT", "0")
    for command in ("worker", "reconcile"):
        said = run_woolwatch(command, key=KEY.encode(), expect=3, cwd=tmp_path).stderr
        assert plain_sentences(said)[-1] == f"no Kafka broker answered at {NOBODY} at once"
    other = "127.0.0.1:7"
    said = run_woolwatch("reconcile", "--brokers", other, key=KEY.encode(), expect=3, cwd=tmp_path).stderr
    assert plain_sentences(said)[-1] == f"no Kafka broker answered at {other} at once"


@pytest.mark.parametrize("wait", ["soon", "-1", "nan", "inf"])
def test_a_wait_that_is_none_is_wrong_use(tmp_path: Path, wait: str) -> None:
    done = run_woolwatch(
        "worker", "--brokers", NOBODY, "--wait", wait, key=KEY.encode(), expect=2, cwd=tmp_path
    )
    assert "expected seconds, 0 or 'forever'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_wait_for_ever_ends_with_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "worker.log"
    with log.open("wb") as stderr:
        worker = subprocess.Popen(
            [WOOLWATCH, "worker", "--brokers", NOBODY, "--wait", "forever"], stderr=stderr, cwd=tmp_path
        )
    wait_for(log, "trying again")
    worker.send_signal(number)
    assert worker.wait(PATIENCE_S) == 0


def test_kafka_and_redis_may_come_later(tmp_path: Path, topic_prefix: str, kafka: KafkaBroker) -> None:
    with RedisServer(tmp_path) as redis_server:
        installation = Installation(
            tmp_path, kafka, redis_server, topic_prefix, write_config(tmp_path / "config"), partitions=1
        )
        log = tmp_path / "worker-001.log"
        try:
            with redis_server.down():
                with kafka.down():
                    worker = installation.start_worker()
                    wait_for(log, f"no Kafka broker answers at {kafka.bootstrap} yet, trying again")
                wait_for(log, "does not answer yet, trying again")
            wait_for(log, "judge 0: at turn 0")
            assert installation.stop(worker) == 0
        finally:
            installation.close()


def processes_of(worker: subprocess.Popen[bytes]) -> list[int]:
    """A worker and its children."""
    return [worker.pid, *children_of(worker.pid)]


def ports_of(pid: int) -> list[int]:
    """TCP ports on which a process listens."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    listening = []
    for name in ("tcp", "tcp6"):
        for entry in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = entry.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in links:
                listening.append(int(local.rpartition(":")[2], 16))
    return listening


def test_two_workers_start_with_the_same_flags_in_the_same_folder(install: Install, tmp_path: Path) -> None:
    installation = install(2)
    lines = made_events(600)
    workers = [installation.start_worker(), installation.start_worker()]
    for number in (1, 2):
        wait_for(tmp_path / f"worker-{number:03d}.log", ": at turn 0")
    installation.load(write_recording(tmp_path / "events.jsonl", lines))
    installation.wait_until_judged(len(lines))
    found = {pid: ports_of(pid) for worker in workers for pid in processes_of(worker)}
    assert list(found.values()) == [[]] * 6
    assert [installation.stop(worker) for worker in workers] == [0, 0]
    left = {path.name for path in tmp_path.iterdir()} - {"worker-001.log", "worker-002.log"}
    assert left == {"config", "out", "state", "events.jsonl"}


# -- one installation, started and stopped again and again -------------------------------------------------


@dataclass
class Story:
    """What was seen along the life of one installation of one partition."""

    folder: Path
    installation: Installation
    ignored: list[bytes]
    judged: list[bytes]
    exits: list[int]
    rows: list[int]
    sizes: list[int]
    refusals: dict[str, str]

    def log(self, number: int) -> list[str]:
        """What the worker of that number said."""
        return messages(self.folder / f"worker-{number + 1:03d}.log")


def with_a_flagged_end(lines: list[bytes], seed: int) -> list[bytes]:
    """The lines, then somebody who signs up and buys at once: Redis shows who is held for review, and nobody else."""
    ts = max(json.loads(line)["ts"] for line in lines)
    flagged = [
        {"event_id": f"end{seed}-{name}", "event": name, "ts": ts + i, "user_id": f"end{seed}", "dwell_ms": 5}
        for i, name in enumerate(("signup", "purchase"))
    ]
    return [*lines, *(json.dumps(event).encode() for event in flagged)]


def stop_while_verdicts_are_held(
    installation: Installation, worker: subprocess.Popen[bytes], last: bytes, by: signal.Signals
) -> int:
    """Signal a worker once Redis has the verdict of the last event: tables and metrics come seconds later."""
    event = json.loads(last)
    name = Pseudonyms(KeyRing(KEY.encode())).pseudonym("user", event["user_id"])
    key = f"{{{installation.namespace}}}:verdict:user:{name}"
    with Redis.from_url(installation.redis.url, decode_responses=True) as client:
        wait_until(lambda: client.hget(key, "event_id") == event["event_id"], installation.logs)
    worker.send_signal(by)
    return worker.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaBroker, redis_server: RedisServer
) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    prefix = f"start-{time.time_ns()}-"
    config = write_config(folder / "config")
    installation = Installation(folder, kafka, redis_server, prefix, config, partitions=1)
    ignored, *parts = (with_a_flagged_end(participations(900, seed), seed) for seed in (11, 12, 13, 14))
    story = Story(
        folder, installation, ignored, [raw for part in parts for raw in part], [], [], [*map(len, parts)], {}
    )
    try:
        installation.load(write_recording(folder / "ignored.jsonl", ignored))
        for number, (part, by) in enumerate(
            zip(parts, (signal.SIGTERM, signal.SIGINT, signal.SIGTERM), strict=True)
        ):
            if number == LOST:
                shutil.rmtree(installation.state)
            # Where a first start began is decided once, also if the state is lost.
            worker = installation.start_worker(WOOLWATCH_FROM="earliest" if number == LOST else "latest")
            wait_for(folder / f"worker-{number + 1:03d}.log", "judge 0: at turn")
            installation.load(write_recording(folder / f"part-{number}.jsonl", part))
            story.exits.append(stop_while_verdicts_are_held(installation, worker, part[-1], by))
            story.rows.append(len(rows_of(installation.out, "verdicts", "event_id")))
        story.refusals = refusals(installation)
        yield story
    finally:
        installation.close()


def refusals(installation: Installation) -> dict[str, str]:
    """What a worker says that must not start on this state, by why."""
    found = {}

    def start(why: str, **environment: str) -> None:
        worker = installation.start_worker(**environment)
        assert worker.wait(PATIENCE_S) == 3
        log = installation.folder / f"worker-{len(installation._workers):03d}.log"
        found[why] = log.read_text()

    start("another key", WOOLWATCH_KEY="another key, of more than 16 bytes")
    with closing(KafkaAdminClient(bootstrap_servers=installation.kafka.bootstrap)) as admin:
        admin.create_partitions({f"{installation.namespace}-clicks": NewPartitions(2)})
        start("unequal topics")
        admin.create_partitions({f"{installation.namespace}-participations": NewPartitions(2)})
        start("more partitions")
    return found


def test_a_first_start_from_latest_ignores_what_was_there(story: Story) -> None:
    ids = {event_id for (event_id,) in rows_of(story.installation.out, "verdicts", "event_id")}
    assert ids == {json.loads(raw)["event_id"] for raw in story.judged}
    assert not ids & {json.loads(raw)["event_id"] for raw in story.ignored}


def test_a_signal_stops_cleanly_and_publishes_what_is_held(story: Story) -> None:
    assert story.exits == [0, 0, 0]
    assert story.rows[-1] == len(story.judged)
    story.installation.replay(
        write_recording(story.folder / "judged.jsonl", story.judged), out=story.folder / "replayed"
    )
    columns = '* exclude ("offset")'
    same_tables(story.installation.out, story.folder / "replayed", "verdicts", columns=columns)
    same_tables(story.installation.out, story.folder / "replayed", *TABLES[2:])


def test_a_lost_state_is_made_again_from_the_log(story: Story) -> None:
    (resumed,) = [said for said in story.log(LOST) if said.startswith("judge 0: at turn")]
    match = re.fullmatch(r"judge 0: at turn 0, (\d+) recorded turns to take again", resumed)
    assert match is not None
    assert int(match[1]) > 1
    # That the numbers are right again is in the comparison with a replay above.
    assert story.rows == [sum(story.sizes[: number + 1]) for number in range(3)]


def test_after_a_clean_stop_nothing_is_taken_again(story: Story) -> None:
    (resumed,) = [said for said in story.log(1) if said.startswith("judge 0: at turn")]
    match = re.fullmatch(r"judge 0: at turn (\d+), 0 recorded turns to take again", resumed)
    assert match is not None
    assert int(match[1]) > 0


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("another key", "another key"),
        ("unequal topics", "participations has 1 partitions, but 2 are expected"),
        ("more partitions", "must not change under an existing state"),
    ],
)
def test_what_does_not_fit_the_state_is_refused_in_plain_words(story: Story, why: str, words: str) -> None:
    assert words in story.refusals[why]
    assert "Traceback" not in story.refusals[why]


def test_a_worker_leaves_nothing_behind_but_tables_and_state(story: Story) -> None:
    found = {path.name for path in story.folder.iterdir() if not path.name.startswith("worker-")}
    assert {name for name in found if not name.endswith(".jsonl")} == {"config", "out", "state", "replayed"}

"""A worker's metrics and health over HTTP, as Prometheus and a supervisor ask for them."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.installation import Installation
from tests.made_events import made_events, write_config, write_recording
from tests.recounts import rows_of
from tests.services import KafkaBroker, RedisServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def ask(address: str, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def values_of(text: str, name: str, **labels: str) -> list[float]:
    """Values of a metric's samples that have these labels."""
    return [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"woolwatch_{name}" and labels.items() <= sample.labels.items()
    ]


def addresses_in(state: Path) -> dict[int, str]:
    """The addresses that workers wrote down, by process."""
    return {
        int(file.stem.rpartition("-")[2]): json.loads(file.read_text())[0]["targets"][0]
        for file in (state / "http").glob("*.json")
    }


def test_metrics_count_what_the_tables_have_and_health_follows_the_worker(
    tmp_path: Path, kafka: KafkaBroker, topic_prefix: str
) -> None:
    config = write_config(tmp_path / "config")
    with RedisServer(tmp_path) as redis_server, socket.create_server(("127.0.0.1", 0)) as taken:
        installation = Installation(tmp_path, kafka, redis_server, topic_prefix, config, partitions=2)
        (installation.state / "http").mkdir(parents=True)
        left = installation.state / "http" / f"{socket.gethostname()}-999999999.json"
        left.write_text('[{"targets": ["127.0.0.1:1"]}]')
        port = taken.getsockname()[1]
        lines = made_events(1_500)
        try:
            # The port is taken, as it is when a second worker starts with the same flags.
            worker = installation.start_worker(WOOLWATCH_HTTP=f"127.0.0.1:{port}")
            wait_until(lambda: worker.pid in addresses_in(installation.state), installation.logs())
            assert not left.exists()
            address = addresses_in(installation.state)[worker.pid]
            assert address.startswith("127.0.0.1:")
            assert int(address.rpartition(":")[2]) > port
            assert ask(address, "/healthz") == (200, "ok\n")
            assert ask(address, "/elsewhere")[0] == 404
            wait_until(lambda: ask(address, "/readyz") == (200, "ok\n"), ask(address, "/readyz")[1])
            installation.load(write_recording(tmp_path / "events.jsonl", lines))
            installation.wait_until_judged(len(lines))
            wait_until(
                lambda: (
                    sum(values_of(ask(address, "/metrics")[1], "durable_lag_records", part="engine")) == 0
                ),
                ask(address, "/metrics")[1],
            )
            compare(ask(address, "/metrics")[1], installation)
            redis_is_waited_for(address, redis_server, installation, tmp_path)
            (engine,) = children_of(worker.pid, "engine")
            os.kill(engine, signal.SIGSTOP)
            try:
                wait_until(
                    lambda: ask(address, "/healthz")[0] == 503, "an engine that stands still is missed"
                )
                assert "the engine has said nothing" in ask(address, "/readyz")[1]
            finally:
                os.kill(engine, signal.SIGCONT)
            assert installation.stop(worker) == 0
            assert addresses_in(installation.state) == {}
        finally:
            installation.close()


def compare(text: str, installation: Installation) -> None:
    """What was counted, against the tables and the account of reconcile."""
    sources = installation.reconcile()["sources"]
    for topic in ("clicks", "participations"):
        for outcome, name in (("late", "late"), ("duplicate", "duplicates"), ("rejected", "rejected")):
            want = sum(source[name] for source in sources if source["topic"] == topic)
            assert values_of(text, "events_total", topic=topic, outcome=outcome) == [want]
    levels = Counter(level for (level,) in rows_of(installation.out, "verdicts", "level"))
    for level in ("pass", "observe", "review", "block"):
        assert values_of(text, "verdicts_total", level=level) == [levels[level]]
    assert sum(values_of(text, "dead_letters_total")) == sum(source["rejected"] for source in sources)
    assert values_of(text, "owned_partitions", part="engine") == [6]
    assert values_of(text, "owned_partitions", part="rollup") == [2]
    assert len(values_of(text, "checkpoint_age_seconds", kind="judge")) == 2
    assert len(values_of(text, "memory_bytes", of="process")) == 2
    assert all(value > 1e7 for value in values_of(text, "memory_bytes", of="process"))
    newest = max(ts for (ts,) in rows_of(installation.out, "verdicts", "epoch(ts)"))
    assert max(values_of(text, "watermark_seconds")) <= newest
    assert not values_of(text, "away_seconds")


def redis_is_waited_for(address: str, redis: RedisServer, installation: Installation, folder: Path) -> None:
    """While Redis is down a worker that has something for it is not ready, and says why; it is not unwell."""
    with redis.down():
        installation.load(write_recording(folder / "more.jsonl", made_events(300, 2)))
        wait_until(lambda: ask(address, "/readyz")[0] == 503, "readiness without Redis")
        assert "has waited for Redis" in ask(address, "/readyz")[1]
        assert values_of(ask(address, "/metrics")[1], "away_seconds", component="Redis")
        assert ask(address, "/healthz")[0] == 200
    wait_until(lambda: ask(address, "/readyz")[0] == 200, "readiness with Redis again")


def children_of(pid: int, part: str) -> list[int]:
    """Processes of a worker by what they are."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in tasks
        if part.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    ]


def test_an_address_that_is_none_is_wrong_use(tmp_path: Path, kafka: KafkaBroker, topic_prefix: str) -> None:
    with RedisServer(tmp_path) as redis_server:
        config = write_config(tmp_path / "config")
        installation = Installation(tmp_path, kafka, redis_server, topic_prefix, config, partitions=1)
        flags = (*installation.endpoints(), *installation.places())
        for address, found in (
            ("9100", "expected host:port"),
            ("192.0.2.1:0", "expected an address to listen on"),
        ):
            done = installation.run("worker", *flags, "--http", address, check=False)
            assert (done.returncode, found in done.stderr) == (2, True), done.stderr
            assert "Traceback" not in done.stderr

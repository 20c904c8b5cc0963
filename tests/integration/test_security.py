"""Kafka with TLS and SASL, Redis with TLS and a password: the whole way through, and why one is not let in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from schemas.errors import ConfigError, RefusedError, UnreachableError
from streams.first_contact import reach_redis
from streams.security import kafka_brokers
from streams.settings import Settings
from streams.topics import TopicSpec, ensure_topics, open_topics
from tests.certificates import Authority, Pair
from tests.command import run_woolwatch
from tests.installation import KEY, Installation
from tests.made_events import made_events, write_config, write_recording
from tests.recounts import redis_equals_parquet
from tests.secure_services import PASSWORD, USER, SecureKafka, TlsRedis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Site:
    """The services, and what there is to get in with."""

    kafka: SecureKafka
    redis: TlsRedis
    ca: str
    other_ca: str
    password: str
    wrong: str
    ours: Pair
    foreign: Pair

    def sasl(self, **changed: Any) -> dict[str, Any]:
        """Settings that are let in at the door ``scram``."""
        right = {
            "brokers": self.kafka.door("scram"),
            "kafka_protocol": "SASL_SSL",
            "kafka_ca_file": self.ca,
            "kafka_username": USER,
            "kafka_password_file": self.password,
        }
        return {**right, **changed}

    def tls(self, door: str, **more: Any) -> dict[str, Any]:
        """Settings for a door that wants no user."""
        return {"brokers": self.kafka.door(door), "kafka_protocol": "SSL", "kafka_ca_file": self.ca, **more}

    def of_redis(self, **changed: Any) -> dict[str, Any]:
        """Settings that Redis lets in."""
        right = {
            "redis": self.redis.url,
            "redis_ca_file": self.ca,
            "redis_username": USER,
            "redis_password_file": self.password,
        }
        return {**right, **changed}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority, other = Authority(folder), Authority(folder, "another-authority")
    for name, content in (("password", PASSWORD), ("wrong", "not the password")):
        (folder / name).write_text(f"{content}\n")
    with SecureKafka(folder, authority) as kafka, TlsRedis(folder, authority) as redis:
        yield Site(
            kafka,
            redis,
            str(authority.ca),
            str(other.ca),
            str(folder / "password"),
            str(folder / "wrong"),
            authority.sign("worker.test"),
            other.sign("stranger.test"),
        )


class Guarded(Installation):
    """An installation that reaches its services through a settings file alone."""

    def endpoints(self) -> Sequence[str | Path]:
        """The settings file, which says where everything is."""
        return ("--settings", self.folder / "settings.yaml")

    def places(self) -> Sequence[str | Path]:
        """Nothing more."""
        return ()


def test_worker_load_reconcile_and_sightings_behind_tls_and_sasl(
    tmp_path: Path, site: Site, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "config")
    installation = Guarded(tmp_path, site.kafka, site.redis, topic_prefix, config, partitions=2)
    settings = {**site.sasl(), **site.of_redis(), "config": config, "namespace": installation.namespace}
    settings |= {"out": installation.out, "state": installation.state, "partitions": 2}
    del settings["redis_password_file"]
    monkeypatch.setenv("WOOLWATCH_REDIS_PASSWORD", PASSWORD)
    (tmp_path / "settings.yaml").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    lines = made_events(1_500)
    try:
        worker = installation.start_worker()
        installation.load(write_recording(tmp_path / "events.jsonl", lines))
        installation.wait_until_judged(len(lines))
        assert installation.stop(worker) == 0
    finally:
        installation.close()
    installation.sightings()
    inside = f"rediss://{USER}:{quote(PASSWORD)}@127.0.0.1:{site.redis.port}/0?ssl_ca_certs={site.ca}"
    assert redis_equals_parquet(inside, installation.namespace, installation.out) > 5
    assert PASSWORD not in installation.logs()


@pytest.mark.parametrize("door", ["plain", "mutual"])
def test_the_other_doors_open_too(site: Site, topic_prefix: str, door: str) -> None:
    files = {"kafka_cert_file": str(site.ours.cert), "kafka_key_file": str(site.ours.key)}
    of_door = {
        "plain": site.sasl(brokers=site.kafka.door("plain"), kafka_mechanism="PLAIN"),
        "mutual": site.tls("mutual", **files),
    }
    brokers, topic = kafka_brokers(Settings(**of_door[door])), f"{topic_prefix}x"

    ensure_topics(brokers, {topic: TopicSpec(1)})
    with open_topics(brokers) as topics:
        assert topics.partition_count(topic) == 1


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("wrong password", "does not accept the user, password or mechanism"),
        ("unknown user", "does not accept the user, password or mechanism"),
        ("wrong mechanism", "does not accept the user, password or mechanism"),
        ("unknown authority", "shows a certificate that is not trusted here"),
        ("authorities of the system", "shows a certificate that is not trusted here"),
        ("another host", "shows a certificate that is made out to another host"),
        ("expired", "shows a certificate that has expired"),
        ("no certificate of ours", "does not accept our certificate, or wants one"),
        ("a certificate of strangers", "does not accept our certificate, or wants one"),
    ],
)
def test_kafka_that_does_not_let_us_in_is_told_from_kafka_that_is_away(
    site: Site, how: str, said: str
) -> None:
    foreign = {"kafka_cert_file": str(site.foreign.cert), "kafka_key_file": str(site.foreign.key)}
    settings = {
        "wrong password": site.sasl(kafka_password_file=site.wrong),
        "unknown user": site.sasl(kafka_username="nobody"),
        "wrong mechanism": site.sasl(kafka_mechanism="PLAIN"),
        "unknown authority": site.sasl(kafka_ca_file=site.other_ca),
        "authorities of the system": site.sasl(kafka_ca_file=None),
        "another host": site.tls("elsewhere"),
        "expired": site.tls("expired"),
        "no certificate of ours": site.tls("mutual"),
        "a certificate of strangers": site.tls("mutual", **foreign),
    }[how]
    # It may wait for ever, and must not.
    with (
        pytest.raises(RefusedError, match=said),
        open_topics(kafka_brokers(Settings(**settings)), wait_s=None),
    ):
        pass


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_another_protocol_than_the_door_speaks_is_guessed(site: Site, protocol: str) -> None:
    settings = site.tls(
        "scram", kafka_protocol=protocol, kafka_ca_file=site.ca if protocol == "SSL" else None
    )
    with (
        pytest.raises(UnreachableError, match="is kafka_protocol the one"),
        open_topics(kafka_brokers(Settings(**settings)), wait_s=0),
    ):
        pass


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"redis_password_file": "wrong"}, "does not accept the user or password"),
        ({"redis_password_file": None}, "does not accept the user or password"),
        ({"redis_ca_file": "other_ca"}, "shows a certificate that is not trusted here"),
        ({"redis": "localhost"}, "shows a certificate that is made out to another host"),
    ],
)
def test_redis_that_does_not_let_us_in_is_not_waited_for(
    site: Site, changed: dict[str, str | None], said: str
) -> None:
    meant: dict[str | None, Any] = {"wrong": site.wrong, "other_ca": site.other_ca, None: None}
    meant["localhost"] = site.redis.url.replace("127.0.0.1", "localhost")
    settings = site.of_redis(**{name: meant[value] for name, value in changed.items()})
    with pytest.raises(RefusedError, match=said):
        asyncio.run(_reach(Settings(wait_s=None, **settings)))


async def _reach(settings: Settings) -> None:
    """Reach Redis, and end only with the connection closed: a loop that ends before TLS has said good-bye leaks it."""
    try:
        await reach_redis(settings)
    finally:
        opened: Any = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]  # nobody else knows
        async with asyncio.timeout(20):
            while any(transport._sock is not None for transport in list(opened.values())):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"kafka_ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem: $: found No such file"),
        ({"kafka_ca_file": __file__}, "expected certificates in PEM"),
        ({"kafka_cert_file": "/nowhere/cert.pem"}, "found No such file"),
        ({"kafka_key_file": "/nowhere/key.pem"}, "expected these only with kafka_cert_file"),
        ({"kafka_username": None}, "$.kafka_username: found nothing"),
        ({"kafka_password_file": None}, "$.kafka_password_file: found nothing"),
        ({"kafka_protocol": "PLAINTEXT"}, "only with kafka_protocol SSL or SASL_SSL"),
        ({"kafka_protocol": "SSL"}, "only with kafka_protocol SASL_SSL or SASL_PLAINTEXT"),
    ],
)
def test_settings_that_can_not_be_meant_are_refused_before_anybody_is_asked(
    site: Site, changed: dict[str, Any], found: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        kafka_brokers(Settings(**site.sasl(**changed)))
    assert found in str(refused.value)


@pytest.mark.parametrize("command", ["worker", "load", "reconcile"])
def test_a_command_that_is_not_let_in_says_so_in_one_sentence(
    tmp_path: Path, site: Site, command: str
) -> None:
    recording = write_recording(tmp_path / "events.jsonl", made_events(1, broken=False))
    wrong = site.sasl(
        **{"kafka_ca_file": site.other_ca} if command == "load" else {"kafka_password_file": site.wrong}
    )
    flags = [word for name, value in wrong.items() for word in (f"--{name.replace('_', '-')}", value)]
    files = [recording] if command == "load" else []
    done = run_woolwatch(
        command, *files, *flags, "--wait", "forever", key=KEY.encode(), expect=3, cwd=tmp_path
    )
    (sentence,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert sentence.startswith(f"Kafka at {site.kafka.door('scram')} ")

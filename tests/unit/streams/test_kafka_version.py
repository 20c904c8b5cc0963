"""Brokers that do not tell which Kafka they speak as, and the clients that must be told."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from streams.security import kafka_brokers
from streams.settings import Settings


def test_the_version_reaches_kafka_python_alone() -> None:
    brokers = kafka_brokers(Settings(kafka_version="2.3"))
    assert brokers.kafka_python_options()["api_version"] == (2, 3)
    assert "api_version" not in brokers.client_options()


def test_without_a_version_brokers_are_asked() -> None:
    assert kafka_brokers(Settings()).kafka_python_options()["api_version"] is None


@pytest.mark.parametrize("text", ["2", "two.three", "2.", "-2.3", ""])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a version such as 2\.3"):
        kafka_brokers(Settings(kafka_version=text))

from __future__ import annotations

import ssl

import pytest
from faust import SASLCredentials, SSLCredentials

from schemas.errors import ConfigError
from streams.brokers import Brokers
from streams.security import kafka_brokers
from streams.settings import Settings


@pytest.mark.parametrize(
    ("brokers", "expected"),
    [
        ("kafka", ["kafka:9092"]),
        ("kafka:9093", ["kafka:9093"]),
        (" a:1 , b ,", ["a:1", "b:9092"]),
        ("[::1]", ["[::1]:9092"]),
        ("[::1]:9094", ["[::1]:9094"]),
        ("10.0.0.7", ["10.0.0.7:9092"]),
    ],
)
def test_addresses_have_a_port(brokers: str, expected: list[str]) -> None:
    assert Brokers(brokers).addresses == expected


def test_no_broker_is_an_error() -> None:
    with pytest.raises(ValueError, match="host:port"):
        _ = Brokers(" , ").addresses


@pytest.mark.parametrize("names", [" , ", "kafka:70000"])
def test_brokers_that_are_none_are_wrong_config(names: str) -> None:
    with pytest.raises(ConfigError, match=r"found .*; expected host:port,host:port"):
        kafka_brokers(Settings(brokers=names))


def test_urls_name_the_transport() -> None:
    assert [str(url) for url in Brokers("a:1,b").urls("batch")] == ["batch://a:1", "batch://b:9092"]


def test_credentials_become_client_arguments() -> None:
    context = ssl.create_default_context()
    assert Brokers("a").auth() == {"security_protocol": "PLAINTEXT"}
    assert Brokers("a", SSLCredentials(context)).auth() == {
        "security_protocol": "SSL",
        "ssl_context": context,
    }
    secret = ssl.RAND_bytes(8).hex()
    plain = SASLCredentials(username="u", password=secret, mechanism="SCRAM-SHA-512", ssl_context=context)
    assert Brokers("a", plain).client_options() == {
        "bootstrap_servers": ["a:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": secret,
        "ssl_context": context,
    }


def test_no_password_is_shown() -> None:
    secret = ssl.RAND_bytes(8).hex()
    brokers = Brokers("a:1", SASLCredentials(username="u", password=secret))
    assert secret not in repr(brokers)
    assert str(brokers) == "a:1"

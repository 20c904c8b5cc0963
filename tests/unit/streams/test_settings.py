from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest

from schemas.config import parse_config
from schemas.errors import ConfigError
from streams.settings import Settings, load_key, parse_start, secret
from streams.worker import Order


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("0", "0"),
        ("1767225600000", "1767225600000"),
        ("2026-01-01", "1767225600000"),
        ("2026-01-01T00:00:00Z", "1767225600000"),
        ("2026-01-01T08:00:00.250+08:00", "1767225600250"),
        ("2025-12-31 16:00-08:00", "1767225600000"),
    ],
)
def test_a_start_is_a_word_a_date_or_a_time(written: str, meant: str) -> None:
    assert parse_start(written) == meant


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("soon", "expected earliest, latest, a date"),
        ("", "expected earliest"),
        ("-1", "expected earliest"),
        ("1e12", "expected earliest"),
        ("9" * 30, "expected earliest"),
        ("2026-02-30", "expected earliest"),
        ("2026-01-01T00:00:00", "without its zone"),
        ("1969-12-31", "before 1970"),
    ],
)
def test_what_is_no_start_is_refused(written: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        parse_start(written)


def test_a_secret_comes_by_environment_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\n")
    assert secret("kafka_password", None) is None
    assert secret("kafka_password", str(file)) == "from the file"
    monkeypatch.setenv("WOOLWATCH_KAFKA_PASSWORD", "from the environment")
    assert secret("kafka_password", str(file)) == "from the environment"


@pytest.mark.parametrize(
    ("content", "found"),
    [(None, "No such file"), (b" \n", "an empty file"), (b"x" * 100_000, "more than 64 KiB")],
)
def test_a_bad_secret_file_is_named(tmp_path: Path, content: bytes | None, found: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=found) as refused:
        secret("redis_password", str(file))
    assert refused.value.file == str(file)
    assert "redis_password_file" in refused.value.expected


def test_a_key_of_any_bytes_stays_as_it_is(tmp_path: Path) -> None:
    raw = bytes(range(0x80, 0xA0))
    (tmp_path / "key").write_bytes(raw + b"\n")
    assert load_key(str(tmp_path / "key")).fingerprint != load_key(_made(tmp_path, raw[:-1])).fingerprint
    assert load_key(str(tmp_path / "key")).fingerprint == load_key(_made(tmp_path, raw)).fingerprint


def _made(folder: Path, raw: bytes) -> str:
    file = folder / f"key-{len(raw)}"
    file.write_bytes(raw)
    return str(file)


def test_without_any_a_key_is_made_once_and_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    made = load_key().fingerprint
    assert load_key().fingerprint == made
    (file,) = (tmp_path / "woolwatch").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_short_key_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOLWATCH_KEY", "hush")
    with pytest.raises(ConfigError, match="found 4 bytes") as refused:
        load_key()
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("topics", ["{}", "{clicks: c}", "{clicks: c, only: clicks}"])
def test_engine_and_rollup_are_told_the_names_of_topics_and_nothing_else(topics: str) -> None:
    config, _ = parse_config({"a.yaml": f"topics: {topics}".encode()})
    settings = Settings().with_topics_of(config)
    assert settings.topics == config.topics.names()
    assert Order.decode(msgspec.json.encode(Order(settings, 2))).settings == settings

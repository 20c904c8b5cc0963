"""Flag before environment before file; and what a settings file must not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from commands.group import COMMANDS
from commands.options import OUT, endpoints, redis_endpoint, setting, settings_of
from commands.settings_file import FIELDS, read_settings_file
from schemas.config import Config
from schemas.errors import ConfigError


@click.command()
@endpoints
@redis_endpoint
@OUT
@setting("--from", "start")
def probe(**options: Any) -> None:
    """Show the settings that a command gets."""
    settings = settings_of(Config(), **options)
    click.echo(
        f"{settings.brokers} {settings.namespace} {settings.start} {settings.wait_s} {settings.partitions}"
    )


def written(folder: Path, text: str) -> str:
    file = folder / "settings.yaml"
    file.write_text(text)
    return str(file)


def test_a_flag_comes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path, "brokers: by-file:1\nnamespace: by-file\nfrom: 2026-01-01\nwait: forever\nout: elsewhere\n"
    )
    environment = {
        "WOOLWATCH_SETTINGS": file,
        "WOOLWATCH_NAMESPACE": "by-environment",
        "WOOLWATCH_BROKERS": "no:1",
    }
    done = CliRunner().invoke(probe, ["--brokers", "by-flag:1"], env=environment, catch_exceptions=False)
    assert done.output.split() == ["by-flag:1", "by-environment", "1767225600000", "None", "4"]


def test_the_file_overrules_defaults_and_leaves_the_rest(tmp_path: Path) -> None:
    file = written(tmp_path, "partitions: 7\nwait: 1.5\nfrom: 1767225600000\n")
    done = CliRunner().invoke(probe, ["--settings", file], catch_exceptions=False)
    assert done.output.split() == ["localhost:9092", "woolwatch", "1767225600000", "1.5", "7"]


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        ("brokerz: a:1", "$.brokerz", 'found the block "brokerz"; expected one of brokers'),
        ("brokers: 7", "$.brokers", "found 7; expected brokers of Kafka"),
        ("brokers:", "$.brokers", "found nothing; expected brokers of Kafka"),
        ("partitions: 0", "$.partitions", "found 0; expected partitions"),
        ("partitions: two", "$.partitions", 'found "two"; expected partitions'),
        ("kafka_protocol: TLS", "$.kafka_protocol", "expected protocol of the brokers: PLAINTEXT, SSL"),
        ("wait: soon", "$.wait", "expected seconds"),
        ("topics: {clicks: x}", "$.topics", 'found the block "topics"'),
        ("brokers: a:1\nbrokers: b:1", "$", "each key once"),
        ("[1]", "$", "found a list of 1; expected a mapping"),
        ("a: &x [1]\nb: *x", "$.b", "aliases are not taken"),
    ],
)
def test_what_is_wrong_in_a_settings_file_is_named(tmp_path: Path, text: str, path: str, found: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        read_settings_file(file)
    (problem,) = [said for said in refused.value.problems if said.path.startswith(path)]
    assert problem.file == file
    assert found in str(problem)


@pytest.mark.parametrize("name", ["kafka_password", "redis_password", "key"])
def test_a_secret_in_the_open_is_refused_and_not_shown(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_settings_file(written(tmp_path, f"{name}: hush-hush"))
    assert f"{name}_file, or WOOLWATCH_{name.upper()}" in str(refused.value)
    assert "hush-hush" not in str(refused.value)


def test_every_setting_is_an_option_of_the_worker_and_explained() -> None:
    (worker,) = [command for command in COMMANDS if command.name == "worker"]
    options = {option.envvar: option for option in worker.params if isinstance(option, click.Option)}
    for name in FIELDS:
        option = options[f"WOOLWATCH_{name.upper()}"]
        assert f"--{name.replace('_', '-')}" in option.opts
        assert option.help

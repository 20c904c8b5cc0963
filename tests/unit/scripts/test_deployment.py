"""What docker/ says fits what the program takes; whether it runs there is for whoever has Docker to see."""

from __future__ import annotations

import re

import yaml

from commands.settings_file import FIELDS, read_settings_file
from tests.services import REPOSITORY

DOCKER = REPOSITORY / "docker"
SECRETS = {"key", "kafka_password", "redis_password", "settings"}


def test_every_variable_is_a_setting() -> None:
    files = [DOCKER / "Dockerfile", DOCKER / "compose.yaml", DOCKER / "systemd" / "woolwatch.service"]
    found = {name.lower() for file in files for name in re.findall(r"WOOLWATCH_([A-Z_]+)", file.read_text())}
    assert {"key", "key_file", "brokers", "out", "http"} <= found
    assert found <= FIELDS.keys() | SECRETS


def test_the_settings_shown_are_settings() -> None:
    shown = read_settings_file(str(DOCKER / "settings.yaml"))
    assert shown["kafka_protocol"] == "SASL_SSL"
    page = (REPOSITORY / "docs" / "INSTALL.md").read_text()
    (secure,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "SASL_SSL" in block]
    assert yaml.safe_load(secure).keys() <= FIELDS.keys()


def test_compose_starts_the_worker_after_what_it_needs_and_publishes_nothing_but_kafka_to_this_host() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert services["worker"]["depends_on"].keys() == {"kafka", "redis"}
    assert all("healthcheck" in services[name] for name in services["worker"]["depends_on"])
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_is_built_from_every_package_and_runs_as_nobody() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    packages = re.search(r"wheel\]\nonly-include = \[(.*)\]", (REPOSITORY / "pyproject.toml").read_text())
    assert packages is not None
    assert set(re.findall(r'"(\w+)"', packages[1])) <= allowed
    users = re.findall(r"^USER (\S+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["10001:10001"]

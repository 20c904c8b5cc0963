"""Where compiled kernels are kept, and their first compilation.

Numba notices that a function changed, but not that a function it calls in another module did: after an upgrade an old
cache would go on computing the old way. So the cache is named after everything that was compiled: our sources and the
compiler's version. Filling it takes a minute, once for each version; ``make setup`` does it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("schemas", "detectors", "metrics", "sinks")
"""Whose code, or whose constants, are compiled in."""
_VARIABLE = "NUMBA_CACHE_DIR"
_WARM = "warm"
_PREFIX, _KEPT = "kernels-", 3


def use_kernel_cache() -> Path:
    """Point Numba to this version's cache, for this process and its children; call it before Numba is imported.

    It lies in the user's cache folder (XDG_CACHE_HOME), or in the temporary one where that can not be written. A
    NUMBA_CACHE_DIR that is set already is left as it is.
    """
    if named := os.environ.get(_VARIABLE):
        return Path(named)
    for base in (_user_cache(), Path(tempfile.gettempdir()) / f"woolwatch-{os.getuid()}"):
        folder = base / f"{_PREFIX}{_digest()}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            os.environ[_VARIABLE] = str(folder)
            return folder
    return Path(__file__).parent


def is_warm(folder: Path) -> bool:
    """Whether the kernels of this version were compiled before."""
    return (folder / _WARM).exists()


def mark_warm(folder: Path) -> None:
    """Note that they are, and remove all but the newest caches: each version leaves one of some 10 MB."""
    (folder / _WARM).touch()
    others = sorted(folder.parent.glob(f"{_PREFIX}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "woolwatch"


def _digest() -> str:
    digest = hashlib.sha256(f"{version('numba')} {version('llvmlite')}".encode())
    root = Path(__file__).parents[1]
    for package in _PACKAGES:
        for path in sorted((root / package).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]

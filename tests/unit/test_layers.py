"""The core is pure: schemas, detectors and metrics touch neither files, nor the network, nor the clock.

import-linter watches what they import of each other and of the brokers; this watches the standard library and
the built-in names, which it does not see.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CORE = ("schemas", "detectors", "metrics")

IMPURE_MODULES = frozenset(
    {
        "asyncio",
        "glob",
        "io",
        "logging",
        "os",
        "pathlib",
        "shutil",
        "socket",
        "subprocess",
        "tempfile",
        "time",
    }
)
PURE_NAMES = frozenset({"PurePath", "PurePosixPath"})  # a path as text: never looks at a disk
IMPURE_CALLS = frozenset({"open", "input", "print", "eval", "exec", "__import__"})
# datetime.now() and its like, and the file functions of the libraries that the core computes with.
IMPURE_METHODS = frozenset(
    {
        "now",
        "utcnow",
        "today",
        "fromfile",
        "tofile",
        "loadtxt",
        "savetxt",
        "memmap",
        "read_table",
        "write_table",
    }
)


def impurities(source: str) -> Iterator[str]:
    """Each use of the outside in `source`, as ``line: what``."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names if alias.name.split(".")[0] in IMPURE_MODULES]
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in IMPURE_MODULES:
                found = [f"{module}.{alias.name}" for alias in names if alias.name not in PURE_NAMES]
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                found = [f"{name}()"]
            case ast.Attribute(attr=name) if name in IMPURE_METHODS:
                found = [f".{name}"]
            case _:
                found = []
        yield from (f"{line}: {what}" for what in found)


def core_modules() -> list[Path]:
    return sorted(path for package in CORE for path in (REPOSITORY / package).rglob("*.py"))


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_core_touches_nothing_outside(path: Path) -> None:
    assert list(impurities(path.read_text(encoding="utf-8"))) == []


def test_every_package_of_the_core_is_looked_at() -> None:
    assert {path.relative_to(REPOSITORY).parts[0] for path in core_modules()} == set(CORE)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os.path", "os.path"),
        ("import json, time", "time"),
        ("from pathlib import Path, PurePath", "pathlib.Path"),
        ("def f():\n    with open('x') as g: ...", "open()"),
        ("from datetime import datetime\nd = datetime.now()", ".now"),
        ("import numpy as np\nnp.fromfile('x')", ".fromfile"),
    ],
)
def test_what_touches_the_outside_is_found(source: str, found: str) -> None:
    assert [line.split(": ")[1] for line in impurities(source)] == [found]


def test_what_only_looks_alike_is_left_alone() -> None:
    source = "import ostrich\nfrom pathlib import PurePosixPath\nfrom timeless import x\nx.opens(x.open_rate)"
    assert list(impurities(source)) == []

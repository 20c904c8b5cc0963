"""Decoders of types are made when their module is imported, by one thread.

The first use of a type makes msgspec look into it. Where two threads do so at the same time the process crashes: with
msgspec 0.22, four threads and fresh types within seconds.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator

from tests.services import REPOSITORY

Place = tuple[str, ast.AST]


def nodes(*, within_functions: bool) -> Iterator[Place]:
    """All nodes of the packages, or only those in functions, each with its module."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for package in project["tool"]["importlinter"]["root_packages"]:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            roots = [
                node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            for root in roots if within_functions else [tree]:
                yield from ((str(path), node) for node in ast.walk(root))


def calls(name: str, places: Iterator[Place]) -> list[tuple[str, ast.Call]]:
    """Calls of a method or a module's function of that name."""
    return [
        (path, node)
        for path, node in places
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
    ]


def test_no_type_is_given_when_something_is_decoded() -> None:
    decoded = calls("decode", nodes(within_functions=True))
    assert len(decoded) > 20
    typed = [(path, call) for path, call in decoded if any(word.arg == "type" for word in call.keywords)]
    assert not [f"{path}:{call.lineno}" for path, call in typed]


def test_decoders_are_made_outside_of_functions() -> None:
    assert len(calls("Decoder", nodes(within_functions=False))) > 10
    assert not [f"{path}:{call.lineno}" for path, call in calls("Decoder", nodes(within_functions=True))]

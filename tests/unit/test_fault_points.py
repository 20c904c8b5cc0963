"""Every fault point has a test that kills there: a step that nobody dies at is a promise that nobody has tried."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator

from tests.faults.test_kill_workers import WRITE_PATH
from tests.services import REPOSITORY

_LABELS = "tests/integration/test_labels.py::test_one_partition_equals_replay_to_the_bit_through_a_kill"
_UPKEEP = "tests/unit/sinks/test_compaction.py::test_wherever_it_stops_every_row_is_there_once_in_the_end"
_DAYS = "tests/unit/streams/test_rollup_days.py::test_an_event_for_a_closed_day_is_added_to_what_it_had"
KILLED_ELSEWHERE = {
    "labels.recorded": _LABELS,
    "upkeep.planned": _UPKEEP,
    "compact.staged": _UPKEEP,
    "compact.published": _UPKEEP,
    "upkeep.decided": _UPKEEP,
    "store.removing": _UPKEEP,
    "upkeep.done": _UPKEEP,
    "rollup.archived": _DAYS,
    "rollup.closed": _DAYS,
}
"""Steps that no plain event passes, and the test that kills there."""


def test_each_fault_point_is_on_the_write_path_or_has_a_test_of_its_own() -> None:
    on_the_path = {step for step, _ in WRITE_PATH}
    assert not on_the_path & KILLED_ELSEWHERE.keys()
    assert fault_points() == on_the_path | KILLED_ELSEWHERE.keys()


def test_the_tests_that_are_named_know_their_steps() -> None:
    for step, named in KILLED_ELSEWHERE.items():
        path, _, test = named.partition("::")
        nodes = list(ast.walk(ast.parse((REPOSITORY / path).read_text())))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert test in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}, named
        assert step in {text.partition(":")[0] for text in texts if isinstance(text, str)}, (step, path)


def fault_points() -> set[str]:
    """Names of the places in the packages at which a test may kill the process."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = project["tool"]["importlinter"]["root_packages"]
    return {
        name
        for package in packages
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        for name in _names_in(ast.parse(path.read_text()), str(path.relative_to(REPOSITORY)))
    }


def _names_in(tree: ast.Module, path: str) -> Iterator[str]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        # What a function is told to die at is its argument `fault`: the name stands where it is called.
        handed_on = [keyword.value for keyword in call.keywords if keyword.arg == "fault"]
        if isinstance(call.func, ast.Name) and call.func.id == "fault_point":
            handed_on += [place for place in call.args if ast.unparse(place) != "fault"]
        for place in handed_on:
            assert isinstance(place, ast.Constant), f"{path}:{place.lineno}: a name that no test can look up"
            assert isinstance(place.value, str)
            yield place.value

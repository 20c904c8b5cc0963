"""The error tree: exit codes as the contract has them, and errors that survive a process boundary."""

from __future__ import annotations

import pickle

import pytest

from schemas import errors
from schemas.errors import ConfigError, ConfigProblem, WoolwatchError

LEAVES = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WoolwatchError)
]


def test_wrong_config_and_recordings_exit_with_2_and_everything_else_with_3() -> None:
    assert {kind.__name__: kind.exit_code for kind in LEAVES} == {
        "WoolwatchError": 3,
        "ConfigError": 2,
        "RecordingError": 2,
        "UnreachableError": 3,
        "RefusedError": 3,
        "DataLossError": 3,
        "StateError": 3,
        "Abandoned": 3,
        "FencedError": 3,
    }


def test_the_tree_that_is_drawn_names_every_error_with_its_exit_code() -> None:
    drawn = errors.__doc__ or ""
    for kind in LEAVES:
        assert any(f" {kind.__name__} " in f" {line.strip('├└─ ')} " for line in drawn.splitlines()), kind
        line = next(line for line in drawn.splitlines() if kind.__name__ in line.split())
        assert f"exit {kind.exit_code}" in line


@pytest.mark.parametrize("kind", LEAVES)
def test_each_error_says_in_one_sentence_what_it_means(kind: type[WoolwatchError]) -> None:
    assert (kind.__doc__ or "").split("\n")[0].endswith(".")


def test_a_config_error_tells_all_problems_and_shows_the_first() -> None:
    first = ConfigProblem("a.yaml", "$.rules.r.weight", "7", "a number from 0 to 1")
    second = ConfigProblem("", "$", "nothing", "a folder")
    error = ConfigError.of_all([first, second])
    assert str(error).splitlines() == [
        "a.yaml: $.rules.r.weight: found 7; expected a number from 0 to 1",
        "$: found nothing; expected a folder",
    ]
    assert (error.file, error.path, error.found, error.expected) == first
    assert error.problems == (first, second)


def test_a_config_error_survives_pickling() -> None:
    error = ConfigError.of_all([ConfigProblem("a", "$.b", "c", "d"), ConfigProblem("e", "$.f", "g", "h")])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own bytes
    assert type(copy) is ConfigError
    assert copy.problems == error.problems
    assert str(copy) == str(error)

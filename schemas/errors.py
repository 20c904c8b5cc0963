"""Everything that can go wrong for whoever runs woolwatch, as one tree.

::

    WoolwatchError               exit 3   never raised itself; catch it to catch all of them
    ├── ConfigError              exit 2   the config folder or a setting is wrong; holds every problem found
    ├── RecordingError           exit 2   a recording cannot be read as one
    ├── UnreachableError         exit 3   a component did not answer in time
    ├── RefusedError             exit 3   a component does not let us in: certificate, user or password
    ├── DataLossError            exit 3   records that were never judged are gone
    ├── StateError               exit 3   a state was written by or for something else
    │   └── ForgottenError       exit 3   Redis lost what it had confirmed (sinks/redis_functions.py)
    ├── Abandoned                exit 3   a wait was let go, because the partition leaves
    │   └── TakenBack            exit 3   so was a turn, and the state is that before it (streams/turn_order.py)
    └── FencedError              exit 3   a newer owner of the partition exists

A bad event is not here: it is data (a dead letter), and never stops anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple


class WoolwatchError(Exception):
    """The root: something that a person has to know about ended the work."""

    exit_code: ClassVar[int] = 3


class ConfigProblem(NamedTuple):
    """One thing that is wrong in the config, said so that it can be mended without asking."""

    file: str
    """Name of the file, relative to the config folder; empty when it is about the folder itself."""
    path: str
    """Where in the file, such as ``$.rules.shared_device.weight``; ``$`` is the whole document."""
    found: str
    expected: str

    def __str__(self) -> str:
        """Return the one line that a terminal shows."""
        place = f"{self.file}: {self.path}" if self.file else self.path
        return f"{place}: found {self.found}; expected {self.expected}"


class ConfigError(WoolwatchError):
    """The config is refused; all of its problems are listed, not only the first.

    ``file``, ``path``, ``found`` and ``expected`` are those of the first problem.

    Examples
    --------
    >>> print(ConfigError(file="a.yaml", path="$.rules.r.weight", found="7", expected="a number from 0 to 1"))
    a.yaml: $.rules.r.weight: found 7; expected a number from 0 to 1
    """

    exit_code = 2

    def __init__(
        self, *, file: str, path: str, found: str, expected: str, more: Iterable[ConfigProblem] = ()
    ) -> None:
        self.file, self.path, self.found, self.expected = file, path, found, expected
        self.problems = (ConfigProblem(file, path, found, expected), *more)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def of_all(cls, problems: Sequence[ConfigProblem]) -> ConfigError:
        """Make the error of several problems, at least one."""
        return cls(**problems[0]._asdict(), more=problems[1:])

    def __reduce__(self) -> tuple[object, tuple[tuple[ConfigProblem, ...]]]:
        """Pickle by the problems, since an exception pickles its message only."""
        return (type(self).of_all, (self.problems,))


class RecordingError(WoolwatchError):
    """A recording is missing, is none of the formats read, or lacks a required column."""

    exit_code = 2


class UnreachableError(WoolwatchError):
    """Kafka, Redis or the sink did not answer within the time allowed."""


class RefusedError(WoolwatchError):
    """Kafka, Redis or the sink answered and does not let us in: certificate, user or password; waiting is no use."""


class DataLossError(WoolwatchError):
    """Records beyond the last durable position are gone from the log, so they cannot be judged any more."""


class StateError(WoolwatchError):
    """A state belongs to another key, to other partition counts, or to a format that is not known here."""


class Abandoned(WoolwatchError):
    """A wait was let go because the partition leaves this worker; its next owner takes the work up again."""


class FencedError(WoolwatchError):
    """A newer owner of the partition exists, so this one must write nothing more."""

"""What is noticed while a config is read: problems that refuse it, and notices that do not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from schemas.errors import ConfigProblem

MAX_SHOWN = 60
"""Characters of a found value that an error repeats."""
MAX_TEXT = 1_000
"""Characters of a path or of an expectation: names in them came in, too."""
MAX_LISTED = 20
"""Names to choose from that an error lists."""


class ConfigNotice(NamedTuple):
    """Something worth knowing about a config that is nevertheless taken."""

    file: str
    path: str
    message: str

    def __str__(self) -> str:
        """Return the one line that a terminal shows."""
        return f"{self.file}: {self.path}: {self.message}" if self.file else f"{self.path}: {self.message}"


class Findings:
    """Collects problems and notices; knows which block stands in which file."""

    def __init__(self) -> None:
        self.problems: list[ConfigProblem] = []
        self.notices: list[ConfigNotice] = []
        self.file_of_block: dict[str, str] = {}
        self.complete = True
        """Whether every file could be read; else names that seem unknown may stand in one that could not."""

    def refuse(self, path: str, *, found: str, expected: str, file: str | None = None) -> None:
        """Note a problem; without ``file`` it is the file of the block that ``path`` starts with."""
        texts = (self._file(path) if file is None else file, path, found, expected)
        self.problems.append(ConfigProblem(*(_plain(text, MAX_TEXT) for text in texts)))

    def notice(self, path: str, message: str) -> None:
        """Note what does not refuse the config."""
        self.notices.append(
            ConfigNotice(*(_plain(text, MAX_TEXT) for text in (self._file(path), path, message)))
        )

    def _file(self, path: str) -> str:
        block = path.removeprefix("$.").split(".", 1)[0].split("[", 1)[0]
        return self.file_of_block.get(block, "")


def show(value: object) -> str:
    """A found value in few characters, whatever it is: what came in is never printed at length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"a mapping of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >> 64:
        return "a number beyond 64 bits"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return _plain(text, MAX_SHOWN)


def _plain(text: str, limit: int) -> str:
    """What came in, cut and without what a terminal would obey."""
    shown = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(c if c.isprintable() else "·" for c in shown)


def one_of(names: Iterable[str], *, found: object = None) -> str:
    """Names to choose from, and the one that was perhaps meant.

    Examples
    --------
    >>> one_of(["when", "weight"], found="wieght")
    'one of when, weight; did you mean weight?'
    """
    choices = list(names)
    near = get_close_matches(found, choices, n=1) if isinstance(found, str) else []
    more = f" and {len(choices) - MAX_LISTED} more" if len(choices) > MAX_LISTED else ""
    listed = f"one of {', '.join(choices[:MAX_LISTED])}{more}" if choices else "nothing, as there is none"
    return f"{listed}; did you mean {near[0]}?" if near else listed

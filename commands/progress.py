"""How commands speak on standard error: plain sentences, and progress."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

errors = Console(stderr=True, highlight=False, soft_wrap=True)


class progress:  # noqa: N801 - used as a function, in a with statement
    """A bar on a terminal, a plain line every few seconds otherwise."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True)
        self._next_line = 1_000_000

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        self._task = self._bar.add_task(self._what, total=self._total)
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _advance(self, rows: int) -> None:
        self._done += rows
        self._bar.advance(self._task, rows)
        if not errors.is_terminal and self._done >= self._next_line:
            errors.print(f"{self._what}: {self._done:,} rows", markup=False)
            self._next_line += 1_000_000

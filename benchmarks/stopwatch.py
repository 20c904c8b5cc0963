"""CPU time of parts of a program, measured where they stand.

Parts may lie inside parts: each is charged with what it does itself. To watch a function that is called deep
inside, its name is replaced for a while by one that takes the time and calls it; so what is measured is the
product, not a copy of its steps that would drift from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import thread_time_ns
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Stopwatch:
    """Adds up CPU nanoseconds of this thread by part.

    It costs about 1 us a call, so watch what works on a batch, not what works on an event.
    """

    def __init__(self) -> None:
        self.spent_ns: dict[str, int] = {}
        self._open: list[str] = []
        self._since_ns = 0

    def call(
        self,
        part: str,
        function: Callable[Arguments, Result],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Call a function on the account of a part."""
        self._charge()
        self._open.append(part)
        try:
            return function(*args, **kwargs)
        finally:
            self._charge()
            self._open.pop()

    @contextmanager
    def watching(self, *watched: tuple[Any, str, str]) -> Iterator[None]:
        """While this lasts, take the time of (owner, name of a function in it, part)."""
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in watched]
        for owner, name, part in watched:
            setattr(owner, name, self._timed(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)

    def _timed(self, part: str, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return self.call(part, function, *args, **kwargs)

        return timed

    def _charge(self) -> None:
        now_ns = thread_time_ns()
        if self._open:
            part = self._open[-1]
            self.spent_ns[part] = self.spent_ns.get(part, 0) + now_ns - self._since_ns
        self._since_ns = now_ns

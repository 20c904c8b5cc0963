"""Steps of compaction and retention are begun, done and ended; what a run before this one left open comes first."""

from __future__ import annotations

from collections.abc import Iterable

from sinks.compaction import Advance, compact
from sinks.retention import expire
from sinks.store import Store
from sinks.upkeep_journal import Step, UpkeepJournal


def finish(store: Store, advance: Advance) -> tuple[list[Step], list[str]]:
    """End what was begun by somebody who died.

    Returns
    -------
    The steps, and a sentence for each group of files that can not be merged.
    """
    journal = UpkeepJournal(store)
    journal.tidy()
    steps = journal.begun_steps()
    return steps, [problem for step in steps for problem in _do(store, step, advance)]


def carry_out(store: Store, steps: Iterable[Step], advance: Advance) -> list[str]:
    """Do the steps of a plan; returns problems as :func:`finish`.

    Raises
    ------
    StateError
        Somebody else has begun a step since it was made.
    """
    problems: list[str] = []
    for step in steps:
        problems += _do(store, UpkeepJournal(store).begin(step), advance)
    return problems


def _do(store: Store, step: Step, advance: Advance) -> list[str]:
    if step.merges:
        return compact(store, step, advance)
    expire(store, step)
    advance(step.rows)
    return []

"""Steps of compaction and retention are begun, done and ended; what a run before this one left open comes first."""

from __future__ import annotations

from collections.abc import Iterable

from sinks.compaction import Advance, compact
from sinks.local_store import LocalStore
from sinks.retention import expire
from sinks.upkeep_journal import Step, UpkeepJournal


def finish(store: LocalStore, advance: Advance) -> tuple[list[Step], list[str]]:
    """End what was begun by somebody who died; the caller is alone.

    Returns
    -------
    The steps, and a sentence for each group of files that can not be merged.
    """
    journal = UpkeepJournal(store)
    journal.tidy()
    steps = journal.open_steps()
    return steps, [problem for step in steps for problem in _do(store, step, advance)]


def carry_out(store: LocalStore, steps: Iterable[Step], advance: Advance) -> list[str]:
    """Do the steps of a plan that was made while the caller was alone; returns problems as :func:`finish`."""
    problems: list[str] = []
    for step in steps:
        UpkeepJournal(store).begin(step)
        problems += _do(store, step, advance)
    return problems


def _do(store: LocalStore, step: Step, advance: Advance) -> list[str]:
    if step.merges:
        return compact(store, step, advance)
    expire(store, step)
    advance(step.rows)
    return []

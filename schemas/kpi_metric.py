"""The language of a KPI alert's ``metric``: what is measured in each window.

::

    funnel.NAME.rate(2, 3)        users seen at step 3 by those seen at step 2
    funnel.NAME.users(2)          users seen at step 2
    users                         users with any event
    events.NAME.count             events of that name
    events.NAME.users             users with one
    events.NAME.amount_minor      what was paid (or cost_minor: what was given), summed up
    events.NAME.dwell_p50         quantile of the time on the page (or dwell_p90, dwell_p99), in ms

with ``.suspect`` or ``.clean`` behind it for that part alone; ``.gross``, all of it, is the default.

A user is *seen at* a step who has an event of the step's name in the window, whatever came before: a funnel's chains
may take days, and an alert that waits for them comes too late. In a steady flow both rates are the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, Literal

from schemas.config_blocks import Block, Funnel
from schemas.config_findings import one_of, show

RATE: Final = "rate"
USERS: Final = "users"
COUNT: Final = "count"
SUM: Final = "sum"
DWELL: Final = "dwell"
Kind = Literal["rate", "users", "count", "sum", "dwell"]
Part = Literal["gross", "suspect", "clean"]

_PARTS: Final[tuple[Part, ...]] = ("gross", "suspect", "clean")
_MEASURES: Final = ("count", "users", "amount_minor", "cost_minor", "dwell_p50", "dwell_p90", "dwell_p99")
_OF_FUNNELS: Final = ("rate(i, j)", "users(i)")
_EXAMPLES: Final = (
    "a metric, such as funnel.NAME.rate(2, 3), funnel.NAME.users(2), events.NAME.count or users"
)

_FUNNEL = re.compile(r"funnel\.(?P<name>[^.()]*)(?:\.(?P<measure>[^.()]*)(?P<arguments>\(.*\))?)?")
_EVENTS = re.compile(r"events\.(?P<name>.+)\.(?P<measure>[^.]*)", re.DOTALL)
_STEPS = re.compile(r"\(\s*(\d{1,3})\s*(?:,\s*(\d{1,3})\s*)?\)")


class KpiMetricError(ValueError):
    """A metric is not in the language; says what was found and what would do."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}; expected {expected}")
        self.found, self.expected = found, expected


class KpiMetric(Block, frozen=True):
    """A metric that is in the language.

    Parameters
    ----------
    kind
        A share of users, distinct users, events, a sum, or a quantile of dwell times.
    events
        Names: two for a rate (the earlier step first), none for any event at all, else one.
    part
        Whose numbers.
    field
        What is summed: ``amount_minor`` or ``cost_minor``.
    percent
        Which quantile.
    """

    kind: Kind
    events: tuple[str, ...] = ()
    part: Part = "gross"
    field: str = ""
    percent: int = 0

    @property
    def counts_users(self) -> bool:
        """Whether distinct users are counted."""
        return self.kind in (RATE, USERS)

    @property
    def zero_without_events(self) -> bool:
        """Whether a window in which nothing happened has the value 0, and not none at all."""
        return self.kind in (USERS, COUNT, SUM)


def parse_kpi_metric(text: str, funnels: Mapping[str, Funnel]) -> KpiMetric:
    """Parse a metric.

    Parameters
    ----------
    text
        As written.
    funnels
        Those of the config.

    Raises
    ------
    KpiMetricError
        It is not in the language, or names a funnel or step that is not there.

    Examples
    --------
    >>> buy = {"buy": Funnel(steps=("look", "cart", "pay"))}
    >>> parse_kpi_metric("funnel.buy.rate(2, 3).clean", buy)
    KpiMetric(kind='rate', events=('cart', 'pay'), part='clean', field='', percent=0)
    >>> parse_kpi_metric("events.page.view.dwell_p90", {})
    KpiMetric(kind='dwell', events=('page.view',), part='gross', field='', percent=90)
    >>> parse_kpi_metric("funnel.buy.rate(2, 4)", buy)
    Traceback (most recent call last):
    schemas.kpi_metric.KpiMetricError: found step 4; expected a step from 1 to 3, as buy has
    """
    measured, part = _without_part(text.strip())
    if measured == USERS:
        return KpiMetric(kind=USERS, part=part)
    if match := _FUNNEL.fullmatch(measured):
        return _of_funnel(match, funnels, part)
    if match := _EVENTS.fullmatch(measured):
        return _of_events(match["name"], match["measure"], part)
    raise KpiMetricError(show(text), _EXAMPLES)


def _without_part(text: str) -> tuple[str, Part]:
    for part in _PARTS:
        if text.endswith(f".{part}"):
            return text.removesuffix(f".{part}"), part
    return text, "gross"


def _of_funnel(match: re.Match[str], funnels: Mapping[str, Funnel], part: Part) -> KpiMetric:
    name, measure = match["name"], match["measure"] or ""
    if name not in funnels:
        expected = one_of([f"funnel.{funnel}" for funnel in funnels], found=f"funnel.{name}")
        raise KpiMetricError(show(f"funnel.{name}"), expected)
    steps = _STEPS.fullmatch(match["arguments"] or "")
    wanted = {RATE: 2, USERS: 1}.get(measure)
    if wanted is None or steps is None or sum(step is not None for step in steps.groups()) != wanted:
        found = f"{measure}{match['arguments'] or ''}"
        raise KpiMetricError(show(found) if found else "nothing", _measures(name, _OF_FUNNELS, found))
    numbers = [int(step) for step in steps.groups() if step is not None]
    names = [_step(name, funnels[name], number) for number in numbers]
    if measure == RATE and (numbers[0] >= numbers[1] or names[0] == names[1]):
        raise KpiMetricError(
            f"steps {numbers[0]} ({names[0]}) and {numbers[1]} ({names[1]})",
            "two steps of different events, the earlier one first",
        )
    return KpiMetric(kind=RATE if measure == RATE else USERS, events=tuple(names), part=part)


def _step(name: str, funnel: Funnel, number: int) -> str:
    if not 1 <= number <= len(funnel.steps):
        raise KpiMetricError(f"step {number}", f"a step from 1 to {len(funnel.steps)}, as {name} has")
    return funnel.steps[number - 1]


def _of_events(name: str, measure: str, part: Part) -> KpiMetric:
    if measure not in _MEASURES:
        raise KpiMetricError(show(measure), f"{one_of(_MEASURES, found=measure)} of events.{name}")
    if len(name) > 64:
        raise KpiMetricError(show(name), "an event's name, 1 to 64 characters")
    if measure in (COUNT, USERS):
        return KpiMetric(kind=COUNT if measure == COUNT else USERS, events=(name,), part=part)
    if measure.startswith("dwell_p"):
        return KpiMetric(kind=DWELL, events=(name,), part=part, percent=int(measure.removeprefix("dwell_p")))
    return KpiMetric(kind=SUM, events=(name,), part=part, field=measure)


def _measures(funnel: str, choices: Collection[str], found: str) -> str:
    return f"{one_of(choices, found=found)} behind funnel.{funnel}, steps counted from 1"

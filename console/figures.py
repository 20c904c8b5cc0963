"""A running campaign as Redis has it: one call for the funnel, one for the daily users, one for new alerts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from redis import Redis

_WHOLE_CAMPAIGN, _NO_VALUE = "all", "-"
_BEGINNING = "0-0"


@dataclass(frozen=True, slots=True)
class Count:
    """Users under one name, and how many of them are suspect."""

    name: str
    gross: int
    suspect: int

    @property
    def clean(self) -> int:
        """The others."""
        return self.gross - self.suspect


@dataclass(frozen=True, slots=True)
class Notice:
    """An alert as it is shown: how grave, ``open`` or ``resolved``, since when (event time), and what it says."""

    severity: str
    state: str
    since_ms: int
    title_zh: str
    title_en: str


class Figures:
    """Reads what is said of one campaign; docs/REDIS.md says where it stands.

    Parameters
    ----------
    client
        Of the engine's Redis.
    namespace, campaign, funnel
        Which figures.
    """

    def __init__(self, client: Redis, *, namespace: str, campaign: str, funnel: str) -> None:
        name = quote(campaign, safe="")
        self._client = client
        self._funnel_key = f"{{{namespace}}}:funnel:{quote(funnel, safe='')}:{name}:{_WHOLE_CAMPAIGN}"
        self._dau_key = f"{{{namespace}}}:dau:{name}"
        self._alerts_key, self._last_alert = f"{{{namespace}}}:alerts", _BEGINNING

    def funnel(self) -> list[Count]:
        """The steps of the funnel, whole campaign, all channels."""
        steps = {}
        for field, value in self._hash(self._funnel_key).items():
            start, dim, dim_value, step = field.split("/")
            if (start, dim, dim_value) == (_WHOLE_CAMPAIGN, _WHOLE_CAMPAIGN, _NO_VALUE):
                steps[int(step)] = Count(value["step_name"], value["gross"], value["suspect"])
        return [steps[number] for number in sorted(steps)]

    def daily_users(self) -> list[Count]:
        """Users of each date, all channels."""
        dates = []
        for field, value in self._hash(self._dau_key).items():
            date, dim, _ = field.split("/")
            if dim == _WHOLE_CAMPAIGN:
                dates.append(Count(date, value["gross"], value["suspect"]))
        return sorted(dates, key=lambda count: count.name)

    def new_alerts(self) -> list[Notice]:
        """Alerts since the last call, oldest first."""
        entries: Any = self._client.xrange(self._alerts_key, min=f"({self._last_alert}")
        if entries:
            self._last_alert = entries[-1][0].decode()
        return [
            _notice({name.decode(): value.decode() for name, value in told.items()}) for _, told in entries
        ]

    def _hash(self, key: str) -> Mapping[str, Any]:
        found: Any = self._client.hgetall(key)
        return {field.decode(): json.loads(value) for field, value in found.items()}


def _notice(told: Mapping[str, str]) -> Notice:
    return Notice(told["severity"], told["state"], int(told["since_ms"]), told["title_zh"], told["title_en"])

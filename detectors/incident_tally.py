"""The counts of one incident in one partition, while they grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.incidents import MOST_ACCOUNTS_SHOWN, Incident, IncidentCounts
from schemas.verdicts import BLOCK, REVIEW

MOST_USERS = 1024
"""Accounts of an incident that a partition tells apart; beyond, their number is this many or more."""


@dataclass(slots=True)
class FlaggedRows:
    """Flagged events of one turn as columns, in judged order; m rows.

    Parameters
    ----------
    ts_ms, cost_minor
        int64[m]; a cost of -1 is none.
    level
        uint8[m].
    user_keys, users
        uint64[m], uint8[m, 16]: keyed hash and pseudonym of the account.
    """

    ts_ms: NDArray[np.int64]
    cost_minor: NDArray[np.int64]
    level: NDArray[np.uint8]
    user_keys: NDArray[np.uint64]
    users: NDArray[np.uint8]


@dataclass(slots=True)
class Tally:
    """What was counted; ``users`` is uint64[...], ascending, and ``changed`` says that nobody was told yet."""

    incident: Incident
    users: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    events: int = 0
    review: int = 0
    block: int = 0
    costing: int = 0
    cost_minor: int = 0
    first_ms: int = np.iinfo(np.int64).max
    last_ms: int = np.iinfo(np.int64).min
    raised_ms: int | None = None
    accounts: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    config_hash: str = ""
    over: bool = False
    changed: bool = True

    def add(self, flagged: FlaggedRows, rows: NDArray[np.int64], *, min_users: int, min_events: int) -> None:
        """Count some of the rows of a turn; how the rows are cut into turns changes nothing."""
        fresh = self._fresh_users(flagged.user_keys[rows])
        if self.raised_ms is None:
            place = self._raised_at(fresh, len(rows), min_users=min_users, min_events=min_events)
            self.raised_ms = None if place is None else int(flagged.ts_ms[rows[place]])
        for row in rows[fresh][: MOST_ACCOUNTS_SHOWN - len(self.accounts)]:
            self.accounts.append(flagged.users[row].tobytes().hex())
        self.users = np.union1d(self.users, flagged.user_keys[rows[fresh]])
        level, cost = flagged.level[rows], flagged.cost_minor[rows]
        self.events += len(rows)
        self.review += int(np.count_nonzero(level == REVIEW))
        self.block += int(np.count_nonzero(level == BLOCK))
        self.costing += int(np.count_nonzero(cost > 0))
        self.cost_minor += sum(cost[cost > 0].tolist())  # Python's integers: no overflow
        self.first_ms = min(self.first_ms, int(flagged.ts_ms[rows].min()))
        self.last_ms = max(self.last_ms, int(flagged.ts_ms[rows].max()))
        self.changed = True

    def _fresh_users(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Places at which an account comes for the first time, as far as accounts are told apart."""
        values, places = np.unique(keys, return_index=True)
        places = np.sort(places[~np.isin(values, self.users, assume_unique=True)])
        return places[: MOST_USERS - len(self.users)]

    def _raised_at(
        self, fresh: NDArray[np.int64], rows: int, *, min_users: int, min_events: int
    ) -> int | None:
        """Place of the event with which there are enough accounts and events; None: not among these."""
        users, events = min_users - len(self.users), min_events - self.events
        if users > len(fresh) or events > rows:
            return None
        return max(int(fresh[users - 1]) if users > 0 else 0, events - 1, 0)

    def counts(self) -> IncidentCounts:
        """What others are told."""
        return IncidentCounts(
            events=self.events,
            users=len(self.users),
            review=self.review,
            block=self.block,
            costing=self.costing,
            cost_minor=self.cost_minor,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            raised_ms=self.raised_ms,
            accounts=tuple(self.accounts),
            reasons=tuple(sorted(self.reasons.items())),
            config_hash=self.config_hash,
            over=self.over,
        )


class _KeptTally(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    key: int
    incident: Incident
    counts: IncidentCounts
    users: bytes
    changed: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_KeptTally])


def pack_tallies(tallies: Iterable[tuple[int, Tally]]) -> bytes:
    """Tallies with their keys as bytes, for a checkpoint."""
    return _encoder.encode(
        [
            _KeptTally(key, tally.incident, tally.counts(), tally.users.tobytes(), tally.changed)
            for key, tally in tallies
        ]
    )


def unpack_tallies(raw: bytes) -> Iterator[tuple[int, Tally]]:
    """What :func:`pack_tallies` packed."""
    for kept in _decoder.decode(raw):
        counts = msgspec.structs.asdict(kept.counts)
        counts |= {
            "users": np.frombuffer(kept.users, np.uint64).copy(),
            "accounts": list(kept.counts.accounts),
            "reasons": dict(kept.counts.reasons),
        }
        yield kept.key, Tally(incident=kept.incident, changed=kept.changed, **counts)

"""What happens in a visit: the acts in their order, and how a table of visits becomes a table of events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulation.breaks import Break
from simulation.draws import Draws

EVENTS: Final = ("exposure", "click", "page_view", "signup", "participate", "redeem", "share", "purchase")
CHANNELS: Final = ("ads", "search", "social", "sms", "qr_code", "invite")
PLATFORMS: Final = ("android", "ios", "h5", "mini_program")
PAGES: Final = ("feed", "landing", "rules", "signup", "draw", "shop", "share")
VARIANTS: Final = ("a", "b")
CAMPAIGN: Final = "spring"
INVITE: Final = CHANNELS.index("invite")

ACTS: Final = (
    "exposure", "click", "page_view", "page_view", "signup", "participate", "redeem", "share", "purchase",
)  # fmt: skip
"""The acts of a visit, in their order; any of them may be left out."""
EXPOSURE, CLICK, LANDING, RULES, SIGNUP, PARTICIPATE, REDEEM, SHARE, PURCHASE = range(len(ACTS))
_EVENT_OF_ACT = np.array([EVENTS.index(name) for name in ACTS], np.uint8)
_PAGE_OF_ACT = np.array([PAGES.index(page) for page in (
    "feed", "feed", "landing", "rules", "signup", "draw", "shop", "share", "shop",
)], np.uint8)  # fmt: skip

INVITATION_BONUS_MINOR: Final = 300
COUPONS_MINOR: Final = np.array([500, 1_000, 2_000], np.int32)
_PRIZE_CHANCE, _PRIZES_MINOR = 0.15, 400

VISITOR: Final = np.dtype(
    [
        ("user", "u8"), ("device", "u8"), ("ip", "u8"), ("inviter", "u8"), ("phone", "i8"),
        ("lat", "f8"), ("lon", "f8"), ("party", "i4"),
        ("channel", "u1"), ("platform", "u1"), ("variant", "u1"), ("kind", "u1"), ("crowd", "u1"),
    ]
)  # fmt: skip
"""Who comes, and the truth about them. 0 is absent for device, ip, inviter and phone; NaN for a place."""

EVENT: Final = np.dtype(
    [
        ("ts", "i8"), ("key", "u8"), ("session", "u8"), ("who", VISITOR),
        ("dwell", "i4"), ("amount", "i4"), ("cost", "i4"), ("event", "u1"), ("page", "u1"),
    ]
)  # fmt: skip
"""An event as numbers, 118 bytes; -1 is absent for dwell, amount and cost."""


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits of n people.

    Parameters
    ----------
    keys
        uint64[n]: unique in the campaign; sessions and event ids come from them.
    start_ms
        int64[n]: when the first act would be.
    who
        VISITOR[n].
    acts
        bool[n, len(ACTS)]: what each of them does.
    dwell_ms
        int64[n, len(ACTS)]: the time on the page before each act.
    thrifty
        bool[n]: orders hardly more than the coupon asks for.
    """

    keys: NDArray[np.uint64]
    start_ms: NDArray[np.int64]
    who: NDArray[np.void]
    acts: NDArray[np.bool_]
    dwell_ms: NDArray[np.int64]
    thrifty: NDArray[np.bool_]


def events_of(visits: Visits, draws: Draws, break_: Break | None) -> NDArray[np.void]:
    """EVENT[m]: the acts that really happen, in no particular order."""
    delays = np.where(visits.acts, visits.dwell_ms, 0)
    delays[:, EXPOSURE] = 0
    times = visits.start_ms[:, None] + np.cumsum(delays, axis=1)
    acts = visits.acts if break_ is None else _unbroken(visits, times, break_)
    rows, act = np.nonzero(acts)
    keys = visits.keys[rows]
    events = np.empty(len(rows), EVENT)
    events["ts"] = times[rows, act]
    events["session"] = draws.bits("session", keys)
    events["key"] = draws.bits("event", keys * np.uint64(16) + act.astype(np.uint64))
    events["who"] = visits.who[rows]
    events["dwell"] = np.where(act == EXPOSURE, -1, visits.dwell_ms[rows, act])
    events["event"], events["page"] = _EVENT_OF_ACT[act], _PAGE_OF_ACT[act]
    _put_money(events, act, keys, visits.thrifty[rows], draws)
    return events


def _unbroken(visits: Visits, times: NDArray[np.int64], break_: Break) -> NDArray[np.bool_]:
    """Whoever meets the broken step goes away: neither it nor what would follow happens."""
    here = visits.acts & np.equal(_EVENT_OF_ACT, EVENTS.index(break_.step))
    here &= (visits.who["channel"] == CHANNELS.index(break_.channel))[:, None]
    here &= (times >= break_.from_ms) & (times < break_.to_ms)
    return visits.acts & ~np.logical_or.accumulate(here, axis=1)


def _put_money(
    events: NDArray[np.void],
    act: NDArray[np.int64],
    keys: NDArray[np.uint64],
    thrifty: NDArray[np.bool_],
    draws: Draws,
) -> None:
    """What people paid, and what the campaign gave: a bonus for an invitation, a prize, a coupon."""
    coupon = COUPONS_MINOR[draws.pick("coupon", keys, np.array([0.5, 0.35, 0.15]))]
    spent = 800 + 6_000 * np.exp(0.7 * draws.normal("spent", keys))
    order = np.where(
        thrifty, coupon * 2 + 300 * draws.unit("a_bit_more", keys), np.maximum(spent, coupon * 2)
    )
    pays = (act == REDEEM) | (act == PURCHASE)
    events["amount"] = np.where(pays, order, -1)
    cost = np.where(act == REDEEM, coupon, -1)
    cost[(act == SIGNUP) & (events["who"]["inviter"] != 0)] = INVITATION_BONUS_MINOR
    cost[(act == PARTICIPATE) & draws.chance("prize", keys, _PRIZE_CHANCE)] = _PRIZES_MINOR
    events["cost"] = cost


def joined(parts: list[Visits]) -> Visits:
    """Several tables of visits as one."""
    return replace(
        parts[0],
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in Visits.__slots__},
    )

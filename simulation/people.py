"""Honest people: what each of them has, from their number alone, and the crowds that only look suspicious."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulation import places
from simulation.acts import CLICK, INVITE, PLATFORMS, SIGNUP, VISITOR
from simulation.draws import Draws

CROWDS: Final = (None, "office", "campus", "carrier_nat", "family_tablet", "popular_inviter")
OFFICE, CAMPUS, CARRIER_NAT, FAMILY_TABLET, POPULAR_INVITER = range(1, len(CROWDS))

CHANNEL_WEIGHTS: Final = np.array([0.34, 0.16, 0.20, 0.10, 0.10, 0.10])
PLATFORM_WEIGHTS: Final = np.array([0.42, 0.26, 0.14, 0.18])
CONVERSION: Final = np.array([0.90, 0.62, 0.93, 0.50, 0.45, 0.80, 0.35, 0.25, 0.12])
"""The chance of each act of a first visit, given what it needs; a recorded page view may be lost."""

_H5 = PLATFORMS.index("h5")
_OFFICE_SHARE, _CAMPUS_SHARE, _CARRIER_SHARE = 0.03, 0.08, 0.22
_OFFICE_BLOCK, _CAMPUS_BLOCK, _CARRIER_BLOCK = 2_048, 4_096, 8_192
"""So many people in a row have one office, one campus and one pool of a carrier among them: 61, 205 and 1,147."""
_CARRIER_ADDRESSES = 32
_FAMILY_BLOCK, _FAMILY_CHANCE = 128, 0.9
_INVITER_BLOCK, _POPULAR_CHANCE = 512, 0.3
_CROWD_SPREAD_DEG = 0.0006
_TELLS_PLACE, _TELLS_PHONE = 0.45, 0.6
_NO_PLACE = np.nan


class People:
    """Everybody honest, by number 0, 1, 2 ... in the order in which they first come.

    Parameters
    ----------
    draws
        The campaign's seed.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def visitors(self, numbers: NDArray[np.int64]) -> NDArray[np.void]:
        """VISITOR[n]: these people with what they have."""
        draws = self._draws
        who = np.zeros(len(numbers), VISITOR)
        who["party"] = -1
        who["user"] = self.users(numbers)
        who["device"] = draws.bits("device", numbers)
        who["channel"] = draws.pick("channel", numbers, CHANNEL_WEIGHTS)
        who["platform"] = draws.pick("platform", numbers, PLATFORM_WEIGHTS)
        who["variant"] = draws.below("variant", numbers, 2)
        who["phone"] = np.where(
            draws.chance("tells_phone", numbers, _TELLS_PHONE), places.phone(draws, "phone", numbers), 0
        )
        mobile = draws.chance("mobile", numbers, 0.45)
        who["ip"] = np.where(
            mobile, places.address_v6(draws, "v6", numbers), places.address(draws, "home", numbers)
        )
        who["lat"], who["lon"] = places.home(draws, "place", numbers)
        self._put_inviters(who, numbers)
        self._put_crowds(who, numbers)
        silent = ~draws.chance("tells_place", numbers, _TELLS_PLACE)
        who["lat"][silent] = who["lon"][silent] = _NO_PLACE
        return who

    def users(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64[n]: their user ids."""
        return self._draws.bits("user", numbers)

    def are_members(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: who signs up at the first visit."""
        return self.wants(numbers, CLICK) & self.wants(numbers, SIGNUP)

    def wants(self, numbers: NDArray[np.int64], act: int) -> NDArray[np.bool_]:
        """bool[n]: who does this at the first visit, if what comes before it is done."""
        return self._draws.chance(f"act{act}", numbers, CONVERSION[act])

    def _put_inviters(self, who: NDArray[np.void], numbers: NDArray[np.int64]) -> None:
        """Friends invite friends; a popular member brings a dozen."""
        draws = self._draws
        earlier = numbers - 1 - draws.below("friend", numbers, 400)
        popular = draws.chance("popular", numbers, _POPULAR_CHANCE)
        earlier = np.where(popular, numbers - numbers % _INVITER_BLOCK - 1, earlier)
        invited = (who["channel"] == INVITE) & (earlier >= 0)
        who["inviter"] = np.where(invited, self.users(np.maximum(earlier, 0)), 0)
        who["crowd"][invited & popular] = POPULAR_INVITER

    def _put_crowds(self, who: NDArray[np.void], numbers: NDArray[np.int64]) -> None:
        where = self._draws.unit("crowd", numbers)
        office = where < _OFFICE_SHARE
        campus = ~office & (where < _CAMPUS_SHARE)
        carrier = ~office & ~campus & (where < _CARRIER_SHARE)
        self._gather(who, numbers, office, "office", OFFICE, _OFFICE_BLOCK)
        self._gather(who, numbers, campus, "campus", CAMPUS, _CAMPUS_BLOCK)
        self._share_carrier(who, numbers, carrier)
        self._share_tablet(who, numbers)

    def _gather(
        self,
        who: NDArray[np.void],
        numbers: NDArray[np.int64],
        rows: NDArray[np.bool_],
        name: str,
        crowd: int,
        block: int,
    ) -> None:
        """One address and one place for all of them; phones and devices are their own."""
        which, draws = numbers[rows] // block, self._draws
        lat, lon = places.home(draws, name, which)
        who["ip"][rows] = places.address(draws, name, which)
        who["lat"][rows] = lat + _CROWD_SPREAD_DEG * draws.normal(f"{name}/seat_lat", numbers[rows])
        who["lon"][rows] = lon + _CROWD_SPREAD_DEG * draws.normal(f"{name}/seat_lon", numbers[rows])
        who["crowd"][rows] = crowd

    def _share_carrier(
        self, who: NDArray[np.void], numbers: NDArray[np.int64], rows: NDArray[np.bool_]
    ) -> None:
        """A carrier puts a thousand phones behind a few addresses of one /24."""
        mine, draws = numbers[rows], self._draws
        first = places.network(draws, "carrier", mine // _CARRIER_BLOCK)
        who["ip"][rows] = (
            first + np.uint64(17) + draws.below("nat", mine, _CARRIER_ADDRESSES).astype(np.uint64)
        )
        who["crowd"][rows] = CARRIER_NAT

    def _share_tablet(self, who: NDArray[np.void], numbers: NDArray[np.int64]) -> None:
        """Two to four people, one after the other, on one tablet at one address."""
        draws, family = self._draws, numbers // _FAMILY_BLOCK
        size = 2 + draws.below("family_size", family, 3)
        rows = (numbers % _FAMILY_BLOCK < size) & draws.chance("family", family, _FAMILY_CHANCE)
        mine = family[rows]
        who["device"][rows] = draws.bits("tablet", mine)
        who["ip"][rows] = places.address(draws, "family_home", mine)
        who["platform"][rows] = _H5
        lat, lon = places.home(draws, "family_place", mine)
        who["lat"][rows], who["lon"][rows] = lat, lon
        who["crowd"][rows] = FAMILY_TABLET

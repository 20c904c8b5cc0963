"""The wool parties: of each kind what its accounts share, and the care that some of them take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulation import places
from simulation.acts import ACTS, CHANNELS, INVITE, LANDING, PLATFORMS, SIGNUP, VISITOR, Visits, joined
from simulation.draws import Draws, act_counters
from simulation.visits import human_dwell

KINDS: Final = (
    None, "device_farm", "proxy_pool", "phone_segment", "script", "gps_spoofing", "invitation_ring",
)  # fmt: skip
DEVICE_FARM, PROXY_POOL, PHONE_SEGMENT, SCRIPT, GPS_SPOOFING, INVITATION_RING = range(1, len(KINDS))

SIZES: Final = {
    DEVICE_FARM: (50, 120),
    PROXY_POOL: (60, 150),
    PHONE_SEGMENT: (50, 120),
    SCRIPT: (50, 150),
    GPS_SPOOFING: (40, 100),
    INVITATION_RING: (40, 90),
}
"""Fewest and most accounts of a party."""

_FIRST_ACCOUNT: Final = 1 << 50
"""Accounts have numbers as people have, far above theirs."""
_MOST_ACCOUNTS: Final = 4_096
_CAREFUL = 0.08
"""So many accounts have a phone, a home and manners of their own; nothing but their party gives them away."""
_FIRST_VISIT = np.array([0.25, 0.60, 0.65, 0.08, 1.0, 0.96, 0.30, 0.06, 0.0])
_HARVEST = np.array([0.05, 0.30, 0.55, 0.02, 0.0, 0.50, 0.92, 0.03, 0.0])
_SCRIPTED = np.array([0.0, 0.25, 0.20, 0.0, 1.0, 0.98, 0.40, 0.0, 0.0])
_PARTY_CHANNELS = np.array([0.45, 0.10, 0.30, 0.15, 0.0, 0.0])
_ANDROID, _H5 = PLATFORMS.index("android"), PLATFORMS.index("h5")
_SPOT_DEG = 0.0004
_OCEAN_CHANCE = 0.3


@dataclass(frozen=True, slots=True)
class Party:
    """One party: of which kind, which number among them, how many accounts, and when."""

    kind: int
    number: int
    accounts: int
    begin_ms: int
    lasts_ms: int
    """The first visits begin within this time; each account comes back once, after up to half as long again."""


class Parties:
    """Makes the visits of any party from its number.

    Parameters
    ----------
    draws
        The campaign's seed.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._equip: dict[int, Callable[[_Accounts], None]] = {
            DEVICE_FARM: _equip_farm,
            PROXY_POOL: _equip_proxies,
            PHONE_SEGMENT: _equip_segment,
            SCRIPT: _equip_script,
            GPS_SPOOFING: _equip_spoofers,
            INVITATION_RING: _equip_ring,
        }

    def visits(self, party: Party) -> Visits:
        """Both visits of each account."""
        draws = self._draws
        accounts = _Accounts(draws, party)
        self._equip[party.kind](accounts)
        numbers = accounts.numbers
        first_ms = party.begin_ms + party.lasts_ms * np.sort(draws.unit("party/when", numbers))
        away_ms = party.lasts_ms * (0.05 + 0.45 * draws.unit("party/away", numbers))
        first = accounts.visits(0, first_ms, accounts.first_acts())
        later = accounts.visits(
            1, first_ms + away_ms, draws.chance("party/later", act_counters(numbers, len(ACTS)), _HARVEST)
        )
        return joined([first, later])


class _Accounts:
    """The accounts of a party while it is equipped: at first people like any others, in no hurry."""

    def __init__(self, draws: Draws, party: Party) -> None:
        self.draws, self.party = draws, party
        self.which = np.array([party.kind << 32 | party.number], np.int64)
        """The party's own counter, as an array of one."""
        self.ranks = np.arange(party.accounts)
        self.numbers = _FIRST_ACCOUNT + ((party.kind << 44) | (party.number << 12)) + self.ranks
        self.careful = draws.chance("party/careful", self.numbers, _CAREFUL)
        self.bold = ~self.careful
        self.pace = np.exp(0.3 * draws.normal("party/pace", self.numbers)) * np.where(self.careful, 1.2, 3.0)
        self.constant_dwell_ms: float | None = None
        self.who = np.zeros(party.accounts, VISITOR)
        self._look_ordinary()

    def _look_ordinary(self) -> None:
        draws, numbers, who = self.draws, self.numbers, self.who
        who["kind"], who["party"] = self.party.kind, self.party.number
        who["user"] = draws.bits("user", numbers)
        who["device"] = draws.bits("device", numbers)
        who["ip"] = np.where(
            draws.chance("mobile", numbers, 0.45),
            places.address_v6(draws, "v6", numbers),
            places.address(draws, "home", numbers),
        )
        who["phone"] = np.where(
            draws.chance("tells_phone", numbers, 0.8), places.phone(draws, "phone", numbers), 0
        )
        who["channel"] = draws.pick("party/channel", self.which, _PARTY_CHANNELS)
        who["platform"] = draws.pick("platform", numbers, np.array([0.6, 0.1, 0.25, 0.05]))
        who["variant"] = draws.below("variant", numbers, 2)
        who["lat"], who["lon"] = places.home(draws, "place", numbers)
        silent = draws.chance("party/silent", numbers, 0.7)
        who["lat"][silent] = who["lon"][silent] = np.nan

    def own(self, stream: str, least: int, most: int) -> int:
        """One number of the party, from ``least`` to ``most``."""
        return least + int(self.draws.below(f"party/{stream}", self.which, most - least + 1)[0])

    def nth(self, stream: str, choices: int) -> NDArray[np.int64]:
        """int64[n]: which of the party's ``choices`` things each account has, as a counter of all parties."""
        chosen = self.draws.below(f"party/{stream}", self.numbers, choices)
        return self.which * _MOST_ACCOUNTS + chosen

    def first_acts(self) -> NDArray[np.bool_]:
        chances = np.where(
            (self.bold & (self.constant_dwell_ms is not None))[:, None], _SCRIPTED, _FIRST_VISIT
        )
        return self.draws.chance("party/act", act_counters(self.numbers, len(ACTS)), chances)

    def visits(self, turn: int, start_ms: NDArray[np.float64], acts: NDArray[np.bool_]) -> Visits:
        draws = self.draws
        keys = draws.bits("party/visit", self.numbers * 2 + turn)
        dwell_ms = human_dwell(draws, keys, self.pace)
        if self.constant_dwell_ms is not None:
            jitter = draws.normal("party/jitter", act_counters(keys, len(ACTS)))
            constant = self.constant_dwell_ms * (1 + 0.02 * jitter)
            dwell_ms = np.where(self.bold[:, None], constant.astype(np.int64), dwell_ms)
        who = self.who.copy()
        acts = acts.copy()
        acts[:, LANDING] |= ~acts.any(axis=1)
        acts[:, SIGNUP] &= turn == 0
        return Visits(keys, start_ms.astype(np.int64), who, acts, dwell_ms, self.bold)


def _equip_farm(accounts: _Accounts) -> None:
    """A rack of phones in one room: six to twelve accounts on each, a few lines out, the same spot on the map."""
    draws, who, bold = accounts.draws, accounts.who, accounts.bold
    a_device = accounts.own("accounts_a_device", 6, 12)
    phone = accounts.ranks % max(2, accounts.party.accounts // a_device)
    rack = accounts.which * _MOST_ACCOUNTS + phone
    who["device"] = np.where(bold, draws.bits("farm_device", rack), who["device"])
    line = places.network(draws, "farm_network", accounts.which) + places.host(
        draws, "farm_line", accounts.nth("line", 6)
    )
    who["ip"] = np.where(bold & draws.chance("party/wired", accounts.numbers, 0.7), line, who["ip"])
    who["platform"][bold] = _ANDROID


def _equip_proxies(accounts: _Accounts) -> None:
    """A few machines that pretend to be many phones, behind some hundred addresses of three or four networks."""
    draws, who, bold = accounts.draws, accounts.who, accounts.bold
    network = places.network(draws, "proxy_network", accounts.nth("network", accounts.own("networks", 3, 4)))
    who["ip"] = np.where(bold, network + places.host(draws, "proxy", accounts.numbers), who["ip"])
    forgot = bold & draws.chance("party/forgot", accounts.numbers, 0.25)
    who["device"] = np.where(forgot, draws.bits("emulator", accounts.nth("emulator", 4)), who["device"])
    who["platform"][bold] = _H5
    accounts.pace[bold] *= 1.5


def _equip_segment(accounts: _Accounts) -> None:
    """Numbers bought in one go: neighbours of one or two segments, each with a cloud phone of its own."""
    draws, who, bold = accounts.draws, accounts.who, accounts.bold
    segment = places.phone_segment(
        draws, "bought_segment", accounts.nth("segment", accounts.own("segments", 1, 2))
    )
    line = (accounts.own("first_line", 0, 9_000) + 3 * accounts.ranks) % 10_000
    who["phone"] = np.where(bold, segment * 10_000 + line, who["phone"])


def _equip_script(accounts: _Accounts) -> None:
    """A program that needs no page: always the same pause, at most a handful of accounts on an address."""
    draws, who, bold = accounts.draws, accounts.who, accounts.bold
    accounts.constant_dwell_ms = float(accounts.own("pause", 500, 1_800))
    addresses = places.address(draws, "script_ip", accounts.nth("address", accounts.party.accounts // 3 + 1))
    who["ip"] = np.where(bold, addresses, who["ip"])
    who["platform"][bold] = _H5


def _equip_spoofers(accounts: _Accounts) -> None:
    """All claim to stand on one spot, at times far out at sea, while their addresses lie all over the country."""
    draws, who, bold = accounts.draws, accounts.who, accounts.bold
    lat, lon = places.home(draws, "spoofed", accounts.which)
    if draws.chance("party/at_sea", accounts.which, _OCEAN_CHANCE)[0]:
        lon = lon + 25.0
    who["lat"] = np.where(bold, lat + _SPOT_DEG * draws.normal("party/lat", accounts.numbers), who["lat"])
    who["lon"] = np.where(bold, lon + _SPOT_DEG * draws.normal("party/lon", accounts.numbers), who["lon"])


def _equip_ring(accounts: _Accounts) -> None:
    """Captains who invite each other in a circle, and their recruits, some of whom share a captain's phone."""
    draws, who, ranks = accounts.draws, accounts.who, accounts.ranks
    captains = max(2, accounts.party.accounts // 14)
    captain = np.where(ranks < captains, (ranks - 1) % captains, ranks % captains)
    who["inviter"] = who["user"][captain]
    who["channel"] = INVITE
    shares = accounts.bold & draws.chance("party/shares", accounts.numbers, 0.3)
    who["device"] = np.where(shares, who["device"][captain], who["device"])
    at_home = accounts.bold & draws.chance("party/at_home", accounts.numbers, 0.4)
    who["ip"] = np.where(at_home, who["ip"][captain], who["ip"])


CHANNELS_OF_PARTIES: Final = tuple(
    name for name, weight in zip(CHANNELS, _PARTY_CHANNELS, strict=True) if weight > 0
)

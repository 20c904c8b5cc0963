"""Reconcile Redis: what it shows stands in the tables, and nothing older than what it has confirmed.

Redis and the tables are written side by side, each at its own pace, so one look can not compare them. Of verdicts the
turns tell what Redis has to know: positions are read before and after the entries, and the tables are read when they
have come as far. Of numbers a difference counts that is the same in every look. Where one side only has to catch up,
which takes a worker that runs, that is said and is no problem.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sinks.commit_log import Accounts, key_of_tables, read_accounts
from sinks.redis import ShownVerdict
from sinks.redis_contents import Contents, RedisContents
from sinks.store import Store
from streams.shown_numbers import Difference, look_at_numbers
from streams.shown_verdicts import Comparison, JudgedOrder, VerdictRows, compare, device_key

LOOKS, PAUSE_S = 10, 3.0
"""Longer than the pause between two writes of the numbers, and as long as a commit may wait."""
_SAID = 5
"""Problems of one kind that are named."""


class RedisReport(msgspec.Struct, frozen=True):
    """What was compared.

    Parameters
    ----------
    verdicts
        Entries of users and devices in Redis.
    numbers
        Fields of funnels, daily users and retention.
    absent
        Users and devices that the tables hold something against, and Redis does not: it forgot them, or 30 days are
        over.
    unproven
        Entries that the tables can not prove: ``woolwatch expire`` removed their dates.
    waiting
        Sentences: where one side has to catch up before anything can be said.
    """

    verdicts: int = 0
    numbers: int = 0
    absent: int = 0
    unproven: int = 0
    waiting: tuple[str, ...] = ()


async def reconcile_redis(
    contents: RedisContents, store: Store, *, looks: int = LOOKS, pause_s: float = PAUSE_S
) -> tuple[RedisReport, list[str]]:
    """Compare Redis with the tables; may run beside workers, which it does not hold up.

    Parameters
    ----------
    contents
        Redis.
    store
        The tables.
    looks, pause_s
        How often to look before a difference counts, and the time between. Where all is equal one look is enough.

    Returns
    -------
    What was compared, and a sentence for each problem.

    Raises
    ------
    UnreachableError
        Redis does not answer, or refuses.
    StateError
        The tables can not be read.
    """
    fingerprint, of_tables = await contents.key_fingerprint(), key_of_tables(store)
    if None not in (fingerprint, of_tables) and fingerprint != of_tables:
        return RedisReport(), ["Redis and the tables were written with different keys"]
    look = _Looks(looks, pause_s)
    compared, waiting, problems = await _verdicts(contents, store, look)
    numbers, differing, problems_of_numbers = await _numbers(contents, store, look)
    report = RedisReport(
        sum(each.compared for each in compared),
        numbers,
        sum(each.absent for each in compared),
        sum(each.unproven for each in compared),
        (*waiting, *differing),
    )
    return report, [*problems, *problems_of_numbers]


class _Looks:
    """Looks again for some time."""

    def __init__(self, looks: int, pause_s: float) -> None:
        self._looks, self._pause_s = looks, pause_s

    async def until_none(self, look: Callable[[], Awaitable[list[str]]]) -> list[str]:
        """What the last look found; the first that finds nothing is the last."""
        found: list[str] = []
        for number in range(self._looks):
            if number:
                await asyncio.sleep(self._pause_s)
            if not (found := await look()):
                break
        return found


# -- verdicts ----------------------------------------------------------------------------------------------------


async def _verdicts(
    contents: RedisContents, store: Store, look: _Looks
) -> tuple[Sequence[Comparison], list[str], list[str]]:
    """What was compared, where somebody has to catch up first, and problems."""
    in_tables = (await asyncio.to_thread(read_accounts, store)).turns
    reached: dict[int, int] = {}

    async def redis_is_behind() -> list[str]:
        reached.update(await contents.turns())
        return _behind("Redis stands", reached, "the tables have", in_tables)

    if behind := await look.until_none(redis_is_behind):
        return (), behind, []
    users, devices = await contents.users(), await contents.devices()
    shown_until = await contents.turns()
    accounts: list[Accounts] = []

    async def tables_are_behind() -> list[str]:
        accounts[:] = [await asyncio.to_thread(read_accounts, store)]
        return _behind("the tables stand", accounts[0].turns, "Redis shows", shown_until)

    if behind := await look.until_none(tables_are_behind):
        return (), behind, []
    compared = await asyncio.to_thread(
        _compare, store, accounts[0], reached, _by_user(users), _by_device(devices)
    )
    found = [[*users.foreign, *devices.foreign], *(each.problems for each in compared)]
    return compared, [], [problem for kind in found for problem in _shortened(kind)]


def _behind(who: str, turns: dict[int, int], whose: str, wanted: dict[int, int]) -> list[str]:
    return [
        f"judge partition {partition}: {who} at turn {turns.get(partition, 0)}, {whose} turn {turn}"
        for partition, turn in sorted(wanted.items())
        if turns.get(partition, 0) < turn
    ]


def _by_user(users: Contents) -> dict[str, ShownVerdict | None]:
    return {key.rpartition(":")[2]: entry for (key, _), entry in users.entries.items()}


def _by_device(devices: Contents) -> dict[str, ShownVerdict | None]:
    return {
        device_key(key.rpartition(":")[2], field): entry for (key, field), entry in devices.entries.items()
    }


def _compare(
    store: Store,
    accounts: Accounts,
    reached: dict[int, int],
    users: dict[str, ShownVerdict | None],
    devices: dict[str, ShownVerdict | None],
) -> Sequence[Comparison]:
    order = JudgedOrder(accounts.commits, reached)
    verdicts = VerdictRows(store, accounts.moving)
    flagged = verdicts.flagged()
    rows = verdicts.newest(flagged.users | users.keys(), flagged.devices | devices.keys(), order)
    return (
        compare("user", users, rows.of_users, expired_folders=rows.expired_folders),
        compare("device", devices, rows.of_devices, expired_folders=rows.expired_folders),
    )


# -- numbers -----------------------------------------------------------------------------------------------------


async def _numbers(contents: RedisContents, store: Store, look: _Looks) -> tuple[int, list[str], list[str]]:
    """How many fields were compared, where somebody has to catch up first, and problems."""
    compared, waiting, problems = 0, list[str](), list[str]()
    lasting: set[Difference] | None = None

    async def differ() -> list[str]:
        nonlocal compared, lasting
        seen = await look_at_numbers(contents, store)
        differing = seen.at_rest | seen.in_motion
        lasting = differing if lasting is None else lasting & differing
        compared = seen.compared
        problems[:] = _shortened([*seen.foreign, *sorted(map(str, lasting & seen.at_rest))])
        waiting[:] = _shortened(sorted(map(str, lasting & seen.in_motion)))
        return [*problems, *waiting]

    await look.until_none(differ)
    return compared, waiting, problems


def _shortened(sentences: Sequence[str]) -> list[str]:
    more = len(sentences) - _SAID
    return [*sentences[:_SAID], *([f"and {more:,} more like these"] if more > 0 else [])]

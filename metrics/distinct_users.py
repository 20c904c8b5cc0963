"""Distinct users per key, gross and suspect: the tables of :mod:`metrics.members` and their upkeep."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.hash_index import SMALLEST, grown, new_index, power_of_two
from metrics.linked_rows import linked_rows
from metrics.members import BLOCKS, KEYS, LINKS, NEVER_MS, USERS, Members, find_users, new_members
from metrics.members_rebuild import (
    copy_keys,
    copy_users,
    move_pairs,
    reindex_blocks,
    reindex_keys,
    reindex_users,
    restore_flags,
)
from metrics.sampling import MOST_LEVEL

MEMBERSHIPS_A_USER = 20
"""Memberships that have room at a bound of one user."""
SUSPECTS_A_USER = 4
"""Users who are in no key any more, but have a bad verdict, that have room at a bound of one user."""


class DistinctUsers:
    """Owner of :class:`Members`; grows them, forgets what is over, samples where it must, finds what changed."""

    def __init__(self, definitions: NDArray[np.void], restate_ms: int) -> None:
        self.members = new_members(np.full(4, SMALLEST), definitions, restate_ms)
        self.forgotten_suspects = 0
        self._users_kept = 0

    @property
    def capacities(self) -> NDArray[np.int64]:
        """Rows that each table has room for."""
        m = self.members
        return np.array([len(m.users), len(m.links), len(m.keys), len(m.blocks)])

    def find_users(self, user_keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Row of each user, a new one for a new user; valid until :meth:`forget`."""
        rows = np.empty(len(user_keys), np.int32)
        at = find_users(self.members, user_keys, rows, 0)
        while at < len(rows):
            self.grow(users=len(rows) - at)
            at = find_users(self.members, user_keys, rows, at)
        return rows

    def grow(self, *, users: int = 0, links: int = 0, keys: int = 0, blocks: int = 0) -> None:
        """Make room for so many more rows; rows keep their places."""
        wanted = self.members.used + np.array((users, links, keys, blocks))
        capacities = self.capacities
        while np.any(wanted > capacities):
            capacities = np.where(wanted > capacities, 2 * capacities, capacities)
        self._resize(capacities)

    def forget(self, watermark_ms: int) -> bool:
        """Make room by dropping what can no longer change, if a table is nearly full; rows of users may move.

        Returns
        -------
        bool
            Whether rows of users and keys are other ones now.
        """
        m, capacities = self.members, self.capacities
        if not np.any(4 * m.used > 3 * capacities):
            return False
        over = (m.blocks["closes_ms"] <= watermark_ms)[m.keys["block"][: m.used[KEYS]]]
        worthwhile = 4 * int(m.keys["gross"][: m.used[KEYS]][over].sum()) > int(m.used[LINKS])
        if worthwhile:
            self._rebuild_all(watermark_ms)
        self._resize(np.where(2 * self.members.used > capacities, 2 * capacities, capacities))
        return worthwhile

    def fit(self, most_users: int, watermark_ms: int) -> bool:
        """Keep within a bound: count samples of users under keys that have too many.

        Depends on the sets of users alone, not on what was forgotten before, as long as that was over at
        ``watermark_ms``. A key of more than ``most_users`` is halved until it fits. If all memberships together
        are more than :data:`MEMBERSHIPS_A_USER` times as many, the bound of a key is halved until three quarters of
        that are left, so small keys stay exact longest. Of users who are in no key any more but have a verdict
        of at least ``review``, those with the oldest go beyond :data:`SUSPECTS_A_USER` times as many: they are
        clean when they come again (``forgotten_suspects`` counts them).

        Returns
        -------
        bool
            Whether rows of users and keys are other ones now.
        """
        if not self._may_be_over(most_users):
            return False
        self._rebuild_all(watermark_ms)
        self._sample(most_users, watermark_ms)
        self._forget_suspects(most_users, watermark_ms)
        self._users_kept = int(self.members.used[USERS])
        return True

    def _may_be_over(self, most_users: int) -> bool:
        m = self.members
        users, links = int(m.used[USERS]), int(m.used[LINKS])
        if users > max(2 * most_users, 2 * self._users_kept) or links > MEMBERSHIPS_A_USER * most_users:
            return True
        suspects = int(np.count_nonzero(m.users["bad_ms"][:users] != NEVER_MS))
        return suspects > SUSPECTS_A_USER * most_users or bool(
            np.any(self._wanted_levels(most_users) > self._levels())
        )

    def _levels(self) -> NDArray[np.int32]:
        levels: NDArray[np.int32] = self.members.keys["level"][: self.members.used[KEYS]]
        return levels

    def _wanted_levels(self, most: int) -> NDArray[np.int32]:
        """Level of each key, one higher where more than ``most`` users are held under one that can change."""
        m = self.members
        keys = m.keys[: m.used[KEYS]]
        least = np.maximum(m.definitions["level"][keys["definition"]], keys["level"] + (keys["gross"] > most))
        frozen = m.blocks["frozen"][keys["block"]] != 0
        return np.where(frozen, keys["level"], np.minimum(least, MOST_LEVEL)).astype(np.int32)

    def _sample(self, most: int, watermark_ms: int) -> None:
        """Raise levels until every key fits and all of them together."""
        bound = MEMBERSHIPS_A_USER * most
        target = bound
        while True:
            wanted = self._wanted_levels(most)
            raised = wanted > self._levels()
            if raised.any():
                m = self.members
                self._levels()[:] = wanted
                m.blocks["dirty"][m.keys["block"][: m.used[KEYS]][raised]] = 1
                self._rebuild_all(watermark_ms)
            elif self.members.used[LINKS] > target and most > 1:
                most, target = most // 2, 3 * bound // 4
            else:
                return

    def _forget_suspects(self, most_users: int, watermark_ms: int) -> None:
        users = self.members.users[: self.members.used[USERS]]
        idle = np.flatnonzero(users["links"] == 0)
        excess = len(idle) - SUSPECTS_A_USER * most_users
        if excess > 0:
            oldest_first = np.lexsort((users["user"][idle], users["bad_ms"][idle]))
            users["bad_ms"][idle[oldest_first[:excess]]] = NEVER_MS
            self.forgotten_suspects += excess
            self._rebuild_all(watermark_ms)

    def _rebuild_all(self, watermark_ms: int) -> None:
        m = self.members
        keep = np.ones(m.used[KEYS], np.bool_)
        self.rebuild(m, before_definitions=None, keep=keep, watermark_ms=watermark_ms)

    def rebuild(
        self,
        before: Members,
        *,
        before_definitions: NDArray[np.int32] | None,
        keep: NDArray[np.bool_],
        watermark_ms: int,
    ) -> None:
        """Fill fresh tables from others, which need no indexes, leaving out what is over.

        Parameters
        ----------
        before
            The other tables.
        before_definitions
            For each definition of the other tables its number here, -1 where it is gone; None: they are the
            same.
        keep
            bool[keys of before]: whether a key is wanted.
        watermark_ms
            What lies below can no longer change.
        """
        same = np.arange(len(before.definitions), dtype=np.int32)
        numbers = same if before_definitions is None else before_definitions
        sizes = (len(before.users), len(before.links), len(before.keys), len(before.blocks))
        capacities = np.array([power_of_two(size) for size in sizes])
        fresh = new_members(capacities, self.members.definitions, int(self.members.restate_ms[0]))
        key_map = np.full(before.used[KEYS], -1, np.int32)
        copy_keys(before, fresh, numbers, keep, watermark_ms, key_map)
        copy_users(before, fresh, key_map)
        restore_flags(before, fresh, key_map)
        self.members = fresh

    def changed_blocks(self) -> NDArray[np.int64]:
        """Rows of the blocks that changed since they were published."""
        return np.flatnonzero(self.members.blocks["dirty"][: self.members.used[BLOCKS]])

    def published(self, blocks: NDArray[np.int64]) -> None:
        """Say that these blocks were handed over as they are."""
        self.members.blocks["dirty"][blocks] = 0

    def keys_of(self, block: int) -> NDArray[np.int64]:
        """Rows of the keys of a block, in no order; a funnel's stand for its first step."""
        m = self.members
        return linked_rows(m.blocks["keys"][block : block + 1], m.keys["next"])[1]

    def _resize(self, capacities: NDArray[np.int64]) -> None:
        m = self.members
        users, links, keys, blocks = (int(capacity) for capacity in capacities)
        self.members = m._replace(
            users=grown(m.users, users),
            user_index=m.user_index if users == len(m.users) else new_index(users),
            links=grown(m.links, links),
            pairs=m.pairs if links == len(m.links) else np.zeros(2 * links, np.uint64),
            keys=grown(m.keys, keys),
            key_index=m.key_index if keys == len(m.keys) else new_index(keys),
            blocks=grown(m.blocks, blocks),
            block_index=m.block_index if blocks == len(m.blocks) else new_index(blocks),
        )
        if users != len(m.users):
            reindex_users(self.members)
        if links != len(m.links):
            move_pairs(m.pairs, self.members)
        if keys != len(m.keys):
            reindex_keys(self.members)
        if blocks != len(m.blocks):
            reindex_blocks(self.members)

"""Making the tables of :mod:`metrics.members` anew: larger indexes, or all that still matters copied over."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metrics.hash_index import first_slot
from metrics.members import (
    BLOCKS,
    KEYS,
    NEVER_MS,
    USERS,
    Members,
    add_member,
    block_slot,
    find_key,
    find_user,
    key_slot,
    pair_slot,
    user_slot,
)
from schemas.flat_kernels import flat_kernel
from schemas.prefetch import prefetch

AHEAD = 16
"""Rows whose places are fetched while others are entered."""


@flat_kernel
def reindex_users(m: Members) -> None:
    """Fill the empty index of users."""
    for row in range(m.used[USERS]):
        if row + AHEAD < m.used[USERS]:
            prefetch(m.user_index, first_slot(m.users[row + AHEAD].user, len(m.user_index)))
        m.user_index[user_slot(m, m.users[row].user)] = row + 1


@flat_kernel
def move_pairs(before: NDArray[np.uint64], m: Members) -> None:
    """Fill empty pairs with those of before; in the order of their slots, so that both are walked from end to end."""
    for pair in before:
        if pair != 0:
            user = int(np.int64(pair >> np.uint64(32))) - 1
            key = int(np.int64(pair & np.uint64(0xFFFFFFFF)))
            m.pairs[pair_slot(m, user, key)] = pair


@flat_kernel
def reindex_keys(m: Members) -> None:
    """Fill the empty index of keys."""
    row = 0
    while row < m.used[KEYS]:
        key = m.keys[row]
        m.key_index[key_slot(m, key.definition, key.start_ms, key.campaign, key.value)] = row + 1
        row += m.definitions[key.definition].width


@flat_kernel
def reindex_blocks(m: Members) -> None:
    """Fill the empty index of blocks."""
    for row in range(m.used[BLOCKS]):
        block = m.blocks[row]
        m.block_index[block_slot(m, block.group, block.start_ms, block.campaign)] = row + 1


@flat_kernel
def is_over(m: Members, block: int, watermark_ms: int) -> bool:
    """Whether the counts of a block are final."""
    found: bool = m.blocks[block].frozen != 0 or m.blocks[block].closes_ms <= watermark_ms
    return found


@flat_kernel
def copy_keys(
    before: Members,
    fresh: Members,
    numbers: NDArray[np.int32],
    keep: NDArray[np.bool_],
    watermark_ms: int,
    key_map: NDArray[np.int32],
) -> None:
    """Enter the keys that are wanted and not both over and published.

    ``key_map`` gets the new row of each, and is -1 everywhere before. ``numbers`` translates definitions, -1
    for those that are gone. Counts stay 0.
    """
    row = 0
    while row < before.used[KEYS]:
        key = before.keys[row]
        width = before.definitions[key.definition].width
        number = numbers[key.definition]
        dropped = is_over(before, key.block, watermark_ms) and before.blocks[key.block].dirty == 0
        if number >= 0 and keep[row] and not dropped:
            found = find_key(fresh, number, key.start_ms, key.end_ms, key.campaign, key.value)
            for step in range(width):
                key_map[row + step] = found + step
                fresh.keys[found + step].level = before.keys[row + step].level
            block = fresh.keys[found].block
            if before.blocks[key.block].frozen != 0:
                fresh.blocks[block].frozen = 1
        row += width
    for row in range(fresh.used[BLOCKS]):
        if is_over(fresh, row, watermark_ms):
            fresh.blocks[row].frozen = 1


@flat_kernel
def copy_users(before: Members, fresh: Members, key_map: NDArray[np.int32]) -> None:
    """Enter the users that are bad or in a key that can still change, and count them there."""
    for row in range(before.used[USERS]):
        user = before.users[row]
        copied = find_user(fresh, user.user) if user.bad_ms != NEVER_MS else -1
        if copied >= 0:
            fresh.users[copied].bad_ms = user.bad_ms
        link = user.links
        while link != 0:
            key = key_map[before.links[link - 1].key]
            link = before.links[link - 1].next
            if key < 0 or fresh.blocks[fresh.keys[key].block].frozen != 0:
                continue
            if copied < 0:
                copied = find_user(fresh, user.user)
            add_member(fresh, copied, key)


@flat_kernel
def restore_flags(before: Members, fresh: Members, key_map: NDArray[np.int32]) -> None:
    """Copy what counting again cannot know: counts of final blocks, and which blocks are not published."""
    for row in range(before.used[KEYS]):
        if key_map[row] < 0:
            continue
        key = fresh.keys[key_map[row]]
        if fresh.blocks[key.block].frozen != 0:
            key.gross = before.keys[row].gross
            key.suspect = before.keys[row].suspect
        fresh.blocks[key.block].dirty = before.blocks[before.keys[row].block].dirty

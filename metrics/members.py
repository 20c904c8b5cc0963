"""Which user belongs to which key: exact sets in flat arrays, with a gross and a suspect count for each key.

A *key* is what distinct users are counted under (a definition, the start of its window, a campaign, a value
of its dimension, a step). A user is suspect in a key if a verdict of at least ``review`` has ts < end of the
window + ``restate``: only the lowest such ts of a user matters (``bad_ms``), so the order of events does not.
When it falls, the user's memberships are walked and the counts of the keys put right, whenever those were
made.

A row costs with its share of the indexes 40 bytes for a user, 24 for a membership, 64 for a key; tables are 3/8
to 3/4 full. Memberships are dropped when their key can no longer change, keys when they are published besides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.hash_index import first_slot, hash_of, new_index
from metrics.sampling import is_kept
from schemas.flat_kernels import flat_kernel

NEVER_MS = np.iinfo(np.int64).max
BEFORE_ALL_MS = np.iinfo(np.int64).min

USER = np.dtype(
    [("user", "u8"), ("bad_ms", "i8"), ("clean_limit_ms", "i8"), ("links", "i4"), ("spot", "i4")], align=True
)
"""Key of the user; lowest ts of a bad verdict; highest limit of the keys in which he is clean; his first link
(row plus one); where he was counted last for DAU."""
LINK = np.dtype([("key", "i4"), ("next", "i4")], align=True)
KEY = np.dtype(
    [
        ("start_ms", "i8"),
        ("end_ms", "i8"),
        ("gross", "i8"),
        ("suspect", "i8"),
        ("definition", "i4"),
        ("campaign", "i4"),
        ("value", "i4"),
        ("block", "i4"),
        ("next", "i4"),
        ("level", "i4"),
    ],
    align=True,
)
"""``end_ms`` ENDLESS_MS: the window ``all``. ``next``: the next key of the block, row plus one. ``level``: see
:mod:`metrics.sampling`; counts are of the users that are kept."""
BLOCK = np.dtype(
    [
        ("start_ms", "i8"),
        ("closes_ms", "i8"),
        ("group", "i4"),
        ("campaign", "i4"),
        ("keys", "i4"),
        ("dirty", "i4"),
        ("frozen", "i4"),
    ],
    align=True,
)
"""``closes_ms``: nothing in it changes once the watermark is there. ``dirty``: changed since it was
published. ``frozen``: its memberships are gone, its counts are final."""

PAIRS_A_LINE = 8
USERS, LINKS, KEYS, BLOCKS = range(4)


class Members(NamedTuple):
    """The arrays, as kernels take them; ``used`` is int64[4], rows in use of each table."""

    users: NDArray[np.void]
    user_index: NDArray[np.int32]
    links: NDArray[np.void]
    pairs: NDArray[np.uint64]
    keys: NDArray[np.void]
    key_index: NDArray[np.int32]
    blocks: NDArray[np.void]
    block_index: NDArray[np.int32]
    used: NDArray[np.int64]
    definitions: NDArray[np.void]
    restate_ms: NDArray[np.int64]


def new_members(capacities: NDArray[np.int64], definitions: NDArray[np.void], restate_ms: int) -> Members:
    """Empty tables for so many (powers of two) users, links, keys and blocks."""
    users, links, keys, blocks = (int(capacity) for capacity in capacities)
    return Members(
        users=np.zeros(users, USER),
        user_index=new_index(users),
        links=np.zeros(links, LINK),
        pairs=np.zeros(2 * links, np.uint64),
        keys=np.zeros(keys, KEY),
        key_index=new_index(keys),
        blocks=np.zeros(blocks, BLOCK),
        block_index=new_index(blocks),
        used=np.zeros(4, np.int64),
        definitions=definitions,
        restate_ms=np.array([restate_ms], np.int64),
    )


@flat_kernel
def has_room(m: Members, users: int, links: int, keys: int, blocks: int) -> bool:
    """Whether so many rows can be added."""
    room: bool = (
        m.used[USERS] + users <= len(m.users)
        and m.used[LINKS] + links <= len(m.links)
        and m.used[KEYS] + keys <= len(m.keys)
        and m.used[BLOCKS] + blocks <= len(m.blocks)
    )
    return room


@flat_kernel
def user_slot(m: Members, user: np.uint64) -> int:
    """Slot of a user, or the empty one where he belongs."""
    slot = first_slot(user, len(m.user_index))
    while m.user_index[slot] != 0 and m.users[m.user_index[slot] - 1].user != user:
        slot = (slot + 1) & (len(m.user_index) - 1)
    return slot


@flat_kernel
def find_user(m: Members, user: np.uint64) -> int:
    """Row of a user; there must be room for one."""
    slot = user_slot(m, user)
    if m.user_index[slot] == 0:
        row = m.used[USERS]
        m.used[USERS] = row + 1
        m.user_index[slot] = row + 1
        m.users[row].user = user
        m.users[row].bad_ms = NEVER_MS
        m.users[row].clean_limit_ms = BEFORE_ALL_MS
        m.users[row].links = 0
        m.users[row].spot = -1
    found: int = m.user_index[slot] - 1
    return found


@flat_kernel
def find_users(m: Members, user_keys: NDArray[np.uint64], rows: NDArray[np.int32], at: int) -> int:
    """Rows of users from ``at`` on; return the first one for whom there is no room, or their number."""
    for i in range(at, len(user_keys)):
        if m.used[USERS] == len(m.users):
            return i
        rows[i] = find_user(m, user_keys[i])
    return len(user_keys)


@flat_kernel
def packed_pair(user: int, key: int) -> np.uint64:
    """Pack row of user and row of key into what is never 0."""
    return (np.uint64(user + 1) << np.uint64(32)) | np.uint64(key)


@flat_kernel
def pair_slot(m: Members, user: int, key: int) -> int:
    """Slot of a membership, or the empty one where it belongs.

    A user's memberships in one block begin in one cache line: what is asked together lies together.
    """
    pair = packed_pair(user, key)
    line = len(m.pairs) // PAIRS_A_LINE
    slot = PAIRS_A_LINE * first_slot(hash_of(user, m.keys[key].block, 0, 0), line)
    while m.pairs[slot] != 0 and m.pairs[slot] != pair:
        slot = (slot + 1) & (len(m.pairs) - 1)
    return slot


@flat_kernel
def add_member(m: Members, user: int, key: int) -> None:
    """Count a user under a key, once, if its sample has him; there must be room for a link."""
    if not is_kept(m.users[user].user, m.keys[key].level):
        return
    slot = pair_slot(m, user, key)
    if m.pairs[slot] != 0 or m.blocks[m.keys[key].block].frozen != 0:
        return
    m.pairs[slot] = packed_pair(user, key)
    link = m.used[LINKS]
    m.used[LINKS] = link + 1
    m.links[link].key = key
    m.links[link].next = m.users[user].links
    m.users[user].links = link + 1
    m.keys[key].gross += 1
    limit_ms = m.keys[key].end_ms + m.restate_ms[0]
    if m.users[user].bad_ms < limit_ms:
        m.keys[key].suspect += 1
    elif limit_ms > m.users[user].clean_limit_ms:
        m.users[user].clean_limit_ms = limit_ms
    m.blocks[m.keys[key].block].dirty = 1


@flat_kernel
def mark_bad(m: Members, user: int, ts_ms: int) -> None:
    """Note a verdict of at least ``review``; correct counts of the keys in which it makes a user suspect."""
    before_ms = m.users[user].bad_ms
    if ts_ms >= before_ms:
        return
    m.users[user].bad_ms = ts_ms
    if ts_ms >= m.users[user].clean_limit_ms:
        return
    clean_limit_ms = BEFORE_ALL_MS
    link = m.users[user].links
    while link != 0:
        key = m.links[link - 1].key
        limit_ms = m.keys[key].end_ms + m.restate_ms[0]
        if limit_ms <= ts_ms:
            clean_limit_ms = max(clean_limit_ms, limit_ms)
        elif limit_ms <= before_ms:
            m.keys[key].suspect += 1
            m.blocks[m.keys[key].block].dirty = 1
        link = m.links[link - 1].next
    m.users[user].clean_limit_ms = clean_limit_ms


@flat_kernel
def mark_all_bad(
    m: Members, users: NDArray[np.int32], ts_ms: NDArray[np.int64], bad: NDArray[np.bool_]
) -> None:
    """Apply :func:`mark_bad` to the bad ones among rows of a batch."""
    for i in range(len(users)):
        if bad[i]:
            mark_bad(m, users[i], ts_ms[i])


@flat_kernel
def hold_against(
    m: Members, users: NDArray[np.int32], lowest_ms: NDArray[np.int64], watermark_ms: int
) -> None:
    """Set the lowest time of a verdict that is held against each user, later or earlier than before.

    Counts of keys that can still change are corrected; those that were over at the watermark stay.
    """
    for i in range(len(users)):
        user = users[i]
        before_ms = m.users[user].bad_ms
        clean_limit_ms = BEFORE_ALL_MS
        link = m.users[user].links
        while link != 0:
            key = m.links[link - 1].key
            limit_ms = m.keys[key].end_ms + m.restate_ms[0]
            if limit_ms <= lowest_ms[i]:
                clean_limit_ms = max(clean_limit_ms, limit_ms)
            change = int(lowest_ms[i] < limit_ms) - int(before_ms < limit_ms)
            block = m.keys[key].block
            if change != 0 and m.blocks[block].frozen == 0 and m.blocks[block].closes_ms > watermark_ms:
                m.keys[key].suspect += change
                m.blocks[block].dirty = 1
            link = m.links[link - 1].next
        m.users[user].bad_ms = lowest_ms[i]
        m.users[user].clean_limit_ms = clean_limit_ms


@flat_kernel
def block_slot(m: Members, group: int, start_ms: int, campaign: int) -> int:
    """Slot of a block, or the empty one where it belongs."""
    slot = first_slot(hash_of(group, start_ms, campaign, 0), len(m.block_index))
    while m.block_index[slot] != 0:
        block = m.blocks[m.block_index[slot] - 1]
        if block.group == group and block.start_ms == start_ms and block.campaign == campaign:
            break
        slot = (slot + 1) & (len(m.block_index) - 1)
    return slot


@flat_kernel
def find_block(m: Members, group: int, start_ms: int, campaign: int, closes_ms: int) -> int:
    """Row of a block; there must be room for one."""
    slot = block_slot(m, group, start_ms, campaign)
    if m.block_index[slot] == 0:
        row = m.used[BLOCKS]
        m.used[BLOCKS] = row + 1
        m.block_index[slot] = row + 1
        m.blocks[row].group = group
        m.blocks[row].start_ms = start_ms
        m.blocks[row].campaign = campaign
        m.blocks[row].closes_ms = closes_ms
        m.blocks[row].keys = 0
        m.blocks[row].dirty = 0
        m.blocks[row].frozen = 0
    found: int = m.block_index[slot] - 1
    return found


@flat_kernel
def key_slot(m: Members, definition: int, start_ms: int, campaign: int, value: int) -> int:
    """Slot of a key, or the empty one where it belongs."""
    slot = first_slot(hash_of(definition, start_ms, campaign, value), len(m.key_index))
    while m.key_index[slot] != 0:
        key = m.keys[m.key_index[slot] - 1]
        if (
            key.definition == definition
            and key.start_ms == start_ms
            and key.campaign == campaign
            and key.value == value
        ):
            break
        slot = (slot + 1) & (len(m.key_index) - 1)
    return slot


@flat_kernel
def find_key(m: Members, definition: int, start_ms: int, end_ms: int, campaign: int, value: int) -> int:
    """Row of the first of a definition's keys side by side; there must be room for them and a block."""
    slot = key_slot(m, definition, start_ms, campaign, value)
    if m.key_index[slot] == 0:
        first = m.used[KEYS]
        kind = m.definitions[definition]
        block = find_block(m, kind.group, start_ms, campaign, end_ms + kind.hold_ms)
        m.used[KEYS] = first + kind.width
        m.key_index[slot] = first + 1
        for row in range(first, first + kind.width):
            m.keys[row].start_ms = start_ms
            m.keys[row].end_ms = end_ms
            m.keys[row].gross = 0
            m.keys[row].suspect = 0
            m.keys[row].definition = definition
            m.keys[row].campaign = campaign
            m.keys[row].value = value
            m.keys[row].block = block
            m.keys[row].next = 0
            m.keys[row].level = kind.level
        m.keys[first].next = m.blocks[block].keys
        m.blocks[block].keys = first + 1
    found: int = m.key_index[slot] - 1
    return found

"""The tables of :mod:`metrics.members` as bytes and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.definitions import DEFINITION
from metrics.hash_index import new_index
from metrics.members import BLOCK, BLOCKS, KEY, KEYS, LINK, LINKS, USER, USERS, Members


def packed_members(m: Members) -> dict[str, NDArray[Any] | bytes]:
    """Rows in use of every table, without indexes."""
    return {
        "definitions": bytes_of(m.definitions),
        "users": bytes_of(m.users[: m.used[USERS]]),
        "links": bytes_of(m.links[: m.used[LINKS]]),
        "keys": bytes_of(m.keys[: m.used[KEYS]]),
        "blocks": bytes_of(m.blocks[: m.used[BLOCKS]]),
    }


def unpacked_members(state: Mapping[str, NDArray[Any] | bytes]) -> Members:
    """Tables as they were, without indexes: good for rebuilding others from."""
    users, links = rows_of(state, "users", USER), rows_of(state, "links", LINK)
    keys, blocks = rows_of(state, "keys", KEY), rows_of(state, "blocks", BLOCK)
    return Members(
        users=users,
        user_index=new_index(1),
        links=links,
        pairs=np.zeros(2, np.uint64),
        keys=keys,
        key_index=new_index(1),
        blocks=blocks,
        block_index=new_index(1),
        used=np.array([len(users), len(links), len(keys), len(blocks)], np.int64),
        definitions=rows_of(state, "definitions", DEFINITION),
        restate_ms=np.zeros(1, np.int64),
    )


def bytes_of(rows: NDArray[np.void]) -> NDArray[np.uint8]:
    """A copy for a snapshot. As against ``tobytes``, other threads run meanwhile: the stream goes on."""
    return rows.view(np.uint8).copy()


def rows_of(
    state: Mapping[str, NDArray[Any] | bytes], name: str, dtype: np.dtype[np.void]
) -> NDArray[np.void]:
    """One table of a snapshot."""
    return np.frombuffer(state[name], dtype).copy()

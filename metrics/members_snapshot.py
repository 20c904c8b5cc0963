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
        "definitions": m.definitions.tobytes(),
        "users": m.users[: m.used[USERS]].tobytes(),
        "links": m.links[: m.used[LINKS]].tobytes(),
        "keys": m.keys[: m.used[KEYS]].tobytes(),
        "blocks": m.blocks[: m.used[BLOCKS]].tobytes(),
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


def rows_of(
    state: Mapping[str, NDArray[Any] | bytes], name: str, dtype: np.dtype[np.void]
) -> NDArray[np.void]:
    """One table of a snapshot."""
    return np.frombuffer(bytes(state[name]), dtype).copy()

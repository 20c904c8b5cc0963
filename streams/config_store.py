"""Configs by hash beside the state: a turn that was recorded under an old config is taken again under it."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

from detectors.plan import Plan, make_plan
from schemas.config import Config, config_from_json
from schemas.errors import StateError
from sinks.patience import patiently
from sinks.store import STAGING_FOLDER, Store
from streams.checkpoints import THE_STATE

_FOLDER = "configs"


class ConfigStore:
    """Files ``configs/<hash>.json`` of the state; nothing removes them.

    Parameters
    ----------
    state
        Where the state is, the same place for all workers.
    """

    def __init__(self, state: Store) -> None:
        self._state = state
        self._known: dict[bytes, Config] = {}
        self._plans: dict[bytes, Plan] = {}

    def keep(self, config: Config) -> None:
        """Write a config, durably, unless it is there.

        Raises
        ------
        OSError
            The state can not be written; call again.
        """
        name = _name(config.hash)
        if self._state.read(name, durable=True) is None:
            staged = f"{STAGING_FOLDER}/{_FOLDER}/{uuid.uuid4().hex}.staged"
            self._state.create(name, config.to_json(), by_way_of=staged)
        self._known[bytes.fromhex(config.hash)] = config

    def config(self, digest: bytes) -> Config:
        """The config of a hash (16 bytes).

        Raises
        ------
        StateError
            Nobody kept it here.
        OSError
            The state can not be read; call again.
        """
        if digest not in self._known:
            content = self._state.read(_name(digest.hex()))
            if content is None:
                raise StateError(
                    f"a turn was judged by config {digest.hex()}, which is not in {_FOLDER}/ of the state: "
                    "all workers need the same --state"
                )
            self._known[digest] = config_from_json(content)
        return self._known[digest]

    async def kept(self, digest: bytes) -> Config:
        """The config of a hash; waits for a store that is away.

        Raises
        ------
        StateError
            Nobody kept it here.
        """
        if digest in self._known:
            return self._known[digest]
        return await patiently(THE_STATE, partial(asyncio.to_thread, self.config, digest))

    def plan(self, digest: bytes) -> Plan:
        """The plan of a config's features; raises as :meth:`config`."""
        if digest not in self._plans:
            self._plans[digest] = make_plan(self.config(digest))
        return self._plans[digest]


def _name(config_hash: str) -> str:
    return f"{_FOLDER}/{config_hash}.json"

"""The configs that recorded rows name: from config folders, and from what workers keep beside their state."""

from __future__ import annotations

import re
from collections.abc import Sequence

from detectors.lists import ListBook, values_in
from detectors.recorded_rows import ValuesOf
from schemas.config import Config
from schemas.errors import StateError
from schemas.keys import KeyRing
from sinks.store import Store
from streams.config_files import ConfigFolder
from streams.config_store import ConfigStore
from streams.list_books import ListBooks
from streams.list_store import ListStore

_HASH = re.compile("[0-9a-f]{32}")


class KeptConfigs:
    """Finds configs by their hash, with the contents of their lists; folders come first.

    Parameters
    ----------
    folders
        Config folders as they were read.
    state
        Where the workers keep their state; it may be empty.
    ring
        Keys of the installation.

    Attributes
    ----------
    why
        Of each hash that was looked for in vain: what is missing, in a sentence.
    """

    def __init__(self, folders: Sequence[ConfigFolder], state: Store, ring: KeyRing) -> None:
        self._folders = {folder.config.hash: folder.config for folder in folders}
        self._contents = {digest: raw for folder in folders for digest, raw in folder.lists.items()}
        self._configs, self._lists = ConfigStore(state), ListStore(state, ring)
        self._books = ListBooks(ring, self._content)
        self.why: dict[str, str] = {}

    def find(self, config_hash: str) -> Config | None:
        """The config of a hash; None if it, or one of its lists, is nowhere (see :attr:`why`)."""
        try:
            config = self._folders.get(config_hash) or self._stored(config_hash)
            for source in config.lists.values():
                if source.digest:
                    self._content(source.digest)
        except StateError as error:
            self.why[config_hash] = str(error)
            return None
        return config

    def lists(self, config: Config) -> ListBook:
        """The lists of a config, compiled."""
        return self._books.of(config)

    def values(self, config: Config) -> ValuesOf:
        """Gives the values of a config's lists."""

        def values_of(name: str) -> Sequence[str]:
            source = config.lists[name]
            return values_in(self._content(source.digest), entity=source.entity) if source.digest else []

        return values_of

    def _stored(self, config_hash: str) -> Config:
        if _HASH.fullmatch(config_hash) is None:
            raise StateError("this is no hash of a config; expected 32 hex digits")
        config = self._configs.config(bytes.fromhex(config_hash))
        if config.hash != config_hash:
            raise StateError("what is kept under this hash is another config")
        return config

    def _content(self, digest: str) -> bytes:
        return self._contents[digest] if digest in self._contents else self._lists.content(digest)

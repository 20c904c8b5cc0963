"""The lists of configs, compiled once for all judges of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

from detectors.lists import ListBook, ValueList
from schemas.config import Config
from schemas.keys import KeyRing

_EMPTY = b"value\n"


class ListBooks:
    """Compiles lists when they are first asked for; what no judge judges by any more is let go. Threads may share it.

    Parameters
    ----------
    ring
        Of the installation.
    content
        Gives the content of a list's file by its digest.
    """

    def __init__(self, ring: KeyRing, content: Callable[[str], bytes]) -> None:
        self._ring, self._content, self._lock = ring, content, threading.Lock()
        self._lists: WeakValueDictionary[tuple[str, str], ValueList] = WeakValueDictionary()
        self._books: WeakValueDictionary[str, ListBook] = WeakValueDictionary()

    def of(self, config: Config) -> ListBook:
        """The lists of a config; about 1 s a million entries that are new.

        Raises
        ------
        StateError
            The content of one is not kept.
        """
        with self._lock:
            book = self._books.get(config.hash)
            if book is None:
                lists = {
                    name: self._list(source.digest, source.entity) for name, source in config.lists.items()
                }
                book = self._books[config.hash] = ListBook(lists, config)
            return book

    def _list(self, digest: str, entity: str) -> ValueList:
        known = self._lists.get((digest, entity))
        if known is None:
            content = self._content(digest) if digest else _EMPTY
            known = self._lists[digest, entity] = ValueList(content, entity, self._ring)
        return known

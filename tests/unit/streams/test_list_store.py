"""Lists beside the state: kept whole, sealed, shared while somebody judges by them."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

import pytest

from schemas.config import Config, ListSource
from schemas.errors import StateError
from schemas.keys import KeyRing
from sinks.local_store import LocalStore
from streams.list_books import ListBooks
from streams.list_store import ListStore

RING = KeyRing(bytes(32))
CONTENT = b"value\n" + b"".join(b"1380013%04d\n" % i for i in range(1000))
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:32]


def test_what_is_kept_comes_back_and_is_not_to_be_read_on_disk(tmp_path: Path) -> None:
    store = ListStore(LocalStore(tmp_path), RING)
    store.keep_all({DIGEST: CONTENT, "0" * 32: b""})
    store.keep(DIGEST, CONTENT)
    assert ListStore(LocalStore(tmp_path), RING).content(DIGEST) == CONTENT
    assert store.content("0" * 32) == b""
    for file in (tmp_path / "lists").iterdir():
        assert b"13800" not in file.read_bytes()


def test_another_key_or_another_state_does_not_have_it(tmp_path: Path) -> None:
    ListStore(LocalStore(tmp_path), RING).keep(DIGEST, CONTENT)
    with pytest.raises(StateError, match="does not open"):
        ListStore(LocalStore(tmp_path), KeyRing(b"x" * 32)).content(DIGEST)
    with pytest.raises(StateError, match="same --state"):
        ListStore(LocalStore(tmp_path / "elsewhere"), RING).content(DIGEST)


def test_a_content_under_another_digest_does_not_open(tmp_path: Path) -> None:
    store = ListStore(LocalStore(tmp_path), RING)
    store.keep(DIGEST, CONTENT)
    (tmp_path / "lists" / f"{DIGEST}.sealed").rename(tmp_path / "lists" / f"{'0' * 32}.sealed")
    with pytest.raises(StateError, match="does not open"):
        store.content("0" * 32)


def test_lists_are_compiled_once_and_let_go_when_nobody_uses_them() -> None:
    asked = []

    def content(digest: str) -> bytes:
        asked.append(digest)
        return CONTENT

    books = ListBooks(RING, content)
    one = ListSource(kind="grey", entity="phone", file="a.csv", digest=DIGEST)
    grey = Config(lists={"a": one, "none": ListSource(kind="white", entity="ip", file="b.csv")})
    black = Config(lists={"b": ListSource(kind="black", entity="phone", file="a.csv", digest=DIGEST)})
    held = [books.of(grey), books.of(grey), books.of(black)]
    assert held[0] is held[1]
    assert asked == [DIGEST]
    held.clear()
    gc.collect()
    books.of(black)
    assert asked == [DIGEST] * 2

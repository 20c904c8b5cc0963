"""Being alone on an object store, as far as that goes: an object that names its owner and when that ends.

Nothing in a bucket goes with its owner. So a lease runs out unless it is renewed, and who was frozen for longer than
that wakes up without knowing that it belongs to somebody else. Clocks that differ do the same. Therefore a lease keeps
people from doing the same work twice; that no row is lost or doubled must not rest on it, and does not
(:mod:`sinks.upkeep_journal`).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, TypeAlias

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import ObjectStore as Bucket

log = logging.getLogger(__name__)

LEASE_S = 90
_RENEW_S = 20

_Mode: TypeAlias = Any
"""A condition, as :func:`obstore.put` takes it."""


class _Written(msgspec.Struct, frozen=True):
    """What the object says: whose the lease is, and until when in epoch ms."""

    owner: str
    until_ms: int


_decoder = msgspec.json.Decoder(_Written)


def _now_ms() -> int:
    return int(time.time() * 1000)


class Lease:
    """The lease of one name, renewed in a thread from :meth:`take` to :meth:`release`.

    Parameters
    ----------
    bucket, name
        Where it lies.
    now_ms
        The clock, epoch ms.
    """

    def __init__(self, bucket: Bucket, name: str, *, now_ms: Callable[[], int] = _now_ms) -> None:
        self._bucket, self._name, self._now_ms = bucket, name, now_ms
        self._owner = uuid.uuid4().hex
        self._tag: str | None = None
        self._over = Event()
        self._renewing = Thread(target=self._renew_until_over, name="lease", daemon=True)

    def take(self) -> bool:
        """Take it if nobody has it, or its time is over; of many who try, one gets True."""
        try:
            found = obstore.get(self._bucket, self._name)
            if _end_of(bytes(found.bytes())) > self._now_ms():
                return False
            mode: _Mode = {"e_tag": found.meta["e_tag"]}
        except FileNotFoundError:
            mode = "create"
        if not self._write(mode, LEASE_S):
            return False
        self._renewing.start()
        return True

    def renew(self) -> bool:
        """Hold it from now on for as long again; False when somebody else has it."""
        return self._write({"e_tag": self._tag}, LEASE_S)

    def release(self) -> None:
        """Let others have it at once; where that fails, it runs out."""
        self._over.set()
        if not self._renewing.is_alive():
            return
        self._renewing.join()
        try:
            self._write({"e_tag": self._tag}, 0)
        except BaseError as error:
            log.debug("a lease is left to run out: %s", error)

    def _write(self, mode: _Mode, lasts_s: int) -> bool:
        content = msgspec.json.encode(_Written(self._owner, self._now_ms() + lasts_s * 1000))
        try:
            self._tag = obstore.put(self._bucket, self._name, content, mode=mode)["e_tag"]
        except (AlreadyExistsError, PreconditionError):
            # Perhaps by ourselves: the answer to the first try may have been lost.
            found = obstore.get(self._bucket, self._name)
            if bytes(found.bytes()) != content:
                return False
            self._tag = found.meta["e_tag"]
        return True

    def _renew_until_over(self) -> None:
        while not self._over.wait(_RENEW_S):
            try:
                if not self.renew():
                    log.warning(
                        "somebody else took the lease %s over: we did not renew it in time", self._name
                    )
                    return
            except (BaseError, FileNotFoundError) as error:
                log.debug("the lease %s is renewed later: %s", self._name, error)


def _end_of(content: bytes) -> int:
    """When a lease ends; what can not be read has ended."""
    try:
        return _decoder.decode(content).until_ms
    except msgspec.DecodeError:
        return 0

"""A lease in a bucket: one has it, it is renewed, it runs out, and who lost it does not give it away."""

from __future__ import annotations

import logging
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

import sinks.lease
from sinks.lease import LEASE_S, Lease
from tests.waiting import wait_until

NAME = "_log/upkeep.lease"


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def bucket() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_one_has_it_until_it_is_released(bucket: MemoryStore, clock: Clock) -> None:
    first, second = (Lease(bucket, NAME, now_ms=clock) for _ in range(2))
    assert first.take()
    assert not second.take()
    second.release()
    assert not Lease(bucket, NAME, now_ms=clock).take(), "who does not have it can not release it"
    first.release()
    third = Lease(bucket, NAME, now_ms=clock)
    assert third.take()
    third.release()


def test_it_runs_out_unless_it_is_renewed(bucket: MemoryStore, clock: Clock) -> None:
    first, second = (Lease(bucket, NAME, now_ms=clock) for _ in range(2))
    assert first.take()
    clock.ms += LEASE_S * 999
    assert first.renew()
    clock.ms += LEASE_S * 999
    assert not second.take()
    clock.ms += LEASE_S
    assert second.take()
    assert not first.renew()
    first.release()
    assert second.renew(), "the one before did not give away what is not its own"
    second.release()


def test_it_is_renewed_by_itself_and_a_loss_is_told(
    bucket: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sinks.lease, "_RENEW_S", 0.01)
    first, second = (Lease(bucket, NAME, now_ms=clock) for _ in range(2))
    assert first.take()
    begun = bytes(obstore.get(bucket, NAME).bytes())
    clock.ms += 1000
    wait_until(lambda: bytes(obstore.get(bucket, NAME).bytes()) != begun, "it was not renewed")
    obstore.put(bucket, NAME, b"nothing that can be read")
    with caplog.at_level(logging.WARNING):
        wait_until(lambda: "took the lease" in caplog.text, "the loss was not told")
    assert second.take()
    first.release()
    second.release()


def test_of_two_who_take_one_that_ran_out_one_gets_it(
    bucket: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, first, second = (Lease(bucket, NAME, now_ms=clock) for _ in range(3))
    assert dead.take()
    clock.ms += LEASE_S * 1001
    put = obstore.put
    taken: list[object] = []

    def after_the_other(*arguments: Any, **options: Any) -> Any:
        if not taken:
            taken.append("begun")
            taken.append(second.take())
        return put(*arguments, **options)

    monkeypatch.setattr(obstore, "put", after_the_other)
    assert (first.take(), taken) == (False, ["begun", True])
    dead.release()
    assert second.renew()
    second.release()


def test_a_request_that_the_client_repeats_by_itself_is_ours(
    bucket: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def repeated(*arguments: Any, **options: Any) -> Any:
        put(*arguments, **options)
        return put(*arguments, **options)

    monkeypatch.setattr(obstore, "put", repeated)
    lease = Lease(bucket, NAME, now_ms=clock)
    assert lease.take()
    assert lease.renew()
    lease.release()

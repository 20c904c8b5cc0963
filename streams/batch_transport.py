"""The Faust transport ``batch://``: one message is one fetched batch of one partition.

Registered through the entry point group ``faust.transports``, and by :func:`register` where the package is
not installed. Works for faust-streaming 0.15.3 with aiokafka 0.14.0 and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import faust
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types.transports import ConsumerCallback, ConsumerT

from streams.batch_consumer import BatchConsumer
from streams.batch_thread import FetchOptions
from streams.fatal import stop_process
from streams.positions import GroupPositions, Positions

SCHEME = "batch"


@dataclass(frozen=True)
class TransportOptions:
    """What an application gives to its transport."""

    positions: Positions = field(default_factory=GroupPositions)
    fetch: FetchOptions = field(default_factory=FetchOptions)
    idempotent_producer: bool = True


class BatchApp(faust.App):
    """A Faust app that knows the options of its batch transport."""

    def __init__(self, *args: Any, transport_options: TransportOptions, **kwargs: Any) -> None:
        self.transport_options = transport_options
        super().__init__(*args, **kwargs)

    def _create_directories(self) -> None:
        """Make none: tables are in memory, and a worker must leave no folder where it happens to start."""

    def _crash(self, reason: BaseException) -> None:
        """End the process: a crashed Faust app lives on, in the group, and does nothing."""
        super()._crash(reason)
        # Faust crashes its fetcher with a cancellation when it is stopped in the middle of a rebalance.
        if not self._stopped.is_set() and not isinstance(reason, asyncio.CancelledError):
            stop_process(f"the Kafka client failed: {reason!r}")


class Producer(driver.Producer):
    """Faust's producer, idempotent: a retry after a lost answer writes nothing twice."""

    def _settings_extra(self) -> Mapping[str, Any]:
        if not _options(self.app).idempotent_producer:
            return super()._settings_extra()
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}


class Transport(driver.Transport):
    """The transport class that the entry point names."""

    Producer = Producer

    def create_consumer(self, callback: ConsumerCallback, **kwargs: Any) -> ConsumerT:
        """Return a consumer of batches, with the options of the app or the defaults."""
        options = _options(self.app)
        return BatchConsumer(
            self,
            callback=callback,
            loop=self.loop,
            positions=options.positions,
            options=options.fetch,
            **kwargs,
        )


def register() -> None:
    """Make ``batch://`` known to Faust; again, or beside the entry point, it changes nothing."""
    TRANSPORTS.aliases[SCHEME] = "streams.batch_transport:Transport"


def _options(app: Any) -> TransportOptions:
    return app.transport_options if isinstance(app, BatchApp) else TransportOptions()

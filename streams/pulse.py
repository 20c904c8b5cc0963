"""A child's side of being watched: measures once a second and tells the parent, a line of JSON on standard output."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from sinks.patience import away
from streams.meters import PULSE_S, Pulse, Sample, process_memory
from streams.transport import TP, BatchConsumer

log = logging.getLogger(__name__)

STALL_S = 60.0
"""Input that waits for so long without a step of the durable position is a stall."""
_KAFKA_S = 30.0


class Watchdog:
    """Notices durable positions that stand still though there is input.

    Parameters
    ----------
    clock
        Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[TP, tuple[int, float]] = {}
        self._told: set[TP] = set()

    def look(self, behind: Mapping[TP, int], *, patience_s: float) -> dict[str, float]:
        """Which partitions have stood still for longer than that, and for how long.

        Parameters
        ----------
        behind
            Durable positions of the partitions that have input beyond them.
        """
        now = self._clock()
        self._since = {
            tp: known if (known := self._since.get(tp)) is not None and known[0] == at else (at, now)
            for tp, at in behind.items()
        }
        stalled = {tp: now - since for tp, (_, since) in self._since.items() if now - since > patience_s}
        for tp in stalled.keys() - self._told:
            log.error("%s-%d: nothing became durable for %.0f s though there is input", *tp, stalled[tp])
        self._told = set(stalled)
        return {f"{tp.topic}-{tp.partition}": seconds for tp, seconds in stalled.items()}


def measure(
    consumer: BatchConsumer,
    samples: Iterable[Sample],
    *,
    watched: Collection[str],
    watchdog: Watchdog,
    pause_s: float,
) -> Pulse:
    """The pulse of an app.

    Parameters
    ----------
    consumer
        The app's.
    samples
        What the app knows of itself.
    watched
        Topics of which everything becomes durable sooner or later.
    watchdog
        Of this process.
    pause_s
        The time between two durable positions at present.
    """
    durable, owned, kafka_s, lag = consumer.durable_positions(), 0, 0.0, []
    behind: dict[TP, int] = {}
    for tp, position in durable.items():
        standing = consumer.standing(tp)
        if standing is None or tp.topic not in watched:
            continue
        owned += 1
        labels = (tp.topic, str(tp.partition))
        lag.append(Sample("durable_lag_records", labels, max(0, standing.end - position)))
        lag.append(Sample("read_lag_records", labels, max(0, standing.end - standing.position)))
        if consumer.is_behind(tp):
            behind[tp] = position
        # A partition that is full is not read, so its answer may be old.
        if standing.held == 0:
            kafka_s = max(kafka_s, time.time() - standing.as_of_ms / 1000)
    waits = away() | ({"Kafka": kafka_s} if kafka_s > _KAFKA_S else {})
    stalled = watchdog.look(behind, patience_s=max(STALL_S, 3 * pause_s))
    more = [Sample("owned_partitions", (), owned), process_memory()]
    more += [Sample("away_seconds", (component,), seconds) for component, seconds in waits.items()]
    return Pulse(consumer.generation is not None, waits, stalled, [*samples, *lag, *more])


async def beat(take: Callable[[], Pulse]) -> None:
    """Tell the parent, for ever. It is written in a thread: a parent that does not read must not stop the child."""
    while True:
        try:
            line = msgspec.json.encode(take()) + b"\n"
            await asyncio.to_thread(_write, line)
        except Exception:  # whatever it was: who is not watched works on, and is missed soon
            log.exception("the pulse could not be told")
        await asyncio.sleep(PULSE_S)


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()

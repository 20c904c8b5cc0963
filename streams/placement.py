"""Whether events stand in the partition of their user: a producer that hashes keys otherwise is found and named."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np

from schemas.events import STRING_FIELDS, EventBatch
from schemas.keys import murmur2_partition

log = logging.getLogger(__name__)

REPEAT_S = 600.0
"""An unchanged complaint about one source is made again after so long."""

_USER = STRING_FIELDS.index("user_id")


class Placement:
    """Looks at the batches of one judge partition; about 10 ns an event.

    A user with events in two partitions is two users: counted twice, and a repeat in the other partition is not
    noticed. The events are judged all the same, for no one else would judge them.

    Parameters
    ----------
    partition, partitions
        Which of how many.
    clock
        Seconds that never go back; for tests.
    """

    def __init__(
        self, partition: int, partitions: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._partition, self._partitions, self._clock = partition, partitions, clock
        self._misplaced: dict[str, int] = {}
        self._said_at: dict[str, float] = {}

    def look(self, batch: EventBatch) -> int:
        """Count the events that belong elsewhere and, now and then, say so with the cure; returns the count."""
        belongs = murmur2_partition(batch.buffer, batch.starts[_USER], batch.lengths[_USER], self._partitions)
        found = int(np.count_nonzero((belongs != self._partition) & (batch.rejected == 0)))
        if found:
            self._misplaced[batch.topic] = self._misplaced.get(batch.topic, 0) + found
            self._say(batch.topic)
        return found

    def _say(self, topic: str) -> None:
        now = self._clock()
        if topic in self._said_at and now - self._said_at[topic] < REPEAT_S:
            return
        self._said_at[topic] = now
        log.error(
            "%s-%d: %d events so far belong to another partition by their user_id; such users are counted once in "
            "each partition, and their duplicates are not noticed. A producer of this topic does not place records "
            "as the Java clients do (murmur2 of the key, modulo %d). The cure: let it use user_id as the record's "
            "key, and the Java partitioner (librdkafka, and so Python, Go, .NET: partitioner=murmur2_random)",
            topic,
            self._partition,
            self._misplaced[topic],
            self._partitions,
        )

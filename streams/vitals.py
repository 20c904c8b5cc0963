"""The parent's side of being watched: the last pulse of each child, and what it says of the worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

import msgspec

from streams.config_watch import ConfigWatch
from streams.meters import Pulse, Sample, as_text

log = logging.getLogger(__name__)

SILENT_S = 10.0
"""A child that says nothing for so long is stopped, or its event loop stands still."""
PULSE_CAP = 4 * 1024 * 1024
_decoder = msgspec.json.Decoder(Pulse)


class Vitals:
    """What is known of the children of a worker.

    Parameters
    ----------
    parts
        Their names.
    clock
        Seconds that never go back.
    watch
        The config folder, if it is watched.
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
        watch: ConfigWatch | None = None,
    ) -> None:
        self._clock, self._watch = clock, watch
        self._heard = dict.fromkeys(parts, clock())
        self._pulses: dict[str, Pulse] = {}

    async def listen(self, part: str, stream: asyncio.StreamReader) -> None:
        """Take pulses until the child closes its side."""
        while line := await stream.readline():
            try:
                self.take(part, _decoder.decode(line))
            except msgspec.DecodeError:
                log.warning("the %s printed something that is no pulse", part)

    def take(self, part: str, pulse: Pulse) -> None:
        """Remember a pulse."""
        self._pulses[part], self._heard[part] = pulse, self._clock()

    def unwell(self) -> list[str]:
        """Why a restart may be what helps, in sentences; empty when all is well."""
        return [*self._silent(), *self._stalled()]

    def unready(self) -> list[str]:
        """Why the worker does not do its work now, in sentences; empty when it does."""
        starting = [f"the {part} starts" for part in self._heard if part not in self._pulses]
        return [*self.unwell(), *starting, *self._unseated(), *self._waiting()]

    def hints(self) -> list[str]:
        """What somebody should see to though the worker does its work, in sentences."""
        refused = self._watch.refused if self._watch is not None else ""
        return [f"the config in the folder is refused and an older one runs: {refused}"] if refused else []

    def metrics(self) -> str:
        """All metrics in Prometheus' text format."""
        samples = [(part, sample) for part, pulse in self._pulses.items() for sample in pulse.samples]
        return as_text([*samples, ("worker", Sample("config_refused", (), len(self.hints())))])

    def _silent(self) -> Iterator[str]:
        for part, at in self._heard.items():
            # A start compiles, loads checkpoints and joins the group before the first pulse.
            if part in self._pulses and self._clock() - at > SILENT_S:
                yield f"the {part} has said nothing for {self._clock() - at:.0f} s"

    def _stalled(self) -> Iterator[str]:
        for pulse in self._pulses.values():
            for place, seconds in pulse.stalled.items():
                yield f"{place}: nothing became durable for {seconds:.0f} s though there is input"

    def _unseated(self) -> Iterator[str]:
        for part, pulse in self._pulses.items():
            if not pulse.ready:
                yield f"the {part} has no partitions assigned yet"

    def _waiting(self) -> Iterator[str]:
        for part, pulse in self._pulses.items():
            for component, seconds in pulse.away.items():
                yield f"the {part} has waited for {component} for {seconds:.0f} s"

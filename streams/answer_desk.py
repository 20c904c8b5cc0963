"""Where a judge waits for answers: those of one partition, by turn and owner."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from schemas.errors import Abandoned
from schemas.sightings import Answers

log = logging.getLogger(__name__)

Cut = tuple[int, int, int]
"""Of a turn: topic, start, next."""
_PATIENCE_S = 5.0
"""After this long a wait is reported; it goes on."""


class AnswerDesk:
    """Answers of one source partition. The first answer of an owner to a turn wins; a different second one is an alarm.

    Parameters
    ----------
    next_turn
        Answers to turns before this one are of no use any more.
    position
        Offset of the answers topic from which the desk is filled.
    """

    def __init__(self, *, next_turn: int, position: int) -> None:
        self._next_turn, self._position = next_turn, position
        self._answers: dict[int, dict[int, Answers]] = {}
        self._first_offset: dict[int, int] = {}
        self._arrived = asyncio.Event()
        self.abandoned = False
        self.unequal = 0

    def put(self, answers: Answers, offset: int) -> None:
        """Take in one record."""
        self._position = max(self._position, offset + 1)
        if answers.turn < self._next_turn:
            return
        by_owner = self._answers.setdefault(answers.turn, {})
        self._first_offset.setdefault(answers.turn, offset)
        held = by_owner.setdefault(answers.owner, answers)
        if held is not answers and not np.array_equal(held.values, answers.values):
            self.unequal += 1
            log.error(
                "owner %d answered turn %d of partition %d twice and differently: the first answer stands",
                answers.owner,
                answers.turn,
                answers.source,
            )
        self._arrived.set()

    async def wait(self, turn: int, owners: set[int], cut: Cut) -> dict[int, Answers]:
        """All owners' answers to a turn, which is ``cut`` like this.

        Raises
        ------
        Abandoned
            The partition is leaving; the turn is taken again by whoever gets it. Or it has left already: void turns
            are not answered, and the answers are to the turn that a newer owner took under this number.
        """
        waited_s = 0.0
        while not owners <= self._answers.get(turn, {}).keys():
            if self.abandoned:
                raise Abandoned(f"turn {turn} waits for answers that cannot come any more")
            self._arrived.clear()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._arrived.wait()
            except TimeoutError:
                waited_s += _PATIENCE_S
                missing = sorted(owners - self._answers.get(turn, {}).keys())
                log.warning("turn %d has waited %.0f s for the answers of owners %s", turn, waited_s, missing)
        answers = self._answers[turn]
        if any((answer.topic, answer.start, answer.next) != cut for answer in answers.values()):
            raise Abandoned(f"turn {turn} of {cut} is void: a newer owner of the partition took another one")
        return answers

    def done(self, turn: int) -> None:
        """Forget a turn that is judged."""
        self._next_turn = turn + 1
        self._answers.pop(turn, None)
        self._first_offset.pop(turn, None)

    def moved(self, position: int) -> None:
        """Everything below ``position`` was read, also where nothing stood."""
        self._position = max(self._position, position)

    def durable_position(self) -> int:
        """From where the answers topic must be read again so that no turn from the next one on lacks an answer."""
        return min(self._first_offset.values(), default=self._position)

    def abandon(self) -> None:
        """Let every wait go, now and later."""
        self.abandoned = True
        self._arrived.set()

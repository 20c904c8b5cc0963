"""From features, lists and what models say to score, level, reasons and evidence: the part of judging without memory.

Whatever an event meets here hangs on its own row and the config alone. So the judge and whoever judges recorded rows
again (:mod:`detectors.rejudge`) call the same functions, and get the same verdicts to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.columns import NameFinder
from detectors.evidence import Evidence, EvidenceWriter, ModelScores
from detectors.lists import ListBook, ListHits
from detectors.rules import compile_rules
from detectors.scoring import combine, let_pass, rule_keep, teaches
from detectors.supervised import linear_models, supervised_models
from schemas.config import Config
from schemas.events import EventBatch
from schemas.keys import KeyRing
from schemas.verdicts import PASS


class Ruled(NamedTuple):
    """What lists and rules say of n rows, before any model speaks."""

    inputs: NDArray[np.float64]
    """float64[inputs, n]: what the rules read."""
    listed: ListHits
    fired: NDArray[np.uint8]
    """uint8[n, lists and rules]: not 0 where the list has the row or the rule fired."""
    keep: NDArray[np.float64]
    """float64[n]: what they leave of 1, see :mod:`detectors.scoring`."""


class Scored(NamedTuple):
    """What n rows came to."""

    score: NDArray[np.float64]
    """float64[n], 0..1."""
    level: NDArray[np.uint8]
    """uint8[n]: index into :data:`schemas.verdicts.LEVELS`."""
    strengths: NDArray[np.float64]
    """float64[models, n]: strength of each model, in the config's order."""
    evidence: Evidence


class Scorer:
    """Scores rows under one config; it keeps nothing from one call to the next.

    Parameters
    ----------
    config
        What is judged by.
    ring
        For comparing event names by their keyed hashes.
    lists
        What the config's lists contain.

    Attributes
    ----------
    rules
        The compiled rules; ``rules.inputs`` is what :meth:`rule` must be given.
    reason_names
        What the codes of the evidence mean.

    Raises
    ------
    ValueError
        These are not the config's lists.
    """

    def __init__(self, config: Config, ring: KeyRing, lists: ListBook) -> None:
        if lists.names != tuple(config.lists):
            raise ValueError(f"lists {lists.names}; expected those of the config, {tuple(config.lists)}")
        self.rules = compile_rules(config)
        self._names = NameFinder(tuple(self.rules.name_index), ring)
        rule_weights = [rule.weight for rule in config.rules.values()]
        self._fired_weights = np.array([*lists.weights, *rule_weights], np.float64)
        self._model_weights = np.array([model.weight for model in config.models.values()], np.float64)
        # A classifier has a probability for everybody: it is a reason only where there is something to explain.
        self._speaks_always = [name in supervised_models(config) for name in config.models]
        levels = config.levels
        self._levels = np.array([levels.observe, levels.review, levels.block], np.float64)
        self._evidence = EvidenceWriter(
            [(rule.name, rule.terms) for rule in self.rules.rules],
            [(name, model.features) for name, model in config.models.items()],
            lists,
            linear=linear_models(config),
        )
        self.reason_names = self._evidence.reason_names

    def rule(
        self, batch: EventBatch, rows: NDArray[np.int64], inputs: NDArray[np.float64], listed: ListHits
    ) -> Ruled:
        """Let the rules look.

        Parameters
        ----------
        batch, rows
            The events, and int64[n]: which of them.
        inputs
            float64[inputs, n]: what the rules read; NaN is null.
        listed
            What the lists say of these rows.
        """
        ruled = self.rules.fired(inputs, self.event_numbers(batch, rows))
        fired = np.hstack([listed.fired, ruled])
        return Ruled(inputs, listed, fired, rule_keep(fired, self._fired_weights))

    def event_numbers(self, batch: EventBatch, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Numbers of the rows' event names as the rules know them: int32[n]."""
        return self._names.find(batch, rows, other=-1)

    def teaching(self, ruled: Ruled, on_time: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Which rows may teach unsupervised models: uint8[n]; see :func:`detectors.scoring.teaches`."""
        return teaches(ruled.keep, float(self._levels[1]), on_time, ruled.listed.white)

    def score(self, ruled: Ruled, models: Sequence[ModelScores]) -> Scored:
        """Put lists, rules and models together; ``models`` in the config's order, of the same rows."""
        rows = len(ruled.keep)
        strengths = np.stack([said.strength for said in models]) if models else np.empty((0, rows))
        score, level = combine(ruled.keep, strengths, self._model_weights, self._levels)
        let_pass(ruled.listed.white, score, level)
        told = [
            said._replace(strength=np.where(level > PASS, said.strength, 0.0)) if always else said
            for said, always in zip(models, self._speaks_always, strict=True)
        ]
        evidence = self._evidence.build(ruled.fired, ruled.inputs, told, ruled.listed.notes)
        return Scored(score, level, strengths, evidence)

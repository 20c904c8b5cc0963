"""One supervised model of River, taught by lessons: its probability of fraud; of a linear one, what each input adds.

A null counts as 0. Before the first lesson the strength is 0: the model has nothing to say yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from schemas.config import RiverModel
from schemas.river_classes import classifier_of, new_scaler


class SupervisedModel:
    """River's ``StandardScaler() | classifier``, or the classifier alone; equal to River number for number.

    Parameters
    ----------
    model
        Which class, and whether inputs are scaled.

    Examples
    --------
    >>> block = RiverModel(class_="linear_model.LogisticRegression", features=("dwell_ms",))
    >>> model = SupervisedModel(block)
    >>> model.learn([4.0], 1)
    >>> round(model.strength([0.0]), 3), round(model.strength([4.0]), 3)
    (0.501, 0.521)
    """

    def __init__(self, model: RiverModel) -> None:
        self._names = model.features
        self._classifier = classifier_of(model.class_)
        self._scaler = new_scaler() if model.scale else None
        weights = getattr(self._classifier, "weights", None)
        self.is_linear = isinstance(weights, dict)
        self.lessons = 0
        """How many it learned."""

    def learn(self, values: Sequence[float], label: int) -> None:
        """Learn one lesson; the values in the order of the config's features, without NaN. Some 5 us and more."""
        x = dict(zip(self._names, values, strict=True))
        if self._scaler is not None:
            self._scaler.learn_one(x)
            x = self._scaler.transform_one(x)
        self._classifier.learn_one(x, bool(label))
        self.lessons += 1

    def strength(self, values: Sequence[float]) -> float:
        """Probability of fraud, 0..1; 0 where the model has none."""
        return self._probability(self._seen(values)) if self.lessons else 0.0

    def explained(self, values: Sequence[float]) -> tuple[float, list[float]]:
        """Strength, and of a linear model weight times scaled value of each input."""
        if not self.lessons:
            return 0.0, [0.0] * len(self._names)
        x = self._seen(values)
        weights: dict[str, float] = getattr(self._classifier, "weights", {})
        return self._probability(x), [weights.get(name, 0.0) * x[name] for name in self._names]

    def _seen(self, values: Sequence[float]) -> dict[str, float]:
        x = dict(zip(self._names, values, strict=True))
        return x if self._scaler is None else self._scaler.transform_one(x)

    def _probability(self, x: dict[str, float]) -> float:
        found = float(self._classifier.predict_proba_one(x).get(True, 0.0))
        return 0.0 if math.isnan(found) else min(1.0, max(0.0, found))

"""Which of River's classes a config may name: classifiers that need no parameters."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Protocol, cast

PACKAGE = "river"
SEED = 42
"""For classes that draw random numbers: the same model learns the same."""


class Classifier(Protocol):
    """What is used of River's classifiers."""

    def learn_one(self, x: dict[str, float], y: bool, /) -> None:
        """Learn one event."""
        ...

    def predict_proba_one(self, x: dict[str, float], /) -> dict[bool, float]:
        """Probability of each label."""
        ...


class Scaler(Protocol):
    """What is used of River's scalers."""

    def learn_one(self, x: dict[str, float], /) -> None:
        """Widen what is known of the inputs."""
        ...

    def transform_one(self, x: dict[str, float], /) -> dict[str, float]:
        """The inputs, scaled."""
        ...


def new_scaler() -> Scaler:
    """River's StandardScaler."""
    return cast("Scaler", importlib.import_module(f"{PACKAGE}.preprocessing").StandardScaler())


def classifier_of(name: str) -> Classifier:
    """A new, unlearned instance of the class at a path below ``river``, such as linear_model.LogisticRegression.

    Importing River takes some seconds, so it happens only where a config names one of its models.

    Raises
    ------
    ValueError
        With what is wrong, as the end of a sentence that begins with the name.

    Examples
    --------
    >>> type(classifier_of("linear_model.LogisticRegression")).__name__
    'LogisticRegression'
    >>> classifier_of("linear_model.LinearRegression")
    Traceback (most recent call last):
    ...
    ValueError: which is no binary classifier with probabilities
    """
    module, _, attribute = name.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(f"{PACKAGE}.{module}"), attribute, None)
    except ImportError:
        found = None
    if not inspect.isclass(found):
        raise ValueError("which River does not have")
    base: Any = importlib.import_module(f"{PACKAGE}.base").Classifier
    if not issubclass(found, base) or inspect.isabstract(found):
        raise ValueError("which is no binary classifier with probabilities")
    if getattr(found, "predict_proba_one", None) is base.predict_proba_one:
        raise ValueError("which is no binary classifier with probabilities")
    parameters = inspect.signature(found).parameters.values()
    if any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise ValueError("which can not be made without parameters")
    seed: dict[str, Any] = {"seed": SEED} if any(p.name == "seed" for p in parameters) else {}
    try:
        return cast("Classifier", found(**seed))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError("which can not be made without parameters") from error

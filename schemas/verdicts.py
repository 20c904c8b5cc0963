"""What leaves the judge: the verdicts of one turn as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.events import EventBatch

LEVELS = ("pass", "observe", "review", "block")
PASS, OBSERVE, REVIEW, BLOCK = range(4)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the records of one turn ended; they add up to the records that were consumed."""

    verdicts: int
    late: int
    duplicates: int
    rejected: int

    @property
    def consumed(self) -> int:
        """Records of the turn."""
        return self.verdicts + self.late + self.duplicates + self.rejected


@dataclass(slots=True)
class Verdicts:
    """Verdicts of one turn: m rows, late ones among them, in judged order.

    Parameters
    ----------
    turn
        Number of the turn in its judge partition, from 0.
    batch
        The events; kept alive until the sinks are done with its strings.
    rows
        int64[m]: row of each verdict in ``batch``.
    late
        uint8[m]: 1 where the event came after its watermark.
    user_keys, device_keys
        uint64[m]: keyed hashes, 0 where absent; equal keys are equal values.
    user, device, ip
        uint8[m, 16]: pseudonyms as bytes (their hex digits are what tables show); all zero where absent.
    score
        float64[m], 0..1.
    level
        uint8[m]: index into LEVELS.
    features
        float64[features, m] in the config's order; NaN is null.
    models
        float64[models, m]: strength of each model, 0..1; NaN is null.
    reason_offsets, reason_codes
        int32[m + 1], int32[...]: indexes into ``reason_names``, as an Arrow list.
    evidence_offsets, evidence_bytes
        int32[m + 1], uint8[...]: JSON text, as an Arrow string; empty (no bytes) where nothing fired.
    feature_names, model_names, reason_names
        What the columns and codes mean under this turn's config.
    config_hash
        Hash of the config that judged, 32 hex digits.
    outcomes
        The account of the turn.
    """

    turn: int
    batch: EventBatch
    rows: NDArray[np.int64]
    late: NDArray[np.uint8]
    user_keys: NDArray[np.uint64]
    device_keys: NDArray[np.uint64]
    user: NDArray[np.uint8]
    device: NDArray[np.uint8]
    ip: NDArray[np.uint8]
    score: NDArray[np.float64]
    level: NDArray[np.uint8]
    features: NDArray[np.float64]
    models: NDArray[np.float64]
    reason_offsets: NDArray[np.int32]
    reason_codes: NDArray[np.int32]
    evidence_offsets: NDArray[np.int32]
    evidence_bytes: NDArray[np.uint8]
    feature_names: tuple[str, ...]
    model_names: tuple[str, ...]
    reason_names: tuple[str, ...]
    config_hash: str
    outcomes: Outcomes

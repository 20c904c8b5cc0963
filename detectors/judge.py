"""Judging one partition: a pure function of (state, turn, answers).

A turn has two halves. :meth:`Judge.ask` decides which rows are judged (late, duplicate and broken ones apart) and
what must be asked of the owners of their entities; :meth:`Judge.judge` takes the answers and gives verdicts. Nothing
here knows a clock, a broker or a file; the same turns with the same answers give the same verdicts to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.columns import AnswerReader, Columns, NameFinder
from detectors.dedupe import FRESH, LATE, NEVER, Dedupe
from detectors.entities import entity_keys
from detectors.evidence import ModelScores
from detectors.half_space_trees import HalfSpaceForest
from detectors.inquiry import Inquiry, split_by_owner
from detectors.lists import NO_LISTS, ListBook
from detectors.plan import make_plan
from detectors.scorer import Scorer
from detectors.supervised import JudgedRows, Spoken, Supervised
from schemas.config import Config, HalfSpaceTrees
from schemas.events import TOPICS, EventBatch
from schemas.keys import KeyRing, mix
from schemas.labels import Labels
from schemas.pseudonyms import Pseudonyms
from schemas.sightings import NO_NAME, Answers
from schemas.verdicts import Outcomes, Verdicts

State = dict[str, NDArray[Any] | bytes]


class Judge:
    """The judge of one partition under one config.

    Parameters
    ----------
    config
        What is judged by.
    ring
        Keys for hashing and pseudonyms.
    partition
        Number of the partition.
    owners
        How many owner partitions share the entities.
    topics
        How many topics the events come in: two, or one (a recording).
    lists
        What the config's lists contain.
    label_horizon_ms
        How long features are kept for labels to come; None: as the config says.

    Raises
    ------
    ValueError
        These are not the config's lists.
    """

    def __init__(
        self,
        config: Config,
        ring: KeyRing,
        *,
        partition: int,
        owners: int,
        topics: int = len(TOPICS),
        lists: ListBook = NO_LISTS,
        label_horizon_ms: int | None = None,
    ) -> None:
        self.config, self.config_hash, self.plan = config, config.hash, make_plan(config)
        self.turn = 0
        self.topics = topics
        self._ring, self._partition, self._owners = ring, partition, owners
        self._pseudonyms = Pseudonyms(ring)
        self._dedupe = Dedupe(config.lateness_ms, max_ids=config.memory.max_event_ids)
        self._answers = AnswerReader(self.plan)
        self._counted_names = NameFinder(self.plan.names, ring)
        self._lists, self._scorer = lists, Scorer(config, ring, lists)
        self._models = {n: m for n, m in config.models.items() if isinstance(m, HalfSpaceTrees)}
        self._forests = {name: _forest(model) for name, model in self._models.items()}
        self.supervised = Supervised(
            config,
            learns_here=owners == 1,
            horizon_ms=config.label_horizon_ms if label_horizon_ms is None else label_horizon_ms,
        )

    @property
    def watermark_ms(self) -> int:
        """Events below it are late in whatever topic events come; far in the past while one of them had no event."""
        only = self.config.topics.only
        topics = range(self.topics) if only is None or self.topics == 1 else [TOPICS.index(only)]
        watermarks = [self._dedupe.watermark_ms(topic) for topic in topics]
        return min(NEVER if watermark is None else watermark for watermark in watermarks)

    def newest_of(self, topic: int) -> int | None:
        """Largest event time of a topic; None: it had no event yet."""
        return self._dedupe.max_ts_ms(topic)

    @property
    def newest_ms(self) -> int:
        """Largest event time of any topic; far in the past before the first event."""
        newest = [self.newest_of(topic) for topic in range(self.topics)]
        return max((ts_ms for ts_ms in newest if ts_ms is not None), default=NEVER)

    @property
    def forgotten_event_ids(self) -> int:
        """Event ids forgotten within the lateness, to make room."""
        return self._dedupe.dropped

    # -- the first half ------------------------------------------------------------------------------------------

    def ask(self, batch: EventBatch) -> Inquiry:
        """Screen a batch and say what must be asked. It changes the memory of event ids and the watermark."""
        keys = {kind: entity_keys(batch, kind, self._ring) for kind in ("event_id", "user_id")}
        sound = batch.rejected == 0
        outcome = self._dedupe.screen(
            TOPICS.index(batch.topic) if batch.topic in TOPICS else 0,
            mix(keys["event_id"], keys["user_id"]),
            batch.integers[0],
            sound.astype(np.uint8),
        )
        rows = np.flatnonzero(sound & ((outcome == FRESH) | (outcome == LATE)))
        for kind in ("device_id", *self.plan.kinds, *self.plan.members):
            if kind not in keys:
                keys[kind] = entity_keys(batch, kind, self._ring)
        entity = _stack([keys[kind] for kind in self.plan.kinds], rows)
        return Inquiry(
            turn=self.turn,
            batch=batch,
            rows=rows,
            late=(outcome[rows] == LATE).astype(np.uint8),
            duplicates=int(np.count_nonzero(sound)) - len(rows),
            name=self._counted_names.find(batch, rows, other=NO_NAME).astype(np.uint16),
            keys=entity,
            members=_stack([keys[kind] for kind in self.plan.members], rows),
            user_keys=keys["user_id"][rows],
            device_keys=keys["device_id"][rows],
            questions=split_by_owner(entity, self.plan, source=self._partition, owners=self._owners),
        )

    def take_back(self) -> bool:
        """Be as before the last :meth:`ask`. False, and nothing is changed, where that can not be."""
        return self._dedupe.take_back()

    # -- the second half -----------------------------------------------------------------------------------------

    def judge(self, inquiry: Inquiry, answers: Mapping[int, Answers]) -> Verdicts:
        """Score the rows of an inquiry by the owners' answers; learn from those that lists and rules call clean."""
        batch, rows = inquiry.batch, inquiry.rows
        columns = Columns(batch, rows, self.config.features, self._ring)
        self._answers.fill(inquiry.questions, answers, columns.features)
        listed = self._lists.look(batch, rows, self._ring)
        ruled = self._scorer.rule(batch, rows, columns.stack(self._scorer.rules.inputs), listed)
        teaching = self._scorer.teaching(ruled, (inquiry.late == 0).astype(np.uint8))
        scored = self._scorer.score(ruled, self._model_scores(inquiry, columns, teaching))
        evidence = scored.evidence
        self.turn = inquiry.turn + 1
        return Verdicts(
            turn=inquiry.turn,
            batch=batch,
            rows=rows,
            late=inquiry.late,
            user_keys=inquiry.user_keys,
            device_keys=inquiry.device_keys,
            user=self._pseudonyms.columns("user", inquiry.user_keys, batch, "user_id", rows),
            device=self._pseudonyms.columns("device", inquiry.device_keys, batch, "device_id", rows),
            ip=self._pseudonyms.columns("ip", self._ip_keys(inquiry), batch, "ip", rows),
            score=scored.score,
            level=scored.level,
            features=columns.features,
            models=scored.strengths,
            reason_offsets=evidence.reason_offsets,
            reason_codes=evidence.reason_codes,
            evidence_offsets=evidence.json_offsets,
            evidence_bytes=evidence.json_bytes,
            feature_names=self.config.feature_names,
            model_names=tuple(self.config.models),
            reason_names=self._scorer.reason_names,
            config_hash=self.config_hash,
            outcomes=_outcomes(inquiry),
        )

    def _score(self, name: str, columns: Columns, teaching: NDArray[np.uint8]) -> ModelScores:
        x = columns.named(self._models[name].features)
        raw, strength = self._forests[name].score_and_learn(x, teaching)
        return ModelScores(raw, strength, x)

    def _model_scores(
        self, inquiry: Inquiry, columns: Columns, teaching: NDArray[np.uint8]
    ) -> list[ModelScores]:
        spoken = self._ask_supervised(inquiry, columns)
        return [
            self._score(name, columns, teaching) if name in self._forests else spoken[name]
            for name in self.config.models
        ]

    def _ask_supervised(self, inquiry: Inquiry, columns: Columns) -> dict[str, ModelScores]:
        if not self.supervised.names:
            return {}
        batch, rows = inquiry.batch, inquiry.rows
        spoken = self.supervised.judge(
            JudgedRows(
                event=entity_keys(batch, "event_id", self._ring)[rows],
                user=inquiry.user_keys,
                ts_ms=batch.integers[0][rows],
                late=inquiry.late,
                x=np.ascontiguousarray(columns.named(self.supervised.names).T),
            )
        )
        return {name: self._scores_of(name, said, columns) for name, said in spoken.items()}

    def _scores_of(self, name: str, said: Spoken, columns: Columns) -> ModelScores:
        x = columns.named(self.config.models[name].features)
        if said.contributions is not None:
            x = np.concatenate([x, said.contributions])
        return ModelScores(said.strength, said.strength, x)

    def _ip_keys(self, inquiry: Inquiry) -> NDArray[np.uint64]:
        if "ip" in self.plan.kinds:
            keys: NDArray[np.uint64] = inquiry.keys[self.plan.kinds.index("ip")]
        else:
            keys = entity_keys(inquiry.batch, "ip", self._ring)[inquiry.rows]
        return keys

    # -- labels --------------------------------------------------------------------------------------------------

    def take_labels(self, labels: Labels) -> None:
        """Take labels in, in the order of their log; they act on rows to come, each from its own time on."""
        if self.supervised.names:
            self.supervised.take_labels(labels, self.watermark_ms)

    def turn_of_labels(self, batch: EventBatch, labels: Labels) -> Verdicts:
        """Take labels in as a turn of its own, which has no rows; ``batch`` holds the broken ones among them."""
        self.take_labels(labels)
        self.turn += 1
        none, empty = np.empty(0, np.uint64), np.empty((0, 16), np.uint8)
        return Verdicts(
            turn=self.turn - 1,
            batch=batch,
            rows=np.empty(0, np.int64),
            late=np.empty(0, np.uint8),
            user_keys=none,
            device_keys=none,
            user=empty,
            device=empty,
            ip=empty,
            score=np.empty(0),
            level=np.empty(0, np.uint8),
            features=np.empty((len(self.config.features), 0)),
            models=np.empty((len(self.config.models), 0)),
            reason_offsets=np.zeros(1, np.int32),
            reason_codes=np.empty(0, np.int32),
            evidence_offsets=np.zeros(1, np.int32),
            evidence_bytes=np.empty(0, np.uint8),
            feature_names=self.config.feature_names,
            model_names=tuple(self.config.models),
            reason_names=self._scorer.reason_names,
            config_hash=self.config_hash,
            outcomes=Outcomes(0, 0, 0, len(batch.rejections)),
        )

    # -- state ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Copies of everything that the next turn depends on, as flat arrays."""
        state: State = {"turn": np.array([self.turn], np.int64)}
        state |= {f"dedupe/{key}": value for key, value in self._dedupe.snapshot().items()}
        for name, forest in self._forests.items():
            part = f"model/{name}/{_definition(self._models[name])}"
            state |= {f"{part}/{key}": value for key, value in forest.snapshot().items()}
        if self.supervised.names:
            state |= {f"supervised/{key}": value for key, value in self.supervised.snapshot().items()}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a snapshot, also of another config: a model whose definition is unchanged keeps what it learned."""
        self.turn = int(state["turn"][0])
        self._dedupe.restore(_part(state, "dedupe"))
        for name, forest in self._forests.items():
            if kept := _part(state, f"model/{name}/{_definition(self._models[name])}"):
                forest.restore(kept)
        if self.supervised.names and (kept := _part(state, "supervised")):
            self.supervised.restore(kept)


def _forest(model: HalfSpaceTrees) -> HalfSpaceForest:
    return HalfSpaceForest(features=model.features, trees=model.trees, height=model.height, seed=model.seed)


def _definition(model: HalfSpaceTrees) -> str:
    """What a model has learned depends on these alone; its weight may change."""
    return f"{model.trees}x{model.height}@{model.seed}:{','.join(model.features)}"


def _outcomes(inquiry: Inquiry) -> Outcomes:
    late = int(np.count_nonzero(inquiry.late))
    return Outcomes(
        verdicts=len(inquiry.rows) - late,
        late=late,
        duplicates=inquiry.duplicates,
        rejected=int(np.count_nonzero(inquiry.batch.rejected)),
    )


def _stack(columns: list[NDArray[np.uint64]], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    if not columns:
        return np.empty((0, len(rows)), np.uint64)
    return np.stack([column[rows] for column in columns])


def _part(state: Mapping[str, Any], part: str) -> dict[str, Any]:
    prefix = f"{part}/"
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

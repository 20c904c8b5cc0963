"""Supervised models of one judge partition: what they say of each row, and the lessons that labels make of judged rows.

A label may come before its event is judged or long after. Either way it waits for its time, then it is a *lesson*: the
features as they were when judged, and the label. With one judge partition the lesson is learned there and then, before
the row whose time has come, in mid-batch too. With more, the order of learning is that of the lessons' log, which
all judges read, so :attr:`Supervised.lessons` go there and come back by :meth:`Supervised.learn`.

A label for an event that nobody judged in time, or that was late, teaches nothing; neither does one for a user alone,
nor one dated before its event, whichever of the two comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.due_labels import DueLabels
from detectors.judged_features import NOT_KEPT, JudgedFeatures, Segment, fitted
from detectors.river_model import SupervisedModel
from schemas.config import Config, Feature, RiverModel
from schemas.labels import Labels, labels_of

MOST_WAITING = 1 << 20
"""Labels that wait for an event that is not judged yet, some 250 bytes each; of more the oldest are dropped."""
_FEW_WAITING = 1 << 14
"""So many are not looked through for those that wait in vain."""
MOST_DUE = 1 << 22
"""Labels whose event is known and whose time has not come; of more the newcomers are dropped."""
REMEMBERED = 1 << 16
"""Labels whose repeats are recognised; one that is sent again much later teaches again."""


class JudgedRows(NamedTuple):
    """Rows that are judged now; ``event``, ``user``, ``ts_ms``, ``late`` of each, and float64[n, inputs]."""

    event: NDArray[np.uint64]
    user: NDArray[np.uint64]
    ts_ms: NDArray[np.int64]
    late: NDArray[np.uint8]
    x: NDArray[np.float64]


class Spoken(NamedTuple):
    """What a model says of n rows: float64[n], and of a linear one float64[inputs of the model, n], else None."""

    strength: NDArray[np.float64]
    contributions: NDArray[np.float64] | None


def supervised_models(config: Config) -> dict[str, RiverModel]:
    """The config's models that labels teach."""
    return {name: model for name, model in config.models.items() if isinstance(model, RiverModel)}


def linear_models(config: Config) -> set[str]:
    """Names of those among them that say what each input adds."""
    return {name for name, model in supervised_models(config).items() if SupervisedModel(model).is_linear}


def input_names(config: Config) -> tuple[str, ...]:
    """Features and fields that supervised models read, each once."""
    return tuple(
        dict.fromkeys(name for model in supervised_models(config).values() for name in model.features)
    )


def inputs_of(config: Config) -> tuple[str, ...]:
    """What these are by definition: what was judged under one config is of use under another by these alone."""
    features = config.features
    return tuple(features.get(name, Feature(field=name)).definition() for name in input_names(config))


class Supervised:
    """All supervised models of a config, and the labels on their way to them.

    Parameters
    ----------
    config
        Names the models.
    learns_here
        Whether this is the only judge, so that lessons are learned where they arise.
    horizon_ms
        How long judged features are kept.
    """

    def __init__(self, config: Config, *, learns_here: bool, horizon_ms: int) -> None:
        self.inputs = inputs_of(config)
        self.names = input_names(config)
        """Features and fields that are read; empty where the config has no such model."""
        self._learns_here = learns_here
        self._blocks = supervised_models(config)
        self._columns = {
            name: [self.names.index(feature) for feature in block.features]
            for name, block in self._blocks.items()
        }
        self.forget_lessons()
        self._linear = linear_models(config)
        self.memory = JudgedFeatures(self.inputs, horizon_ms=horizon_ms)
        self._waiting: dict[int, list[tuple[int, int, int]]] = {}
        self._waiting_count, self._look_through = 0, _FEW_WAITING
        self.dropped = 0
        """Labels that went for want of room, not for being of no use, since construction."""
        self._due = DueLabels(inputs=len(self.inputs))
        self._taken: dict[int, None] = {}
        self._judged = 0
        self.lessons: list[tuple[int, NDArray[np.float64]]] = []
        """Label and inputs of the lessons that fell due in the last turn, in order."""

    def forget_lessons(self) -> None:
        """Begin the models anew, before all lessons are learned once more."""
        self._models = {name: SupervisedModel(block) for name, block in self._blocks.items()}

    # -- labels --------------------------------------------------------------------------------------------------

    def take_labels(self, labels: Labels, watermark_ms: int) -> None:
        """Take labels in, in their order; those of events below the watermark that are not known are of no use."""
        found = self.memory.find(labels)
        for i, (event, user, ts_ms, label) in enumerate(
            zip(*(column.tolist() for column in labels), strict=True)
        ):
            if not event:
                continue
            if (known := found[i]) is not None:
                if ts_ms >= known.ts_ms:
                    self._fix(event, ts_ms, label, order=known.order, x=known.x)
            elif ts_ms >= watermark_ms:
                self._waiting.setdefault(event, []).append((user, ts_ms, label))
                self._waiting_count += 1
        if self._waiting_count > min(self._look_through, MOST_WAITING):
            self._drop_waiting(watermark_ms)

    def _fix(self, event: int, ts_ms: int, label: int, *, order: int, x: NDArray[np.float64]) -> None:
        """The event of a label is known: the label waits for its time alone, unless it is a repeat."""
        repeat = (event << 1) | label
        if repeat in self._taken:
            return
        if len(self._due) >= MOST_DUE:
            self.dropped += 1
            return
        self._taken[repeat] = None
        if len(self._taken) > REMEMBERED:
            del self._taken[next(iter(self._taken))]
        self._due.push(due_ms=ts_ms, order=order, label=label, x=x)

    def _drop_waiting(self, watermark_ms: int) -> None:
        """Drop labels whose events would be late; of more than the bound the oldest, down to three quarters of it."""
        kept = [
            (event, *label)
            for event, labels in self._waiting.items()
            for label in labels
            if label[1] >= watermark_ms
        ]
        if len(kept) > MOST_WAITING:
            kept.sort(key=lambda row: row[2])
            over = len(kept) - MOST_WAITING * 3 // 4
            kept, self.dropped = kept[over:], self.dropped + over
        self._set_waiting(kept)
        self._look_through = max(_FEW_WAITING, 2 * len(kept))

    def _set_waiting(self, rows: list[tuple[int, int, int, int]]) -> None:
        self._waiting, self._waiting_count = {}, len(rows)
        for event, user, ts_ms, label in rows:
            self._waiting.setdefault(event, []).append((user, ts_ms, label))

    # -- rows ----------------------------------------------------------------------------------------------------

    def judge(self, rows: JudgedRows) -> dict[str, Spoken]:
        """Say what each model makes of each row, by all lessons before it; remember the rows for their labels."""
        count = len(rows.ts_ms)
        values = np.where(np.isnan(rows.x), 0.0, rows.x)
        spoken = {name: np.zeros(count) for name in self._models}
        added = {name: np.zeros((len(self._columns[name]), count)) for name in self._linear}
        times, events, users = rows.ts_ms.tolist(), rows.event.tolist(), rows.user.tolist()
        picked = {name: values[:, columns].tolist() for name, columns in self._columns.items()}
        late, order = rows.late.tolist(), self._judged
        self.lessons = []
        for row in range(count):
            if self._due.next_ms <= times[row]:
                self._make_lessons(times[row])
            for name, model in self._models.items():
                if name in added:
                    spoken[name][row], added[name][:, row] = model.explained(picked[name][row])
                else:
                    spoken[name][row] = model.strength(picked[name][row])
            if not late[row]:
                if events[row] in self._waiting:
                    self._match(events[row], users[row], times[row], order=order, x=rows.x[row])
                order += 1
        self._remember(rows)
        return {name: Spoken(strength, added.get(name)) for name, strength in spoken.items()}

    def _make_lessons(self, now_ms: int) -> None:
        while self._due.next_ms <= now_ms:
            label, x = self._due.pop()
            self.lessons.append((label, x))
            if self._learns_here:
                self._learn(x, label)

    def _match(self, event: int, user: int, time_ms: int, *, order: int, x: NDArray[np.float64]) -> None:
        """An event is judged that labels waited for."""
        mine, others = list[tuple[int, int, int]](), list[tuple[int, int, int]]()
        for waiting in self._waiting.pop(event):
            (mine if waiting[0] in (0, user) and waiting[1] >= time_ms else others).append(waiting)
        for _, ts_ms, label in mine:
            self._fix(event, ts_ms, label, order=order, x=x)
        if others:
            self._waiting[event] = others
        self._waiting_count -= len(mine)

    def _remember(self, rows: JudgedRows) -> None:
        kept = np.flatnonzero(rows.late == 0)
        order = np.arange(self._judged, self._judged + len(kept))
        self._judged += len(kept)
        self.memory.add(
            Segment(self.inputs, rows.event[kept], rows.user[kept], rows.ts_ms[kept], order, rows.x[kept])
        )

    # -- lessons -------------------------------------------------------------------------------------------------

    def learn(self, labels: NDArray[np.uint8], x: NDArray[np.float64], inputs: tuple[str, ...]) -> None:
        """Learn lessons of the log, of whatever config.

        Parameters
        ----------
        labels, x
            uint8[n], float64[n, inputs].
        inputs
            What the columns of ``x`` are by definition.
        """
        for label, row in zip(labels.tolist(), fitted(x, inputs, self.inputs), strict=True):
            self._learn(row, label)

    def lessons_learned(self, name: str) -> int:
        """How many lessons a model has learned."""
        return self._models[name].lessons

    def _learn(self, x: NDArray[np.float64], label: int) -> None:
        """Teach every model that finds all its inputs."""
        values = np.where(np.isnan(x), 0.0, x).tolist()
        for name, model in self._models.items():
            wanted = [values[column] for column in self._columns[name]]
            if NOT_KEPT not in wanted:
                model.learn(wanted, label)

    # -- state ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, NDArray[Any] | bytes]:
        """Copies of everything but the models, which are what the lessons made of them, and sealed segments."""
        waiting = [(event, *label) for event, labels in self._waiting.items() for label in labels]
        columns = labels_of(waiting)
        return {
            "inputs": orjson.dumps(self.inputs),
            "judged": np.array([self._judged], np.int64),
            "taken": np.array([(repeat >> 1, repeat & 1) for repeat in self._taken], np.uint64).reshape(
                -1, 2
            ),
            **{f"waiting/{name}": column for name, column in columns._asdict().items()},
            **{f"due/{name}": column for name, column in self._due.snapshot().items()},
            **{f"tail/{name}": column for name, column in self.memory.snapshot().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a snapshot, also of a config with other models; only right after construction."""
        inputs = tuple(orjson.loads(bytes(state["inputs"])))
        self._judged = int(state["judged"][0])
        self._taken = {(event << 1) | label: None for event, label in state["taken"].tolist()}
        columns = Labels(*(state[f"waiting/{name}"] for name in Labels._fields))
        self._set_waiting(list(zip(*(column.tolist() for column in columns), strict=True)))
        self.memory.restore(_part(state, "tail"), inputs)
        due = _part(state, "due")
        self._due.restore({**due, "x": fitted(due["x"], inputs, self.inputs)})


def _part(state: Mapping[str, Any], part: str) -> dict[str, Any]:
    prefix = f"{part}/"
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

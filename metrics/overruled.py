"""Verdicts of at least ``review`` that a later label takes back: of each user the lowest time still held against him.

A verdict is overruled if the latest label of its event, or of its user alone, says 0 and has a ts not before the
verdict's. That is a function of verdicts and labels, in whatever order they come: a label of an event that is not
judged yet waits for it, as long as the event would not be late.

33 bytes a verdict; of more than :data:`MOST_FLAGS` the older ones are final: no label takes them back any more, and of
each user the lowest time stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.members import BEFORE_ALL_MS, NEVER_MS
from schemas.labels import Labels

MOST_FLAGS = 1 << 20
NO_LABEL = -1

FLAG = np.dtype([("event", "u8"), ("user", "u8"), ("ts_ms", "i8"), ("label_ms", "i8"), ("label", "i1")])
"""A verdict of at least ``review``, and the latest label of its event (NO_LABEL: none yet)."""
KNOWN = np.dtype([("key", "u8"), ("user", "u8"), ("ts_ms", "i8"), ("label", "i1")])
"""The latest label of an event that has no such verdict, or of a user (``key``)."""
FINAL = np.dtype([("user", "u8"), ("ts_ms", "i8")])

_Known = dict[int, tuple[int, int, int]]
"""By event or user: (ts, label, user of the event or 0)."""


class Overruled:
    """Flagged verdicts of one partition and the labels that may take them back.

    Parameters
    ----------
    most_flags
        Even; see :data:`MOST_FLAGS`.
    """

    def __init__(self, most_flags: int = MOST_FLAGS) -> None:
        self._half = most_flags // 2
        self._flags, self._used, self._first = np.zeros(16, FLAG), 0, 0
        self._final = np.zeros(0, FINAL)
        self._waiting: _Known = {}
        self._users: _Known = {}

    def judged(
        self,
        event: NDArray[np.uint64],
        user: NDArray[np.uint64],
        ts_ms: NDArray[np.int64],
        bad: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Note judged rows; return which of the bad ones are held against their users, bool[m].

        Parameters
        ----------
        event, user, ts_ms
            Keys and event time of rows, in judged order.
        bad
            Whether the verdict is at least ``review``.
        """
        known = self._labels_of(event) if self._waiting else {}
        rows = np.flatnonzero(bad)
        flags = np.zeros(len(rows), FLAG)
        flags["event"], flags["user"], flags["ts_ms"] = event[rows], user[rows], ts_ms[rows]
        flags["label_ms"], flags["label"] = BEFORE_ALL_MS, NO_LABEL
        for place, row in enumerate(rows.tolist() if known else ()):
            label_ms, label, whose = known.get(int(event[row]), (0, NO_LABEL, 0))
            if label != NO_LABEL and whose in (0, int(user[row])):
                flags[place]["label_ms"], flags[place]["label"] = label_ms, label
        held = bad.copy()
        held[rows] = self._held(flags)
        self._append(flags)
        return held

    def take(self, labels: Labels, watermark_ms: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Take labels in; return the users for whom they may change something, and what is held against each now.

        Parameters
        ----------
        labels
            In any order.
        watermark_ms
            Events below it are late: labels that still wait for them are dropped.

        Returns
        -------
        uint64[k], int64[k]: keys of users, and the lowest ts of a verdict that is held, NEVER_MS where there is none.
        """
        named = labels.event != 0
        users = [self._take_of_events(Labels(*(column[named] for column in labels)), watermark_ms)]
        for user, ts_ms, label in zip(
            labels.user[~named].tolist(),
            labels.ts_ms[~named].tolist(),
            labels.label[~named].tolist(),
            strict=True,
        ):
            self._users[user] = max(self._users.get(user, (BEFORE_ALL_MS, NO_LABEL, 0)), (ts_ms, label, 0))
        if not named.all():
            flagged = np.concatenate([self._flags["user"][: self._used], self._final["user"]])
            users.append(np.intersect1d(labels.user[~named], flagged))
        affected = np.unique(np.concatenate(users))
        return affected, self._lowest(affected)

    def _take_of_events(self, labels: Labels, watermark_ms: int) -> NDArray[np.uint64]:
        """Users whose flagged verdicts are labelled; labels of no such verdict wait."""
        flags, hit = self._flags[: self._used], np.zeros(len(labels.event), np.bool_)
        order = np.argsort(labels.event, kind="stable")
        sorted_events = labels.event[order]
        first = np.searchsorted(sorted_events, flags["event"], "left")
        last = np.searchsorted(sorted_events, flags["event"], "right")
        found = np.flatnonzero(last > first)
        for row in found.tolist():
            for place in order[first[row] : last[row]].tolist():
                hit[place] = True
                if labels.user[place] in (0, flags[row]["user"]):
                    latest = (int(labels.ts_ms[place]), int(labels.label[place]))
                    if latest > (int(flags[row]["label_ms"]), int(flags[row]["label"])):
                        flags[row]["label_ms"], flags[row]["label"] = latest
        for place in np.flatnonzero(~hit & (labels.ts_ms >= watermark_ms)).tolist():
            event = int(labels.event[place])
            label = (int(labels.ts_ms[place]), int(labels.label[place]), int(labels.user[place]))
            self._waiting[event] = max(self._waiting.get(event, label), label)
        if len(self._waiting) > MOST_FLAGS:
            kept = [(key, label) for key, label in self._waiting.items() if label[0] >= watermark_ms]
            self._waiting = dict(kept[-MOST_FLAGS // 2 :])
        return np.unique(flags["user"][found])

    def _labels_of(self, event: NDArray[np.uint64]) -> _Known:
        """Labels that waited for these events, which wait no longer."""
        return {key: self._waiting.pop(key) for key in set(event.tolist()) if key in self._waiting}

    def _held(self, flags: NDArray[np.void]) -> NDArray[np.bool_]:
        label_ms, label = flags["label_ms"].copy(), flags["label"].copy()
        for row, user in enumerate(flags["user"].tolist() if self._users else ()):
            of_user = self._users.get(user)
            if of_user is not None and of_user[:2] > (int(label_ms[row]), int(label[row])):
                label_ms[row], label[row] = of_user[:2]
        held: NDArray[np.bool_] = ~((label == 0) & (label_ms >= flags["ts_ms"]))
        return held

    def _append(self, flags: NDArray[np.void]) -> None:
        if self._used + len(flags) > len(self._flags):
            grown = np.zeros(2 * (self._used + len(flags)), FLAG)
            grown[: self._used] = self._flags[: self._used]
            self._flags = grown
        self._flags[self._used : self._used + len(flags)] = flags
        self._used += len(flags)
        # By the count of all flags alone, so that batches do not decide what is final.
        over = ((self._first + self._used) // self._half - 1) * self._half - self._first
        if over > 0:
            self._make_final(over)

    def _make_final(self, count: int) -> None:
        flags = self._flags[:count]
        held = flags[self._held(flags)]
        every = np.concatenate([self._final, np.rec.fromarrays([held["user"], held["ts_ms"]], FINAL)])
        every = every[np.lexsort((every["ts_ms"], every["user"]))]
        self._final = every[np.unique(every["user"], return_index=True)[1]]
        self._flags[: self._used - count] = self._flags[count : self._used].copy()
        self._used, self._first = self._used - count, self._first + count

    def _lowest(self, users: NDArray[np.uint64]) -> NDArray[np.int64]:
        lowest = np.full(len(users), NEVER_MS, np.int64)
        flags = self._flags[: self._used]
        flags = flags[np.isin(flags["user"], users)]
        held = flags[self._held(flags)]
        np.minimum.at(lowest, np.searchsorted(users, held["user"]), held["ts_ms"])
        final = self._final[np.isin(self._final["user"], users)]
        np.minimum.at(lowest, np.searchsorted(users, final["user"]), final["ts_ms"])
        return lowest

    def snapshot(self) -> dict[str, NDArray[np.void] | NDArray[np.int64]]:
        """Copies of all state, as flat arrays."""
        return {
            "flags": self._flags[: self._used].copy(),
            "first": np.array([self._first], np.int64),
            "final": self._final.copy(),
            "waiting": _rows(self._waiting),
            "users": _rows(self._users),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a snapshot."""
        flags = np.frombuffer(bytes(state["flags"]), FLAG).copy()
        self._flags, self._used, self._first = flags, len(flags), int(state["first"][0])
        self._final = np.frombuffer(bytes(state["final"]), FINAL).copy()
        self._waiting, self._users = _known(state["waiting"]), _known(state["users"])


def _rows(known: _Known) -> NDArray[np.void]:
    return np.array([(key, user, ts_ms, label) for key, (ts_ms, label, user) in known.items()], KNOWN)


def _known(rows: Any) -> _Known:  # noqa: ANN401 - bytes or an array, as a checkpoint gives it
    found = np.frombuffer(bytes(rows), KNOWN)
    return {key: (ts_ms, label, user) for key, user, ts_ms, label in found.tolist()}

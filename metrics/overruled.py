"""Verdicts of at least ``review`` that a later label takes back: of each user the lowest time still held against him.

A verdict is overruled if the latest label of its event, or of its user alone, says 0 and has a ts not before the
verdict's. That is a function of verdicts and labels, in whatever order they come: a label of an event that is not
judged yet waits for it, as long as the event would not be late.

33 bytes a verdict; of more than :data:`MOST_FLAGS` the older ones are final: no label takes them back any more, and of
each user the lowest time stays. Some 250 bytes a label that waits, and a user who is labelled himself; those that can
change nothing any more go, and of more than :data:`MOST_LABELS` the oldest.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from metrics.members import BEFORE_ALL_MS, NEVER_MS
from schemas.labels import Labels

MOST_FLAGS = 1 << 20
MOST_LABELS = 1 << 20
"""That wait for their events; and as many of users alone."""
_FEW_LABELS = 1 << 14
"""So many are not looked through for what may go."""
NO_LABEL = -1

FLAG = np.dtype([("event", "u8"), ("user", "u8"), ("ts_ms", "i8"), ("label_ms", "i8"), ("label", "i1")])
"""A verdict of at least ``review``, and the latest label of its event (NO_LABEL: none yet)."""
KNOWN = np.dtype([("key", "u8"), ("user", "u8"), ("ts_ms", "i8"), ("label", "i1")])
"""The latest label of an event that has no such verdict (``user``: whose event it is, 0 if not said), or of a user."""
FINAL = np.dtype([("user", "u8"), ("ts_ms", "i8")])

_Latest = tuple[int, int]
"""Time and value of a label."""
_Waiting = dict[tuple[int, int], _Latest]
"""By event and its user, 0 where the label names none."""
_Users = dict[int, _Latest]
_Key = TypeVar("_Key", bound=Hashable)
_NONE: _Latest = (int(BEFORE_ALL_MS), NO_LABEL)


class Overruled:
    """Flagged verdicts of one partition and the labels that may take them back.

    Parameters
    ----------
    most_flags
        Even; see :data:`MOST_FLAGS`.
    most_labels
        See :data:`MOST_LABELS`.

    Attributes
    ----------
    dropped
        Labels that went for want of room, not for being of no use, since construction.
    """

    def __init__(self, most_flags: int = MOST_FLAGS, *, most_labels: int = MOST_LABELS) -> None:
        self._half, self._most_labels = most_flags // 2, most_labels
        self.dropped = 0
        self._flags, self._used, self._first = np.zeros(16, FLAG), 0, 0
        self._final = np.zeros(0, FINAL)
        self._waiting: _Waiting = {}
        self._users: _Users = {}
        self._look_through = _FEW_LABELS

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
        known = self._labels_of(event, user) if self._waiting else {}
        rows = np.flatnonzero(bad)
        flags = np.zeros(len(rows), FLAG)
        flags["event"], flags["user"], flags["ts_ms"] = event[rows], user[rows], ts_ms[rows]
        flags["label_ms"], flags["label"] = BEFORE_ALL_MS, NO_LABEL
        for place, row in enumerate(rows.tolist() if known else ()):
            its_event, its_user = int(event[row]), int(user[row])
            latest = max(known.get((its_event, whose), _NONE) for whose in (0, its_user))
            flags[place]["label_ms"], flags[place]["label"] = latest
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
            self._users[user] = max(self._users.get(user, _NONE), (ts_ms, label))
        if not named.all():
            flagged = np.concatenate([self._flags["user"][: self._used], self._final["user"]])
            users.append(np.intersect1d(labels.user[~named], flagged))
        affected = np.unique(np.concatenate(users))
        if max(len(self._waiting), len(self._users)) > min(self._look_through, self._most_labels):
            self._forget(watermark_ms)
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
                if labels.user[place] in (0, flags[row]["user"]):
                    hit[place] = True
                    latest = (int(labels.ts_ms[place]), int(labels.label[place]))
                    if latest > (int(flags[row]["label_ms"]), int(flags[row]["label"])):
                        flags[row]["label_ms"], flags[row]["label"] = latest
        for place in np.flatnonzero(~hit & (labels.ts_ms >= watermark_ms)).tolist():
            about = int(labels.event[place]), int(labels.user[place])
            label = int(labels.ts_ms[place]), int(labels.label[place])
            self._waiting[about] = max(self._waiting.get(about, label), label)
        return np.unique(flags["user"][found])

    def _labels_of(self, event: NDArray[np.uint64], user: NDArray[np.uint64]) -> _Waiting:
        """Labels that waited for these events, which wait no longer."""
        events, users = event.tolist(), user.tolist()
        judged = {*zip(events, users, strict=True), *((one, 0) for one in events)}
        return {about: self._waiting.pop(about) for about in judged if about in self._waiting}

    def _forget(self, watermark_ms: int) -> None:
        """Drop labels that change nothing any more; then, beyond the bound, the oldest.

        A verdict to come is not below the watermark, so an older label does not take it back; a user's may matter
        for the verdicts that he has.
        """
        flagged = set(self._flags["user"][: self._used].tolist())
        waiting = {about: one for about, one in self._waiting.items() if one[0] >= watermark_ms}
        users = {user: one for user, one in self._users.items() if one[0] >= watermark_ms or user in flagged}
        self._waiting, self._users = self._bounded(waiting), self._bounded(users)
        self._look_through = max(_FEW_LABELS, 2 * max(len(self._waiting), len(self._users)))

    def _bounded(self, labels: dict[_Key, _Latest]) -> dict[_Key, _Latest]:
        """Down to three quarters of the bound, so that it does not cost at every label."""
        if len(labels) <= self._most_labels:
            return labels
        over = len(labels) - self._most_labels * 3 // 4
        self.dropped += over
        return dict(sorted(labels.items(), key=lambda item: item[1])[over:])

    def _held(self, flags: NDArray[np.void]) -> NDArray[np.bool_]:
        label_ms, label = flags["label_ms"].copy(), flags["label"].copy()
        for row, user in enumerate(flags["user"].tolist() if self._users else ()):
            of_user = self._users.get(user)
            if of_user is not None and of_user > (int(label_ms[row]), int(label[row])):
                label_ms[row], label[row] = of_user
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
            "waiting": np.array([(*about, *label) for about, label in self._waiting.items()], KNOWN),
            "users": np.array([(user, user, *label) for user, label in self._users.items()], KNOWN),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a snapshot."""
        flags = np.frombuffer(bytes(state["flags"]), FLAG).copy()
        self._flags, self._used, self._first = flags, len(flags), int(state["first"][0])
        self._final = np.frombuffer(bytes(state["final"]), FINAL).copy()
        waiting, users = (np.frombuffer(bytes(state[name]), KNOWN).tolist() for name in ("waiting", "users"))
        self._waiting = {(event, user): (ts_ms, label) for event, user, ts_ms, label in waiting}
        self._users = {user: (ts_ms, label) for user, _, ts_ms, label in users}

"""Lists: what people know beforehand of values that events carry (CONTRACT 4).

A list is of one kind: ``white`` lets an event pass whatever else says, ``black`` blocks it unless a white list has it,
too, ``grey`` weighs like a rule. Of the entries of one list that fit an event the narrowest counts: the longest prefix
of a phone, the smallest network of an address. An entry with ``expires`` holds for events before that time, by their
own clock; when it has ended the next wider one counts.

A list fails where what it names is cheap to change: a device id is typed anew, an address costs cents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.entities import entity_keys
from detectors.key_index import NOTHING
from detectors.list_finders import MATCHES, KeysOf, how_values_match, make_finder
from detectors.list_values import value_check
from schemas.config import Config
from schemas.errors import ConfigProblem, StateError
from schemas.events import EventBatch
from schemas.keys import KeyRing
from schemas.list_rows import REASON, SOURCE, VALUE, ListRows, read_list


class ListHits(NamedTuple):
    """What the lists say of n rows."""

    notes: NDArray[np.int32]
    """int32[n, lists]: the note of the entry that fits, NOTHING where none does."""
    white: NDArray[np.bool_]
    """bool[n]: whether a white list has it."""

    @property
    def fired(self) -> NDArray[np.uint8]:
        """uint8[n, lists]: 1 where the list has the row."""
        fired: NDArray[np.uint8] = (self.notes != NOTHING).astype(np.uint8)
        return fired


class Notes(NamedTuple):
    """Texts of entries as evidence shows them: note i is ``text[first[i]:first[i + 1]]``.

    A note is how the entry fits, its reason and its source: ``"cidr","why":"rented servers","source":"ops"}``.
    """

    text: NDArray[np.uint8]
    first: NDArray[np.int64]


def check_list(raw: bytes, *, entity: str, file: str) -> list[ConfigProblem]:
    """All that is wrong with a list's file, row by row; some 0.3 us a row."""
    check, expected = value_check(entity)
    return read_list(raw, file=file, check_values=check, expected_value=expected)[1]


def values_in(raw: bytes, *, entity: str) -> list[str]:
    """All values of a list's file that is good, ended ones too; some 2 us a value."""
    check, expected = value_check(entity)
    rows, _ = read_list(raw, file=f"a list of {entity}", check_values=check, expected_value=expected)
    return [rows.text(VALUE, row) for row in range(len(rows))]


class ValueList:
    """The entries of one list, ready to be found; it knows their keyed hashes and networks, and no text of a value.

    Parameters
    ----------
    raw
        The file, as :func:`check_list` found it good.
    entity
        What its values name.
    ring
        Of the installation.

    Attributes
    ----------
    notes
        What the entries say.

    Raises
    ------
    StateError
        The file is not good.

    Notes
    -----
    About 1 s a million entries. 30 bytes an entry (networks 52), and the texts of its different reasons and sources.
    """

    def __init__(self, raw: bytes, entity: str, ring: KeyRing) -> None:
        check, expected = value_check(entity)
        rows, problems = read_list(
            raw, file=f"a list of {entity}", check_values=check, expected_value=expected
        )
        if problems:
            raise StateError(f"a list that was good is not any more: {problems[0]}")
        self.notes, note_of = _notes(rows, how_values_match(rows, entity))
        self._finder = make_finder(rows, entity, note_of, ring)

    def find(self, batch: EventBatch, rows: NDArray[np.int64], keys: KeysOf) -> NDArray[np.int32]:
        """Note of the entry that fits each row: int32[j], NOTHING where none does.

        Parameters
        ----------
        batch, rows
            The events, and int64[j]: which of them.
        keys
            Gives the keyed hashes of an entity for these rows.
        """
        return self._finder.find(batch, rows, keys)


class ListBook:
    """All lists of one config, as every judge of a process shares them.

    Parameters
    ----------
    lists
        By name, in the config's order.
    config
        Says of which kind they are, and what a grey one weighs.
    """

    def __init__(self, lists: Mapping[str, ValueList], config: Config) -> None:
        sources = [config.lists[name] for name in lists]
        self.names = tuple(lists)
        self.kinds = tuple(source.kind for source in sources)
        self.entities = tuple(source.entity for source in sources)
        self._lists: Sequence[ValueList] = tuple(lists.values())
        self.weights = np.array([_weight(source.kind, source.weight) for source in sources], np.float64)
        self._is_white = np.array([kind == "white" for kind in self.kinds], np.bool_)
        counts = [len(one.notes.first) - 1 for one in self._lists]
        self._base = np.cumsum([0, *counts])[:-1].astype(np.int32)
        self.notes = _joined([one.notes for one in self._lists])

    def notes_of(self, name: str) -> dict[bytes, int]:
        """The notes of a list by their texts, numbered as in :class:`ListHits`."""
        place = self.names.index(name)
        base, count = int(self._base[place]), len(self._lists[place].notes.first) - 1
        text, first = self.notes.text.tobytes(), self.notes.first.tolist()
        return {text[first[note] : first[note + 1]]: note for note in range(base, base + count)}

    def look(
        self,
        batch: EventBatch,
        rows: NDArray[np.int64],
        ring: KeyRing,
        *,
        known_keys: Mapping[str, NDArray[np.uint64]] | None = None,
        known_notes: Mapping[str, NDArray[np.int32]] | None = None,
    ) -> ListHits:
        """What each list says of the judged rows: up to 100 ns an event and list, nothing where there are no lists.

        Parameters
        ----------
        batch, rows
            The events, and int64[n]: which of them.
        ring
            Of the installation.
        known_keys
            Of rows that were judged before: uint64[n] keyed hashes of entities that the batch does not have.
        known_notes
            And int32[n] by the names of lists that are not looked into, as in :class:`ListHits`.
        """
        notes = np.full((len(rows), len(self._lists)), NOTHING, np.int32)
        known, given = dict(known_keys or {}), known_notes or {}

        def keys(entity: str) -> NDArray[np.uint64]:
            if entity not in known:
                known[entity] = entity_keys(batch, entity, ring)[rows]
            return known[entity]

        for place, (name, one) in enumerate(zip(self.names, self._lists, strict=True)):
            if name in given:
                notes[:, place] = given[name]
                continue
            found = one.find(batch, rows, keys)
            notes[:, place] = np.where(found == NOTHING, found, found + self._base[place])
        return ListHits(notes, (notes[:, self._is_white] != NOTHING).any(axis=1))


def _weight(kind: str, weight: float) -> float:
    """What an entry weighs in the score: a black one everything, a white one (whose rows score 0 anyway) nothing."""
    return {"white": 0.0, "black": 1.0}.get(kind, weight)


def note_text(match: object, why: object, source: object) -> bytes:
    """A note, closing the object of its reason."""
    said = (orjson.dumps(value) for value in (match, why, source))
    return b'%b,"why":%b,"source":%b}' % tuple(said)


def _notes(rows: ListRows, match: NDArray[np.int64]) -> tuple[Notes, NDArray[np.int32]]:
    """The different notes of a list, and int32[n]: the note of each row."""
    first, number = rows.distinct(REASON, SOURCE)
    pairs, pair_of = np.unique(number * len(MATCHES) + match, return_inverse=True)
    texts = []
    for pair in pairs.tolist():
        row = int(first[pair // len(MATCHES)])
        said = [rows.text(column, row) or None for column in (REASON, SOURCE)]
        texts.append(note_text(MATCHES[pair % len(MATCHES)], *said))
    joined = np.frombuffer(b"".join(texts), np.uint8).copy()
    return Notes(joined, np.cumsum([0, *map(len, texts)], dtype=np.int64)), pair_of.astype(np.int32)


def _joined(parts: Sequence[Notes]) -> Notes:
    if len(parts) == 1:
        return parts[0]
    texts = [part.text for part in parts]
    ends = np.cumsum([0, *map(len, texts)])
    firsts = [part.first[:-1] + end for part, end in zip(parts, ends, strict=False)]
    return Notes(
        np.concatenate([np.empty(0, np.uint8), *texts]),
        np.concatenate([np.empty(0, np.int64), *firsts, ends[-1:]]).astype(np.int64),
    )


NO_LISTS = ListBook({}, Config())
"""Of a config without lists."""

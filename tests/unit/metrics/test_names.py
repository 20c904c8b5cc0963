from __future__ import annotations

import numpy as np
import pytest

import metrics.names
from metrics.dimensions import Cells
from metrics.names import ABSENT, OTHER, OTHER_NAME, UNKNOWN, Names


def keys(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, np.uint64)


def test_values_are_numbered_in_order_of_appearance() -> None:
    names, asked = Names(), []

    def name_of(row: int) -> str:
        asked.append(row)
        return f"name {row}"

    assert names.number(keys(7, 0, 9, 7), name_of).tolist() == [2, ABSENT, 3, 2]
    assert names.number(keys(9, 11), name_of).tolist() == [3, 4]
    assert asked == [0, 2, 1]
    assert names.names == [None, OTHER_NAME, "name 0", "name 2", "name 1"]
    assert (names.known("name 2"), names.known("never")) == (3, UNKNOWN)


def test_one_text_under_two_hashes_is_one_value() -> None:
    names = Names()
    assert names.number(keys(7, 9), lambda _: "5").tolist() == [2, 2]


def test_names_beyond_the_limit_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.names, "MAX_NAMES", 4)
    names = Names()
    assert names.number(keys(7, 8, 9, 10, 7), str).tolist() == [2, 3, OTHER, OTHER, 2]


def test_long_names_reach_the_limit_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.names, "MAX_NAME_BYTES", 10)
    names = Names()
    assert names.number(keys(7, 8, 9), lambda _: "").tolist() == [2, 2, 2]
    assert names.number(keys(10, 11), lambda _: "ten  bytes").tolist() == [3, OTHER]


def test_a_snapshot_goes_on_numbering() -> None:
    names, again = Names(), Names()
    names.number(keys(7, 9, 8), lambda row: "same" if row else "first")
    again.restore(*names.snapshot())
    assert again.number(keys(8, 9, 7, 12), lambda _: "new").tolist() == [3, 3, 2, 4]


def test_cells_of_other_dimensions_are_unknown_in_new_ones() -> None:
    cells, again = Cells(("a", "b")), Cells(("b", "c"))
    rows = np.array([[2, 2, 3], [5, 5, 6], [7, 7, 8]], np.int32)
    assert cells.number(rows).tolist() == [0, 0, 1]
    again.restore(cells.snapshot(), ("a", "b"))
    assert again.table.values[:2].tolist() == [[2, 7, UNKNOWN], [3, 8, UNKNOWN]]
    fresh = np.array([[2, 2], [7, 7], [UNKNOWN, 4]], np.int32)
    assert again.number(fresh).tolist() == [0, 2]


def test_many_cells_keep_their_numbers() -> None:
    cells = Cells(("a",))
    rows = np.arange(2_000, dtype=np.int32).reshape(2, 1_000)
    assert cells.number(rows).tolist() == list(range(1_000))
    assert cells.number(rows[:, ::-1].copy()).tolist() == list(range(999, -1, -1))

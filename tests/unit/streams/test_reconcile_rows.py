"""The rows that reconcile counts: the account closes beside compaction and retention, and a loss is still found."""

from __future__ import annotations

from pathlib import Path

import pytest

from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore
from streams.reconcile import row_offsets
from tests.unit.sinks.test_compaction import Stop, compacted, expired, stopping_at, written


def expired_and_missing(root: Path) -> tuple[int, int]:
    """Over all sources: rows that retention removed, and rows that nobody knows of; none may be there twice."""
    store = LocalStore(root)
    accounts = read_accounts(store)
    gone = missing = 0
    for source in accounts.sources:
        for table, judged in (("verdicts", source.verdicts), ("late", source.late)):
            offsets, removed = row_offsets(store, table, source, source.ranges[-1][1], accounts.moving)
            assert len(set(offsets.tolist())) == len(offsets)
            gone, missing = gone + removed, missing + judged - len(offsets) - removed
    return gone, missing


@pytest.mark.parametrize("step", ["compact.published", "store.removing"])
def test_the_account_closes_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    written(tmp_path)
    with monkeypatch.context() as patch:
        stopping_at(patch, step, 2)
        with pytest.raises(Stop):
            compacted(tmp_path)
    assert expired_and_missing(tmp_path) == (0, 0)
    compacted(tmp_path)
    assert expired_and_missing(tmp_path) == (0, 0)
    with monkeypatch.context() as patch:
        stopping_at(patch, "store.removing", 1)
        with pytest.raises(Stop):
            expired(tmp_path)
    begun, missing = expired_and_missing(tmp_path)
    assert (begun > 0, missing) == (True, 0)
    expired(tmp_path)
    gone, missing = expired_and_missing(tmp_path)
    assert (gone >= begun, missing) == (True, 0)
    min(tmp_path.glob("verdicts/*/*.parquet")).unlink()
    assert expired_and_missing(tmp_path)[1] > 0

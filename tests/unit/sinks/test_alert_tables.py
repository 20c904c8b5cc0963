"""The tables of alerts and deliveries: each once, whoever writes it how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.alerts import Alert
from schemas.errors import StateError
from sinks.alert_tables import AlertTables, Delivery
from sinks.commit_log import read_accounts
from sinks.local_store import LocalStore
from tests.alert_receiver import made_alert
from tests.recounts import rows_of

ALERTS = [made_alert(i, state=state) for i in range(30) for state in ("open", "resolved")]


def tables_at(root: Path, key: str = "key") -> tuple[AlertTables, int]:
    tables = AlertTables(LocalStore(root), 2, key_fingerprint=key)
    return tables, tables.open()


def delivery(offset: int, alert: Alert) -> Delivery:
    return Delivery(offset, alert, "ops", "sent", 1, None, 1_760_000_000_000)


def test_each_alert_stands_once_in_each_state_by_its_date(tmp_path: Path) -> None:
    tables, _ = tables_at(tmp_path)
    tables.write_alerts(ALERTS[:10], next_=10)
    tables.write_alerts(ALERTS[:10], next_=10)
    tables.write_alerts([*ALERTS[4:], *ALERTS[:9]], next_=99)
    found = rows_of(tmp_path, "alerts", "id || ':' || state, date::text = strftime(ts, '%Y-%m-%d'), evidence")
    assert sorted(key for key, _, _ in found) == sorted(alert.key for alert in ALERTS)
    assert {(right, evidence) for _, right, evidence in found} == {(True, '{"users":12}')}
    assert len(list(tmp_path.glob("alerts/date=*"))) == 2


def test_a_new_owner_knows_what_is_in(tmp_path: Path) -> None:
    tables_at(tmp_path)[0].write_alerts(ALERTS[:20], next_=20)
    tables_at(tmp_path)[0].write_alerts(ALERTS, next_=80)
    assert sorted(rows_of(tmp_path, "alerts", "id, state")) == sorted((a.id, a.state) for a in ALERTS)


def test_of_two_owners_each_writes_what_the_other_has_not(tmp_path: Path) -> None:
    (first, _), (second, _) = tables_at(tmp_path), tables_at(tmp_path)
    second.write_alerts(ALERTS[:7], next_=7)
    first.write_alerts(ALERTS[:30], next_=30)
    second.write_alerts(ALERTS[7:], next_=60)
    assert sorted(rows_of(tmp_path, "alerts", "id, state")) == sorted((a.id, a.state) for a in ALERTS)


def test_deliveries_stand_once_by_their_offsets(tmp_path: Path) -> None:
    tables, position = tables_at(tmp_path)
    assert position == 0
    tables.write_deliveries([delivery(i, alert) for i, alert in enumerate(ALERTS[:9])], next_=9)
    other, position = tables_at(tmp_path)
    assert position == 9
    other.write_deliveries([delivery(i, alert) for i, alert in enumerate(ALERTS[:20])], next_=20)
    tables.write_deliveries([delivery(i, alert) for i, alert in enumerate(ALERTS)], next_=60)
    found = rows_of(tmp_path, "deliveries", "id, state, channel, outcome")
    assert sorted(found) == sorted((a.id, a.state, "ops", "sent") for a in ALERTS)


def test_they_are_no_verdicts_and_of_one_key(tmp_path: Path) -> None:
    tables_at(tmp_path)[0].write_alerts(ALERTS, next_=60)
    accounts = read_accounts(LocalStore(tmp_path))
    assert (accounts.sources, accounts.problems) == ((), ())
    with pytest.raises(StateError, match="another key"):
        tables_at(tmp_path, "other")

"""Alerts as bytes, and what makes two of them one."""

from __future__ import annotations

import doctest

import msgspec
import pytest

import schemas.alerts
from schemas.alerts import Alert, alert_id, decode_alert, encode_alert
from schemas.errors import StateError

ALERT = Alert(
    id="0" * 32,
    kind="wool_party",
    name="shared_device",
    state="open",
    severity="block",
    campaign="spring",
    dim="device_id",
    dim_value="60303ae22b998861bce3b28f33eec1be",
    since_ms=1_577_836_800_000,
    ts_ms=1_577_836_860_000,
    title_zh="同一设备多个账号",
    title_en="several accounts on one device",
    text_zh="",
    text_en="",
    evidence={"users": 3, "accounts": ["a", "b"], "score": 0.5, "none": None},
    config_hash="1" * 32,
)


def test_an_alert_comes_back_as_it_was() -> None:
    assert decode_alert(encode_alert(ALERT)) == ALERT


def test_equal_alerts_are_equal_bytes_whatever_the_order_of_their_evidence() -> None:
    turned = msgspec.structs.replace(ALERT, evidence=dict(reversed(list(ALERT.evidence.items()))))
    assert encode_alert(turned) == encode_alert(ALERT)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x02{}", b"\x01{}", b"\x01[", encode_alert(ALERT).replace(b'"open"', b'"shut"')],
    ids=["nothing", "a later version", "no fields", "no JSON", "an unknown state"],
)
def test_foreign_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(StateError):
        decode_alert(raw)


def test_an_id_hangs_on_each_of_its_parts() -> None:
    def of(
        *, name: str = "r", campaign: str | None = "c", dim: str = "d", value: str | None = "v", at: int = 1
    ) -> str:
        return alert_id("kpi", name, campaign=campaign, dim=dim, dim_value=value, incident=(at,))

    ids = {of(), of(name="s"), of(campaign=None), of(dim="e"), of(value=None), of(at=2)}
    assert len(ids) == 6


def test_examples_hold() -> None:
    assert doctest.testmod(schemas.alerts).failed == 0

"""What people are told: one alert for one incident, and its bytes on the way out.

An alert is told at most twice, when it opens and when it is resolved; both carry the same id. The id is a digest of
what the incident is, never of when or where it was noticed: whoever finds it again, after a crash or in a replay,
tells the same alert.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from schemas.errors import StateError

WOOL_PARTY: Final = "wool_party"
KPI: Final = "kpi"
OPEN: Final = "open"
RESOLVED: Final = "resolved"
SEVERITIES: Final = ("observe", "review", "block")
"""As the levels of verdicts; a broken KPI is ``review`` unless something graver is known."""

_ID_BYTES = 16
_VERSION = b"\x01"

Kind = Literal["wool_party", "kpi"]
State = Literal["open", "resolved"]
Severity = Literal["observe", "review", "block"]


class Alert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One incident, as people, Redis and the tables are told of it.

    Frozen, because it is kept and sent again as it is; unknown fields are refused, because its bytes carry a version.

    Parameters
    ----------
    id
        Of the incident, by :func:`alert_id`.
    kind, name
        ``wool_party`` and the reason code that fired, or ``kpi`` and the name of the KPI alert.
    state
        ``open`` or ``resolved``.
    severity
        The gravest level in it.
    campaign
        None: events without one, or all campaigns.
    dim, dim_value
        What ties it together: an entity and its pseudonym, or the dimension of a metric; ``all`` and None are a total.
    since_ms
        Event time at which it began.
    ts_ms
        Event time of what raised it, or of what resolved it.
    title_zh, title_en, text_zh, text_en
        For people, without anything raw of a person.
    evidence
        JSON: counts, values, thresholds, pseudonyms.
    config_hash
        Of the config that raised it.
    """

    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    kind: Kind
    name: str
    state: State
    severity: Severity
    campaign: str | None = None
    dim: str = "all"
    dim_value: str | None = None
    since_ms: int
    ts_ms: int
    title_zh: str
    title_en: str
    text_zh: str
    text_en: str
    evidence: Mapping[str, Any]
    config_hash: str

    @property
    def key(self) -> str:
        """What is told once: the incident in this state."""
        return f"{self.id}:{self.state}"


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Alert)


def alert_id(
    kind: Kind,
    name: str,
    *,
    campaign: str | None,
    dim: str,
    dim_value: str | None,
    incident: tuple[str | int | None, ...],
) -> str:
    """Name an incident: 32 hex digits, the same wherever and whenever it is found.

    Parameters
    ----------
    kind, name, campaign, dim, dim_value
        As in :class:`Alert`.
    incident
        What tells it from the others of the same name and scope, such as the start of the window that opened it.

    Examples
    --------
    >>> alert_id("kpi", "drop", campaign="spring", dim="channel", dim_value="ads", incident=(1577836800000,))
    '77f983fa14cc723ba445d65ea83cc92a'
    """
    identity = msgspec.json.encode((kind, name, campaign, dim, dim_value, incident))
    return hashlib.blake2b(identity, digest_size=_ID_BYTES, person=b"woolwatch alert").hexdigest()


def encode_alert(alert: Alert) -> bytes:
    """Bytes of an alert: one of version, then JSON with sorted keys; the same for the same alert."""
    return _VERSION + _encoder.encode(alert)


def decode_alert(raw: bytes) -> Alert:
    """Read what :func:`encode_alert` wrote.

    Raises
    ------
    StateError
        It is of another version, or no alert.
    """
    if raw[:1] != _VERSION:
        raise StateError(f"an alert in format {raw[:1].hex() or 'nothing'}; expected {_VERSION.hex()}")
    try:
        return _decoder.decode(raw[1:])
    except msgspec.DecodeError as error:
        raise StateError(f"these bytes are no alert: {error}") from error

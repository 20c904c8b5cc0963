"""What the risk team can write: one frozen Struct for each block of the config, as CONTRACT section 4 has it.

The types carry the reference: each field's ``Meta.description`` says what is expected there, and an error
quotes it. A field named ``*_ms`` is written in the files without that ending, as a duration (``window:
24h``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from schemas.durations import UNITS_MS, parse_duration
from schemas.events import STRING_FIELDS

NUMERIC_FIELDS: Final = ("dwell_ms", "amount_minor", "cost_minor", "lat", "lon")
"""Numbers of an event that rules, models and features may read; ``ts`` is no evidence of anything."""
TEXT_FIELDS: Final = ("event", "channel", "campaign", "page", "platform", "variant")
"""Strings that rules may compare and metrics may be split by: few values each, and none of them personal."""
DERIVED_ENTITIES: Final = ("phone_segment", "ip_prefix_24", "ip_prefix_48", "gps_cell")
ENTITIES: Final = (*STRING_FIELDS, *DERIVED_ENTITIES)
"""What can be looked at as an entity, besides ``attrs.<name>``."""
ATTRIBUTE_PREFIX: Final = "attrs."
ANY_EVENT: Final = "*"
WHOLE_CAMPAIGN: Final = "all"
"""The funnel window that never ends."""
MAX_NAME: Final = 64

Name = Annotated[str, Meta(min_length=1, max_length=128, description="a name of 1 to 128 characters")]
EventNameText = Annotated[
    str, Meta(min_length=1, max_length=64, description="an event's name, 1 to 64 characters")
]
Weight = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
Bound = Annotated[float, Meta(ge=-1e300, le=1e300, description="a number")]
"""Finite, as JSON has no infinity, so that a config can be kept."""
Text = Annotated[str, Meta(min_length=1, max_length=500, description="a text of 1 to 500 characters")]
EventList = Annotated[
    tuple[EventNameText, ...],
    Meta(min_length=1, description="a list of event names, such as [participate, redeem]"),
]
Length = Annotated[int, Meta(ge=1, description="a duration, such as 24h")]
Amount = Annotated[int, Meta(ge=0, lt=1 << 53, description="a whole number, at least 0")]
ModelInputs = Annotated[
    tuple[Name, ...],
    Meta(min_length=1, max_length=256, description="a list of features, numeric fields or attrs.<name>"),
]
Dimensions = Annotated[
    tuple[Name, ...], Meta(max_length=16, description="a list of dimensions, such as [channel, platform]")
]


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all blocks.

    Frozen, because a config is replaced, never changed, while others judge by it; unknown fields are
    forbidden, because a misspelt key that is silently ignored is a detector that silently does nothing;
    keyword-only, so that fields with and without defaults may stand in the order in which people think of
    them.
    """

    FILLED_IN: ClassVar[tuple[str, ...]] = ()
    """Fields that nobody writes: they are found out when the config is read."""


class Feature(Block, frozen=True, rename={"window_ms": "window"}):
    """One number known of each event: exactly one of ``distinct``, ``count``, ``since`` and ``field``."""

    entity: Annotated[
        Name | None, Meta(description="an entity, such as device_id, ip_prefix_24 or attrs.cookie")
    ] = None
    distinct: Annotated[Name | None, Meta(description="what is counted once each, such as user_id")] = None
    exclude: Annotated[
        Literal["self"] | None, Meta(description="self (the event's own value does not count)")
    ] = None
    count: Annotated[EventNameText | None, Meta(description='an event\'s name, or "*" for every event')] = (
        None
    )
    since: Annotated[
        EventNameText | None, Meta(description="the event from whose latest occurrence seconds run")
    ] = None
    field: Annotated[Name | None, Meta(description="a numeric field, such as dwell_ms or attrs.age")] = None
    window_ms: Length | None = None

    KINDS: ClassVar = ("distinct", "count", "since", "field")

    @property
    def kind(self) -> str:
        """Which of KINDS it is."""
        return next(kind for kind in self.KINDS if getattr(self, kind) is not None)

    @property
    def exclude_self(self) -> bool:
        """Whether the event's own value is left out of ``distinct``."""
        return self.exclude == "self"

    def definition(self) -> str:
        """Say what is counted, whatever it is called: equal for equal meaning, so state is kept under it.

        Examples
        --------
        >>> Feature(entity="device_id", distinct="user_id", exclude="self", window_ms=86_400_000).definition()
        '["distinct","device_id","user_id","self",86400000]'
        """
        parts = (self.kind, self.entity, getattr(self, self.kind), self.exclude, self.window_ms)
        return msgspec.json.encode(parts).decode()


class ListSource(Block, frozen=True):
    """A list of values that are known beforehand: a CSV file with the header ``value,reason,source,expires``.

    ``value`` is an exact value of the entity; for ``ip`` also a network (203.0.113.0/24), for ``phone`` the beginning
    of a number (1380013, +44 20), of which the longest wins. ``reason`` and ``source`` are shown in the evidence of a
    verdict (write nobody's name there). ``expires`` (a date, a time with its offset from UTC, or epoch milliseconds)
    ends an entry: it holds for events before that time. White comes over black over grey: what a white list has passes
    with score 0, what a black list has is blocked with score 1, and a grey list weighs ``weight``, like a rule. At most
    64 MiB and 5 million rows a file.
    """

    kind: Annotated[Literal["white", "black", "grey"], Meta(description="white, black or grey")]
    entity: Annotated[
        Name, Meta(description="the entity that the values name, such as device_id, ip or phone")
    ]
    file: Annotated[Text, Meta(description="the path of a CSV file inside the config folder")]
    weight: Weight = 0.5
    digest: str = ""
    """Of the file's content, 32 hex digits; empty while there is no file. So the config's hash covers the list."""

    FILLED_IN: ClassVar = ("digest",)


class Rule(Block, frozen=True):
    """A condition over features and fields, and how much it says when it holds."""

    when: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2_000,
            description="a condition of at most 2,000 characters, such as dwell_ms < 500",
        ),
    ]
    applies_to: EventList | None = None
    weight: Weight = 0.5
    reason_zh: Text | None = None
    reason_en: Text | None = None


FOREST_WINDOW = 250
"""Events per window of half-space trees, River's default."""
LARGEST_MASS = 1 << 27
"""Of a forest: counters of its scores take 8 bytes for each up to it, 1 GiB a model and partition."""


class HalfSpaceTrees(Block, frozen=True, tag_field="kind", tag="half_space_trees"):
    """River's ``MinMaxScaler | HalfSpaceTrees(window_size=250)``, compiled."""

    features: ModelInputs
    trees: Annotated[int, Meta(ge=1, le=256, description="a whole number from 1 to 256")] = 25
    height: Annotated[int, Meta(ge=1, le=15, description="a whole number from 1 to 15")] = 8
    seed: Annotated[int, Meta(ge=0, lt=1 << 32, description="a whole number from 0 to 4294967295")] = 42
    weight: Weight = 0.5

    kind: ClassVar = "half_space_trees"

    @property
    def largest_mass(self) -> int:
        """What a score is made of at most: every event of a window in one node of each depth, in all trees."""
        return self.trees * FOREST_WINDOW * ((2 << self.height) - 1)


class RiverModel(Block, frozen=True, tag_field="kind", tag="river", rename={"class_": "class"}):
    """A classifier of River that labels teach, named by its path below ``river``."""

    class_: Annotated[
        str,
        Meta(
            pattern=r"^[a-z_]+(\.[a-z_]+)*\.[A-Z]\w*$",
            description="a River class, such as linear_model.LogisticRegression",
        ),
    ]
    features: ModelInputs
    scale: Annotated[bool, Meta(description="true or false")] = False
    learns: Annotated[Literal["labels", "clean"], Meta(description="labels or clean")] = "labels"
    weight: Weight = 0.5

    kind: ClassVar = "river"


Model = HalfSpaceTrees | RiverModel


class Levels(Block, frozen=True):
    """Lowest score of each level, inclusive; below ``observe`` an event passes."""

    observe: Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")] = 0.3
    review: Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")] = 0.6
    block: Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")] = 0.85


class Funnel(Block, frozen=True, rename={"within_ms": "within"}):
    """Steps that users take in order, counted per campaign, window and dimension."""

    steps: Annotated[
        tuple[EventNameText, ...],
        Meta(min_length=1, max_length=32, description="a list of 1 to 32 event names, in order"),
    ]
    within_ms: Length | None = None
    by: Dimensions = ()
    windows: Annotated[
        tuple[str, ...],
        Meta(min_length=1, max_length=16, description="a list of durations and all, such as [all, 1d]"),
    ] = (WHOLE_CAMPAIGN,)
    order: Annotated[Literal["strict", "ties_allowed"], Meta(description="strict or ties_allowed")] = "strict"

    @property
    def windows_ms(self) -> tuple[int | None, ...]:
        """Lengths of ``windows`` in the same order; None is the whole campaign."""
        return tuple(None if text == WHOLE_CAMPAIGN else parse_duration(text) for text in self.windows)


class Dau(Block, frozen=True):
    """Daily active users: always in total, and by each of these dimensions."""

    by: Dimensions = ()


class Retention(Block, frozen=True):
    """Which of the users who were first seen on a day came again: for each campaign, and for the product as a whole.

    Counted where this block is (``retention: {}``): about 60 bytes a user and campaign, for good.
    """

    days: Annotated[
        int, Meta(ge=1, le=63, description="up to which day, counted from the first one, 1 to 63")
    ] = 30


class KpiAlert(Block, frozen=True, rename={"window_ms": "window", "for_": "for", "delay_ms": "delay"}):
    """A metric that must stay within bounds, or must not behave strangely; :mod:`schemas.kpi_metric` has its language.

    Parameters
    ----------
    by
        Judges each value of this dimension by itself; without it all campaigns together.
    window_ms
        Windows follow each other, the first one begins 1970-01-01T00:00Z.
    below, above
        Bounds, both still good.
    for_
        So many windows in a row open an alert, and as many good ones resolve it.
    min_count
        A window with less behind its number (users at the earlier step, events with a dwell time, for the others the
        number itself) says nothing. By default 10 for rates and dwell times, else 0.
    delay_ms
        How much later than its end a window is judged, in event time: events are a little out of order. By default a
        tenth of the window, at most a minute.
    """

    metric: Annotated[
        str,
        Meta(min_length=1, max_length=500, description='a metric, such as "funnel.purchase.rate(2, 3)"'),
    ]
    by: Annotated[Name | None, Meta(description="a dimension, such as channel")] = None
    window_ms: Length = 5 * UNITS_MS["m"]
    below: Bound | None = None
    above: Bound | None = None
    for_: Annotated[int, Meta(ge=1, le=1_000, description="a whole number of windows from 1 to 1000")] = 1
    min_count: Amount | None = None
    delay_ms: Length | None = None
    anomaly: Annotated[bool, Meta(description="true or false")] = False
    sensitivity: Annotated[float, Meta(gt=0, lt=1, description="a number between 0 and 1")] = 0.99


_VARIABLE = "WOOLWATCH_ALERT_ and more of A to Z, 0 to 9 and _"
AlertVariable = Annotated[str, Meta(pattern=r"^WOOLWATCH_ALERT_[A-Z0-9_]{1,100}$")]
"""No other variable: a config must not be able to name, and so to send away, the installation's own secrets."""


class AlertChannel(Block, frozen=True):
    """Where people are told. Its URL is a secret: it stands in the environment or in a file, never here."""

    url_env: Annotated[
        AlertVariable | None, Meta(description=f"the variable that holds the URL: {_VARIABLE}")
    ] = None
    url_file: Annotated[Text | None, Meta(description="the path of a file that holds the URL alone")] = None
    secret_env: Annotated[
        AlertVariable | None,
        Meta(description=f"the variable with the secret that signs a webhook: {_VARIABLE}"),
    ] = None
    min_severity: Annotated[
        Literal["observe", "review", "block"], Meta(description="observe, review or block")
    ] = "review"
    language: Annotated[Literal["zh", "en", "both"], Meta(description="zh, en or both")] = "both"
    allow_private: Annotated[
        bool, Meta(description="true or false: whether the address may be a private or local one")
    ] = False
    allow_plain: Annotated[
        bool, Meta(description="true or false: whether the way there may be unencrypted")
    ] = False


class Alerts(Block, frozen=True, rename={"period_ms": "period", "give_up_ms": "give_up"}):
    """When flagged events are an incident, and who is told."""

    min_users: Annotated[
        int, Meta(ge=1, le=1024, description="a whole number of accounts from 1 to 1024")
    ] = 3
    min_events: Annotated[int, Meta(ge=1, lt=1 << 31, description="a whole number of events, at least 1")] = 3
    period_ms: Length = UNITS_MS["d"]
    give_up_ms: Length = UNITS_MS["h"]
    channels: Annotated[
        Mapping[str, AlertChannel], Meta(description="channels by their names, such as ops: {url_env: ...}")
    ] = msgspec.field(default_factory=dict)


class EventName(Block, frozen=True):
    """What is said of one event name."""

    topic: Annotated[
        Literal["clicks", "participations"] | None, Meta(description="clicks or participations")
    ] = None
    role: Annotated[Name | None, Meta(description="what the event means to the business, such as signup")] = (
        None
    )


class Events(Block, frozen=True):
    """Event names the config speaks of, and whether others are rejected."""

    strict: bool = False
    names: Mapping[str, EventName] = msgspec.field(default_factory=dict)


TopicName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="a topic's name: 1 to 249 of letters, digits, . _ and -",
    ),
]


class Topics(Block, frozen=True):
    """Names of the topics in Kafka, by what flows in them.

    A window of funnels, DAU, retention and minutes stays open until both event topics are past it. Who uses one of them
    alone says so by `only`, or no window is ever closed: what is held of them grows up to the bounds of `memory`.
    """

    clicks: TopicName = "clicks"
    participations: TopicName = "participations"
    sightings: TopicName = "sightings"
    answers: TopicName = "answers"
    partials: TopicName = "partials"
    deadletters: TopicName = "deadletters"
    labels: TopicName = "labels"
    alerts: TopicName = "alerts"
    lessons: TopicName = "lessons"
    only: Annotated[
        Literal["clicks", "participations"] | None,
        Meta(description="clicks or participations: the topic in which all events come"),
    ] = None

    def names(self) -> dict[str, str]:
        """Kafka's name of each topic by what flows in it."""
        return {flow: topic for flow, topic in msgspec.structs.asdict(self).items() if flow != "only"}


class Campaign(Block, frozen=True):
    """What differs from campaign to campaign."""

    timezone: Annotated[str, Meta(description="an IANA time zone, such as Asia/Shanghai")] = "UTC"


class Memory(Block, frozen=True):
    """Bounds for each partition; what does not fit goes by the partition's own log alone, and is counted.

    ``max_keys`` (230 bytes each): entities are evicted. ``max_event_ids`` (32 to 64 bytes each): the oldest ids are
    forgotten, and what is not later than they is late, in both topics: a repeat is a duplicate or late, never a second
    verdict. ``max_users`` (about 1 KB each): under a key of a metric with more users, a sample of them is counted, and
    the tables state the error; so it is with the largest keys when there are more than 20 times as many memberships in
    all, with a funnel that follows more than twice as many users, and with retention, where users and the campaigns of
    each make more than four times as many. Of users who are in no count any more, but had a verdict of at least
    ``review``, 4 times as many are remembered; others are clean when they come again.
    """

    max_keys: Annotated[
        int,
        Meta(ge=1, lt=1 << 31, description="a whole number of rows per state table, from 1 to 2147483647"),
    ] = 1_000_000
    max_event_ids: Annotated[
        int,
        Meta(
            ge=1,
            lt=1 << 31,
            description="a whole number of event ids per judge partition, from 1 to 2147483647; "
            "beyond it the lateness is shorter",
        ),
    ] = 8_000_000
    max_users: Annotated[
        int,
        Meta(
            ge=1,
            lt=1 << 28,
            description="a whole number of users per judge partition who are counted exactly under one key, "
            "from 1 to 268435455; beyond it they are sampled",
        ),
    ] = 1_000_000

"""The counts of one judge partition: funnels, DAU, retention and events per minute, as blocks for the rollup.

Pure: counts are a function of the judged rows and the config, in any cut; what is not rows (the watermark)
only decides what may be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.block_rows import block_order, users_block_key, users_block_rows
from metrics.columns import field_keys, name_reader
from metrics.dau import DailyUsers, SeenDays
from metrics.definitions import CAMPAIGN_FIELD, CHANNEL_FIELD, EVENT_FIELD, make_metric_plan
from metrics.dimensions import Cells
from metrics.distinct_users import DistinctUsers
from metrics.event_blocks import event_blocks
from metrics.event_counts import EventCounts
from metrics.event_tables import SPANS, EventColumns
from metrics.funnel import MOST_EVENTS, FunnelCounter
from metrics.kpi_counts import KpiColumns, KpiCounts
from metrics.kpi_plan import make_kpi_plans
from metrics.members import BEFORE_ALL_MS, BLOCKS, KEYS, hold_against, mark_all_bad
from metrics.names import Names
from metrics.overruled import Overruled
from metrics.partition_state import restore_state, take_state
from metrics.retention import RetentionCounter
from schemas.config import Config
from schemas.events import INTEGER_FIELDS, TOPICS, EventBatch
from schemas.keys import KeyRing
from schemas.labels import Labels
from schemas.partials import Block, BlockKey, empty_rows
from schemas.verdicts import REVIEW


class PartitionMetrics:
    """Counts judged rows and hands over what changed.

    Parameters
    ----------
    config
        What is counted, and by what.
    ring
        For hashing the values of dimensions; must be the same for as long as the state lives.
    source
        Number of the judge partition, as blocks carry it.
    most_events
        Starts, and as many later steps, that a funnel takes of a user in one campaign in a span of ``within``
        + ``lateness``.
    topics
        How many topics the events come in, as :class:`detectors.judge.Judge` has it.
    """

    def __init__(
        self,
        config: Config,
        ring: KeyRing,
        *,
        source: int,
        most_events: int = MOST_EVENTS,
        topics: int = len(TOPICS),
    ) -> None:
        self.plan = make_metric_plan(config)
        self.source = source
        self.turn = -1
        self.watermark_ms = int(BEFORE_ALL_MS)
        self.zones = {name: campaign.timezone for name, campaign in config.campaigns.items()}
        self.names: dict[str, Names] = {field: Names() for field in self.plan.fields}
        self.cells = Cells(self.plan.dims)
        self.users = DistinctUsers(self.plan.definition_table(), self.plan.restate_ms)
        self.days = DailyUsers(self.plan, self.zones)
        self.funnels = tuple(
            FunnelCounter(funnel, self.plan.lateness_ms, most_events=most_events)
            for funnel in self.plan.funnels
        )
        days = self.plan.retention_days
        self.retention = None if days is None else RetentionCounter(days, self.plan.restate_ms)
        self.counts = EventCounts()
        self.kpis = KpiCounts(make_kpi_plans(config))
        self.overruled = Overruled()
        self.since_turn = dict.fromkeys(self.identities, 0)
        """Turn from which on each definition counts, by identity."""
        self.retired: tuple[BlockKey, ...] = ()
        """Blocks of definitions that are gone, not yet published as empty."""
        self.rows = 0
        """Rows counted since the beginning."""
        self.newest_ms = [int(BEFORE_ALL_MS)] * topics
        self._most_users = config.memory.max_users
        self._ring = ring

    @property
    def identities(self) -> list[str]:
        """Of everything whose beginning is kept in ``since_turn``."""
        own = [] if self.retention is None else [self.retention.identity]
        return [*(definition.identity for definition in self.plan.definitions), *own]

    @property
    def ignored_step_events(self) -> int:
        """Step events beyond a user's limit: a funnel may miss what they would have reached."""
        return sum(funnel.ignored for funnel in self.funnels)

    @property
    def forgotten_suspects(self) -> int:
        """Users whose verdicts were forgotten to make room: clean, when they come again."""
        return self.users.forgotten_suspects

    @property
    def sampling_level(self) -> int:
        """Highest level of a key or a funnel (:mod:`metrics.sampling`): 0 while all counts of users are exact."""
        levels = self.users.members.keys["level"][: self.users.members.used[KEYS]]
        retention = 0 if self.retention is None else self.retention.level
        return max([int(levels.max(initial=0)), retention, *(funnel.level for funnel in self.funnels)])

    @property
    def outdated_events(self) -> int:
        """Events below an earlier watermark whose span was over: missing in the counts per minute."""
        return self.counts.outdated

    def update(
        self,
        batch: EventBatch,
        rows: NDArray[np.int64],
        user_keys: NDArray[np.uint64],
        levels: NDArray[np.uint8],
        *,
        turn: int,
        watermark_ms: int,
    ) -> None:
        """Count the rows of one turn.

        Parameters
        ----------
        batch
            The events.
        rows
            int64[m]: those that were judged and not late, in judged order.
        user_keys, levels
            uint64[m], uint8[m]: keyed hash of the user and level of the verdict of each of them.
        turn
            Number of the turn.
        watermark_ms
            The promise that no row of a later turn lies below it: the lowest watermark of all sources after
            this turn, those included that are idle or never had an event.
        """
        self.turn = turn
        for part in self._parts(len(rows)):
            self._count(batch, rows[part], np.array(user_keys[part], np.uint64), levels[part] >= REVIEW)
            if self.rows % self._rows_a_part == 0:
                self._fit()
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        if self.users.forget(self.watermark_ms):
            self.days.forget()
        if self.retention is not None:
            self.retention.forget(self.watermark_ms)
        self.counts.forget(self.watermark_ms)

    def take_labels(self, labels: Labels) -> None:
        """Take back verdicts that labels overrule, and what was counted of them in windows that are still open."""
        if len(labels.event):
            users, lowest_ms = self.overruled.take(labels, self.watermark_ms)
            hold_against(self.users.members, self.users.find_users(users), lowest_ms, self.watermark_ms)
            if self.retention is not None:
                self.retention.hold_against(users, lowest_ms, self.watermark_ms)

    def changed_blocks(self, turn: int, *, idle: Collection[int] = ()) -> list[Block]:
        """Absolute values of all blocks that changed since the last call, as of ``turn``.

        ``idle`` are numbers of topics of which nothing more is expected soon; KPI windows do not wait for them.

        The order depends on their keys alone. What is handed over counts as published: a snapshot must not
        become durable before the blocks of all calls before it are.
        """
        blocks = self._blocks(turn, self.users.changed_blocks(), self.counts.changed_blocks())
        if self.retention is not None:
            changed = self.retention.changed_cohorts()
            blocks += self._retention_blocks(self.retention, turn, changed)
            self.retention.published(changed)
        kept = {block.key for block in blocks}
        blocks += [
            Block(key, self.source, turn, empty_rows(key.metric)) for key in self.retired if key not in kept
        ]
        self.users.published(self.users.changed_blocks())
        self.counts.published(self.counts.changed_blocks())
        self.retired = ()
        blocks.sort(key=lambda block: block_order(block.key))
        return blocks + self.kpi_blocks(turn, idle=idle)

    def kpi_blocks(self, turn: int, *, idle: Collection[int] = ()) -> list[Block]:
        """Those of KPI alerts that changed since the last call; what is promised comes behind what it is about."""
        return self.kpis.changed_blocks(self.names, source=self.source, turn=turn, idle=idle)

    def all_blocks(self) -> list[Block]:
        """Absolute values of the metrics that are still held: of all blocks that are not both over and published."""
        users = np.arange(self.users.members.used[BLOCKS])
        spans = np.arange(self.counts.tables.used[SPANS])
        blocks = self._blocks(self.turn, users, spans)
        if self.retention is not None:
            blocks += self._retention_blocks(self.retention, self.turn, self.retention.held_cohorts())
        return sorted(blocks, key=lambda block: block_order(block.key))

    def snapshot(self) -> dict[str, NDArray[Any] | bytes]:
        """The whole state as flat arrays and bytes, which blocks wait to be published included."""
        return take_state(self)

    def restore(self, state: Mapping[str, NDArray[Any] | bytes]) -> None:
        """Take up a snapshot, perhaps of another config; only right after construction.

        Definitions that stayed keep their counts, new ones start empty, and blocks of those that are gone are
        handed over as empty by the next :meth:`changed_blocks`.

        Raises
        ------
        StateError
            The snapshot is of an unknown version.
        """
        restore_state(self, state)

    def _count(
        self,
        batch: EventBatch,
        rows: NDArray[np.int64],
        user_keys: NDArray[np.uint64],
        bad: NDArray[np.bool_],
    ) -> None:
        numbers = {field: self._numbers(batch, rows, field) for field in self.plan.fields}
        integers = {name: batch.integers[i][rows] for i, name in enumerate(INTEGER_FIELDS)}
        ts_ms = integers["ts"]
        cells = self.cells.number(np.stack([numbers[f] for f in (CAMPAIGN_FIELD, *self.plan.dims)]))
        user_rows = self.users.find_users(user_keys)
        held = self.overruled.judged(field_keys(batch, rows, "event_id", self._ring), user_keys, ts_ms, bad)
        mark_all_bad(self.users.members, user_rows, ts_ms, held)
        seen = self.days.count(
            self.users,
            self.cells.table,
            rows=user_rows,
            row_cells=cells,
            ts_ms=ts_ms,
            campaigns=self._zoned(numbers[CAMPAIGN_FIELD]),
            watermark_ms=self.watermark_ms,
        )
        if self.retention is not None:
            self._count_retention(self.retention, seen, user_keys, numbers[CAMPAIGN_FIELD])
            self.retention.judged_bad(user_keys[held], ts_ms[held])
        for funnel in self.funnels:
            funnel.count(
                self.users,
                self.cells.table,
                rows=user_rows,
                user_keys=user_keys,
                kinds=funnel.kinds(numbers[EVENT_FIELD], self.names[EVENT_FIELD].names),
                row_cells=cells,
                ts_ms=ts_ms,
                watermark_ms=self.watermark_ms,
            )
        self.counts.count(
            EventColumns(
                ts_ms=ts_ms,
                campaign=numbers[CAMPAIGN_FIELD],
                channel=numbers[CHANNEL_FIELD],
                event=numbers[EVENT_FIELD],
                dwell_ms=integers["dwell_ms"],
                amount_minor=integers["amount_minor"],
                cost_minor=integers["cost_minor"],
            ),
            self.watermark_ms,
        )
        topic = TOPICS.index(batch.topic) if batch.topic in TOPICS else 0
        self.rows += len(rows)
        if topic < len(self.newest_ms):
            self.newest_ms[topic] = max(self.newest_ms[topic], int(ts_ms.max()))
        self.kpis.count(
            KpiColumns(topic, user_keys, bad, numbers, integers), self.names[EVENT_FIELD], self.watermark_ms
        )

    def _count_retention(
        self,
        retention: RetentionCounter,
        seen: SeenDays,
        user_keys: NDArray[np.uint64],
        campaigns: NDArray[np.int32],
    ) -> None:
        names = self.names[CAMPAIGN_FIELD].names
        retention.count(
            user_keys,
            campaigns,
            local_days=seen.local,
            utc_days=seen.utc,
            news=seen.news,
            day_ends=lambda campaign, days: self.days.day_ends(
                None if campaign < 0 else names[campaign], days
            ),
        )

    @property
    def _rows_a_part(self) -> int:
        return max(1, self._most_users // 4)

    def _parts(self, count: int) -> Iterator[slice]:
        """Rows of a batch, cut where the memory is looked at: by the number of rows ever counted, not by batches."""
        at = 0
        while at < count:
            end = min(count, at + self._rows_a_part - self.rows % self._rows_a_part)
            yield slice(at, end)
            at = end

    def _fit(self) -> None:
        """Keep the tables within ``memory.max_users``; what is over is decided by rows, so that no cut matters."""
        newest_ms = min(self.newest_ms)
        over_ms = newest_ms if newest_ms == BEFORE_ALL_MS else newest_ms - self.plan.lateness_ms
        for funnel in self.funnels:
            funnel.fit(self._most_users, over_ms)
        if self.retention is not None:
            self.retention.fit(self._most_users, over_ms)
        self.begin_levels()
        if self.users.fit(self._most_users, over_ms):
            self.days.forget()

    def begin_levels(self) -> None:
        """Keys of a funnel know no user whose chains are not followed."""
        for funnel in self.funnels:
            last = funnel.plan.first + funnel.plan.dims * len(funnel.plan.windows_ms)
            self.users.members.definitions["level"][funnel.plan.first : last] = funnel.level

    def _numbers(self, batch: EventBatch, rows: NDArray[np.int64], field: str) -> NDArray[np.int32]:
        name_of: Callable[[int], str] = name_reader(batch, rows, field)
        return self.names[field].number(field_keys(batch, rows, field, self._ring), name_of)

    def _zoned(self, campaigns: NDArray[np.int32]) -> dict[str, NDArray[np.bool_]]:
        """Which events are of each campaign with a clock of its own; campaigns without any are left out."""
        known = self.names[CAMPAIGN_FIELD]
        chosen = {name: campaigns == known.known(name) for name in self.days.zoned_campaigns}
        return {name: events for name, events in chosen.items() if events.any()}

    def _blocks(self, turn: int, users: NDArray[np.int64], spans: NDArray[np.int64]) -> list[Block]:
        names, source = self.names, self.source
        campaigns = names[CAMPAIGN_FIELD].names
        found = [
            Block(
                users_block_key(self.plan.groups, campaigns, self.users.members.blocks[block]),
                source,
                turn,
                users_block_rows(self.plan, self.users, names, block),
            )
            for block in users.tolist()
        ]
        found += [Block(key, source, turn, rows) for key, rows in event_blocks(self.counts, names, spans)]
        return found

    def _retention_blocks(
        self, retention: RetentionCounter, turn: int, cohorts: NDArray[np.int64]
    ) -> list[Block]:
        campaigns = self.names[CAMPAIGN_FIELD].names
        return [
            Block(retention.key_of(cohort, campaigns), self.source, turn, retention.packed(cohort))
            for cohort in cohorts.tolist()
        ]

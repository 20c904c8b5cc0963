"""Judging KPI alerts: windows that have closed, in order, each once.

A window closes for all sources together when every one of them has seen an event ``delay`` behind its end, or has
read all there is (DESIGN calls that idle). What comes later for it, though not late, corrects the tables and not the
decision. Alerts are thus a function of the closed windows in their order, and so are their ids: judged again after a
crash they are the same.

What was decided is kept beside the blocks, with the alerts that are not known to be told: decide, keep, tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from metrics.block_rows import row_order
from metrics.kpi_plan import KpiPlan, make_kpi_plans
from metrics.kpi_series import Counts, Series, Turn, value_of
from metrics.kpi_text import opened, resolved, unwatched
from schemas.alerts import Alert
from schemas.config import Config
from schemas.errors import StateError
from schemas.partials import KPI_PROGRESS, KPI_STATE, Block, BlockKey, KpiProgress, KpiRows, decode_rows

MOST_SERIES = 4_096
"""Values of a dimension that one alert follows; what is beyond is counted in :attr:`KpiAlerts.ignored`."""

TableKey = tuple[BlockKey, int]
"""Key and source: under what a block is kept."""

_encoder = msgspec.msgpack.Encoder()


class _Decided(msgspec.Struct):
    """What is kept of one KPI alert.

    ``judged_ms``: end of the last judged window, None before the first. ``untold``: alerts that are not known to be
    told.
    """

    judged_ms: int | None = None
    series: list[tuple[str | None, Series]] = msgspec.field(default_factory=list)
    untold: list[Alert] = msgspec.field(default_factory=list)


_decided_decoder = msgspec.msgpack.Decoder(_Decided)


class _Watch:
    """One KPI alert: its open windows, how far the sources are, and its series."""

    def __init__(self, plan: KpiPlan, config_hash: str) -> None:
        self.plan, self._config_hash = plan, config_hash
        self.windows: dict[int, dict[int, Block]] = {}
        self.progress: dict[int, Block] = {}
        self.judged_ms: int | None = None
        self.series: dict[str | None, Series] = {}
        self.untold: list[Alert] = []
        self.ignored = 0

    @property
    def state_key(self) -> BlockKey:
        return BlockKey(KPI_STATE, self.plan.name, "", None, self.plan.identity, None)

    def put(self, block: Block) -> bool:
        if block.key.metric == KPI_PROGRESS:
            return _newest(self.progress, block)
        start_ms = block.key.start_ms or 0
        if self.judged_ms is not None and start_ms < self.judged_ms:
            return False
        return _newest(self.windows.setdefault(start_ms, {}), block)

    def take_up(self, block: Block) -> list[TableKey]:
        """Go on from what was decided; returns what is not needed any more."""
        decided = _decode_state(block)
        self.judged_ms, self.series = decided.judged_ms, dict(decided.series)
        self.untold = decided.untold
        over = [start for start in self.windows if self.judged_ms is not None and start < self.judged_ms]
        return [key for start_ms in over for key in self._drop(start_ms)]

    def state(self) -> Block:
        decided = _Decided(self.judged_ms, list(self.series.items()), self.untold)
        # Of two of these the one that has judged further is newer, whoever wrote it last.
        return Block(self.state_key, STATE_SOURCE, self.judged_ms or 0, _encoder.encode(decided))

    def reached_ms(self, sources: int) -> int | None:
        """Up to where windows are closed by what the sources say; None while one of them has said nothing."""
        if len(self.progress) < sources:
            return None
        told = [decode_rows(block) for block in self.progress.values()]
        topics = [topic for rows in told if isinstance(rows, KpiProgress) for topic in rows.topics]
        awaited = [ms for ms, idle in topics if not idle]
        if not awaited:
            return max((ms for ms, _ in topics if ms is not None), default=None)
        if any(ms is None for ms in awaited):
            return None
        return min(ms for ms in awaited if ms is not None) - self.plan.delay_ms

    def advance(self, reached_ms: int) -> list[TableKey]:
        """Judge the windows that end by then; returns what is not needed any more."""
        window_ms, gone = self.plan.window_ms, []
        end_ms = reached_ms - reached_ms % window_ms
        for start_ms in sorted(start for start in self.windows if start < end_ms):
            self._pass_empty(start_ms)
            counts = _merged(self.windows[start_ms])
            gone += self._drop(start_ms)
            self._judge(start_ms, counts)
        if self.judged_ms is not None:
            self._pass_empty(end_ms)
        return gone

    def _drop(self, start_ms: int) -> list[TableKey]:
        return [(block.key, source) for source, block in self.windows.pop(start_ms).items()]

    def _pass_empty(self, until_ms: int) -> None:
        """Judge the windows up to there, in which nothing happened; after a few of them nothing more changes."""
        if self.judged_ms is None:
            return
        window_ms = self.plan.window_ms
        last_ms = min(until_ms, self.judged_ms + self.plan.alert.for_ * window_ms)
        for start_ms in range(self.judged_ms, last_ms, window_ms):
            self._judge(start_ms, {})
        self.judged_ms = max(self.judged_ms, until_ms)

    def _judge(self, start_ms: int, counts: Mapping[str | None, Counts]) -> None:
        for value in sorted({*counts, *self.series}, key=lambda value: row_order("", value)):
            series = self.series.get(value)
            if series is None:
                if len(self.series) >= MOST_SERIES:
                    self.ignored += 1
                    continue
                series = self.series[value] = Series()
            self._step(value, series, start_ms, counts.get(value, _NOTHING))
            if series.is_forgettable(self.plan):
                del self.series[value]
        self.judged_ms = start_ms + self.plan.window_ms

    def _step(self, value: str | None, series: Series, start_ms: int, counts: Counts) -> None:
        seen = value_of(self.plan, start_ms, counts)
        turn = series.step(self.plan, seen)
        if seen is None or turn is Turn.NOTHING:
            return
        if turn is Turn.OPENED:
            windows = series.first if series.first[-1] == seen else [*series.first, seen]
            series.opened = opened(self.plan, value, windows, self._config_hash)
            self.untold.append(series.opened)
        elif series.opened is not None:
            self.untold.append(resolved(self.plan, series.opened, seen, self._config_hash))
            series.opened = None


_NOTHING: Counts = ({}, {})
STATE_SOURCE = -1
"""In place of a source, for what no source told."""


class KpiAlerts:
    """The KPI alerts of a config, as far as their blocks come here.

    Parameters
    ----------
    config
        Whose alerts.
    sources
        How many judge partitions there are; nothing is judged before all of them have told how far they are.

    Notes
    -----
    Delivery: :attr:`untold` is told, then :meth:`told` is called. Everything in :meth:`changes` must be durable
    before anything is told, else an incident that is judged again with other numbers would stay open for ever.
    """

    def __init__(self, config: Config, *, sources: int) -> None:
        self._sources, self._hash = sources, config.hash
        self._watches = {
            (plan.name, plan.identity): _Watch(plan, self._hash) for plan in make_kpi_plans(config)
        }
        self._gone: list[TableKey] = []
        self._changed: set[tuple[str, str]] = set()
        self._orphans: list[Alert] = []
        self._orphan_keys: list[TableKey] = []

    @property
    def untold(self) -> list[Alert]:
        """Alerts that are to be told, in the order in which they were raised; of former configs first."""
        return self._orphans + [alert for watch in self._watches.values() for alert in watch.untold]

    @property
    def ignored(self) -> int:
        """Values of dimensions, by window, for which there was no place."""
        return sum(watch.ignored for watch in self._watches.values())

    def put(self, block: Block) -> bool:
        """Take a block of one of KPI_METRICS; False if it changes nothing and need not be kept."""
        watch = self._watches.get((block.key.name, block.key.scope))
        return watch is not None and block.key.metric != KPI_STATE and watch.put(block)

    def take_up(self, block: Block) -> None:
        """Take a block that was kept, perhaps for another config; in any order, and before :meth:`put`."""
        place = (block.key.name, block.key.scope)
        watch = self._watches.get(place)
        if watch is None and block.key.metric == KPI_STATE:
            self._orphans += self._closed(_decode_state(block))
            self._orphan_keys.append((block.key, block.source))
        elif watch is None:
            self._gone.append((block.key, block.source))
        elif block.key.metric == KPI_STATE:
            self._gone += watch.take_up(block)
        elif not watch.put(block):
            self._gone.append((block.key, block.source))

    def advance(self, reached_ms: int | None = None) -> None:
        """Judge what has closed: by what the sources say, or all that ends by ``reached_ms``."""
        for place, watch in self._watches.items():
            reached = watch.reached_ms(self._sources) if reached_ms is None else reached_ms
            if reached is None:
                continue
            before = watch.judged_ms
            self._gone += watch.advance(reached)
            if watch.judged_ms != before:
                self._changed.add(place)

    def changes(self) -> Iterator[tuple[TableKey, Block | None]]:
        """What is to be kept, or (None) dropped, since the last call."""
        gone, self._gone = self._gone, []
        changed, self._changed = self._changed, set()
        for place in sorted(changed):
            block = self._watches[place].state()
            yield (block.key, block.source), block
        for key in gone:
            yield key, None

    def told(self) -> None:
        """Say that everything in :attr:`untold` is told."""
        self._gone += self._orphan_keys
        self._orphans, self._orphan_keys = [], []
        for place, watch in self._watches.items():
            if watch.untold:
                watch.untold = []
                self._changed.add(place)

    def _closed(self, decided: _Decided) -> list[Alert]:
        open_ = [series.opened for _, series in decided.series if series.opened is not None]
        ended_ms = decided.judged_ms or 0
        return decided.untold + [unwatched(alert, ended_ms, self._hash) for alert in open_]


def _newest(held: dict[int, Block], block: Block) -> bool:
    """Keep a block unless a newer one of its source is held."""
    before = held.get(block.source)
    if before is not None and before.turn > block.turn:
        return False
    held[block.source] = block
    return True


def _merged(blocks: Mapping[int, Block]) -> dict[str | None, Counts]:
    """Add up what the sources counted in one window; users belong to one source each."""
    found: dict[str | None, Counts] = {}
    for rows in map(decode_rows, blocks.values()):
        for value, *parts in rows.rows if isinstance(rows, KpiRows) else ():
            for total, added in zip(found.setdefault(value, ({}, {})), parts, strict=True):
                for place, count in added.items():
                    total[place] = total.get(place, 0) + count
    return found


def _decode_state(block: Block) -> _Decided:
    try:
        return _decided_decoder.decode(block.rows)
    except msgspec.DecodeError as error:
        raise StateError(f"what was decided about {block.key.name} cannot be read: {error}") from error

"""Verdicts, late rows and, in a replay, dead letters as Parquet: every row once, whatever is killed and when."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.verdicts import Verdicts
from sinks.commit_log import Account, account_of, cuts_of
from sinks.dead_letters import Seal, dead_letter_table
from sinks.staged_commits import StagedCommits, StagedTable
from sinks.store import Store
from sinks.tables import by_config, by_date, verdict_table


class ParquetSink:
    """The tables ``verdicts/`` and ``late/`` of one judge partition, and ``deadletters/`` where asked for.

    Delivery: each turn exactly once. For one caller at a time; other processes may write the same partition,
    and lose. Blocks on the store, so an event loop calls it in a thread.

    Parameters
    ----------
    store
        Where the tables are.
    partition
        The judge partition.
    key_fingerprint
        Of the key that made the pseudonyms.
    seal
        Closes what a dead letter keeps of the original; without it rejected records are only counted.
    """

    def __init__(
        self, store: Store, partition: int, *, key_fingerprint: str, seal: Seal | None = None
    ) -> None:
        self._partition, self._seal = partition, seal
        self._commits = StagedCommits(store, partition, key_fingerprint=key_fingerprint)

    @property
    def position(self) -> int:
        """All turns below it are in."""
        return self._commits.position

    @property
    def account(self) -> Account:
        """What those turns consumed."""
        return self._commits.account

    def open(self) -> int:
        """Finish what an earlier owner began; must come before the first write. Returns the position.

        Raises
        ------
        StateError
            The tables were made with another key or by a later version.
        """
        return self._commits.open()

    def write(self, verdicts: Sequence[Verdicts]) -> int:
        """Commit turns, those that are in already aside; returns the position.

        Parameters
        ----------
        verdicts
            Turns in a row, ascending; any number, as one commit of one file per date and config.

        Raises
        ------
        ValueError
            Turns are missing before or between these.
        OSError
            The store does not take it. Nothing is in then, and the same call may be made again.
        """
        while turns := self._missing(verdicts):
            self._commits.commit(turns[-1].turn + 1, self._tables(turns), account_of(turns), cuts_of(turns))
        return self.position

    def _missing(self, verdicts: Sequence[Verdicts]) -> list[Verdicts]:
        """The turns that are not in yet."""
        turns = [turn for turn in verdicts if turn.turn >= self.position]
        if any(turn.turn != self.position + i for i, turn in enumerate(turns)):
            raise ValueError(
                f"expected turns from {self.position} on, got {[turn.turn for turn in turns[:3]]}..."
            )
        return turns

    def _tables(self, turns: list[Verdicts]) -> list[StagedTable]:
        """The rows by table, date and config; names tell partition, first turn, and number of the config."""
        found: list[StagedTable] = []
        for number, group in enumerate(by_config(turns)):
            name = f"p{self._partition}-{self.position:020d}-{number}.parquet"
            for folder, table in zip(("verdicts", "late"), verdict_table(group), strict=True):
                found += [StagedTable(f"{folder}/date={date}/{name}", rows) for date, rows in by_date(table)]
        if self._seal is not None and any(turn.batch.rejections for turn in turns):
            letters = dead_letter_table([turn.batch for turn in turns], self._seal)
            name = f"p{self._partition}-{self.position:020d}.parquet"
            found.append(StagedTable(f"deadletters/{name}", letters))
        return found

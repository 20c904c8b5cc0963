"""What is held against users and devices in Redis, for a back end that asks before it gives.

Of many turns only the last verdict of each user and device is sent, in judged order and in calls of the right size. A
last verdict of level ``pass`` takes the entry away: most people never have one, and so most events cost Redis a look,
not a write. A call moves the position behind the turns that are complete with it. After a kill the turns from there on
come again, perhaps cut otherwise: they end in the same values, and no value ever goes back to an older one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import compress, pairwise
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from redis.asyncio import Redis

from schemas.events import EventBatch
from schemas.verdicts import LEVELS, PASS, Verdicts
from sinks.patience import patiently
from sinks.redis_functions import DEFAULT_NAMESPACE, ForgottenError, RedisFunctions
from sinks.tables import Array, hex_column, integer_columns, level_column, text_columns

log = logging.getLogger(__name__)

DEFAULT_TTL_S = 30 * 86_400
PART_ROWS = 8192
CALL_BYTES = 128 * 1024
"""One call is a few milliseconds of Redis's only thread."""
_ENTRY_BYTES = 250
"""Of a user or device, besides its strings of any length."""
_CLEAR_BYTES = 80
"""Of a row that takes an entry away."""

_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode


_USER_FIELDS = ("reasons", "score", "level", "event", "event_id", "ts", "campaign", "config_hash")
_DEVICE_FIELDS = ("raw_reasons", *_USER_FIELDS[1:], "user")

_Columns: TypeAlias = list[list[Any]]


class ShownVerdict(msgspec.Struct, frozen=True):
    """What is held against somebody: the fields of docs/REDIS.md."""

    level: str
    score: float
    event: str
    event_id: str
    ts: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    campaign: str
    config_hash: str
    reasons: tuple[str, ...]
    user: str


class LastVerdict(NamedTuple):
    """The last verdict of a user, or on a device, and how old it is."""

    who: str
    verdict: ShownVerdict
    age_ms: int


class _DeviceVerdict(msgspec.Struct, gc=False):
    """In the order of _DEVICE_FIELDS."""

    reasons: msgspec.Raw
    score: float
    level: str
    event: str
    event_id: str
    ts: int
    campaign: str
    config_hash: str
    user: str


class _Held(NamedTuple):
    """Some rows of a turn: their places in it, and their rows in its batch."""

    turn: Verdicts
    batch: EventBatch
    rows: NDArray[np.int64]
    places: NDArray[np.int64]


class _Call(NamedTuple):
    """``next``: all turns below it are in once this call and those before it are.

    ``clear_users`` and ``clear_devices``: pseudonyms whose last verdict is ``pass``.
    """

    next: int
    users: _Columns
    devices: _Columns
    clear_users: list[str]
    clear_devices: list[str]

    @property
    def tables(self) -> list[bytes]:
        """As the functions take them."""
        return [
            _encode(each) for each in (self.users, self.devices, [self.clear_users], [self.clear_devices])
        ]


class RedisSink:
    """The last verdicts of one judge partition; docs/REDIS.md says what is where.

    Delivery: a verdict stands until the next one of its user takes its place, or takes it away if it is
    ``pass``; a repeat changes nothing. Late verdicts are not shown: they say what was, and would hide what is.

    Parameters
    ----------
    client
        Of :func:`sinks.redis_functions.connect`.
    partition
        The judge partition.
    key_fingerprint
        Of the key that made the pseudonyms.
    namespace
        Hash tag of all keys.
    ttl_s
        How long a user or device is remembered after its last verdict.
    """

    def __init__(
        self,
        client: Redis,
        *,
        partition: int,
        key_fingerprint: str,
        namespace: str = DEFAULT_NAMESPACE,
        ttl_s: int = DEFAULT_TTL_S,
    ) -> None:
        self._functions = RedisFunctions(client, namespace)
        self._partition, self._ttl_s, self._key_fingerprint = partition, ttl_s, key_fingerprint
        self._state = self._functions.key("judge", str(partition))
        self._epoch = -1
        self._position = 0
        self._one_call = asyncio.Lock()
        """Held over a call and its repeats: what is restored must not come between two of them."""
        self.lacks: int | None = None
        """The first turn that Redis lacks, as of the take-over; None where it has all, or has it again."""
        self._one_write = asyncio.Lock()
        self._began = self._restored = 0
        self._judged_since: tuple[set[str], set[str]] | None = None
        """Users and devices that were written since the restoring began; some 120 bytes each."""

    async def take_over(self, *, epoch: int, turn: int = 0) -> int:
        """Become the owner; must come before the first write. Returns the position: turns below it are in.

        Parameters
        ----------
        epoch
            Larger than that of every earlier owner.
        turn
            From here on turns will be written. If Redis stands before it, :attr:`lacks` says what is to be restored.

        Raises
        ------
        FencedError, StateError, UnreachableError
            As :meth:`RedisFunctions.take_over`.
        """
        position = await self._functions.take_over(
            self._state, epoch=epoch, at_least=turn, key_fingerprint=self._key_fingerprint
        )
        self._epoch, self._position = epoch, max(position, turn)
        self.lacks, self._judged_since = await self._functions.lacks(self._state), None
        return self._position

    async def position(self) -> int:
        """Ask Redis for the position."""
        return await self._functions.position(self._state)

    async def look(self) -> None:
        """Return if Redis still has all that was written; for while nothing is.

        Raises
        ------
        ForgottenError
            It has lost turns.
        UnreachableError
            It did not answer.
        """
        position = await self.position()
        if position < self._position:
            raise ForgottenError(f"{self._state} stands at {position} and lost what came after", position)

    async def write(self, verdicts: Sequence[Verdicts]) -> int:
        """Write turns, those that are in already aside; returns the position.

        Parameters
        ----------
        verdicts
            Turns in a row, ascending; any number.

        Raises
        ------
        ValueError
            Turns are missing before or between these.
        FencedError
            A later owner was here.
        ForgottenError
            Redis lost turns before these.
        UnreachableError
            Redis did not answer, or refused. The same call may be made again.
        """
        turns = [turn for turn in verdicts if turn.turn >= self._position]
        if any(turn.turn != self._position + i for i, turn in enumerate(turns)):
            raise ValueError(
                f"expected turns from {self._position} on, got {[turn.turn for turn in turns[:3]]}..."
            )
        async with self._one_write:
            for part in _parts(turns):
                await self._write_part(part)
        return self._position

    async def _write_part(self, turns: Sequence[Verdicts]) -> None:
        for call in _calls(turns, self._ttl_s * 1000):
            async with self._one_call:
                self._note_judged(call)
                position = await self._functions.write(
                    "judge_write",
                    self._state,
                    self._epoch,
                    self._position,
                    call.next,
                    self._functions.key("verdict", ""),
                    str(self._partition),
                    *call.tables,
                )
            self._position = max(self._position, position)

    # -- what Redis forgot ---------------------------------------------------------------------------------------

    def _note_judged(self, call: _Call) -> None:
        if self._judged_since is not None:
            users, devices = self._judged_since
            users.update(call.users[0], call.clear_users)
            devices.update(call.devices[0], call.clear_devices)

    async def begin_restoring(self) -> int:
        """Begin, or begin anew, to restore what :attr:`lacks` says; returns the turn below which that is."""
        async with self._one_write:  # else some of a turn may be in
            self._began, self._judged_since = self._position, (set(), set())
        return self._began

    async def restore(
        self, users: Sequence[LastVerdict], devices: Sequence[LastVerdict], *, is_last: bool = False
    ) -> None:
        """Show the last verdicts as of :meth:`begin_restoring`; of whoever was judged since, the newer one stays.

        Parameters
        ----------
        users, devices
            Some hundred at a time. A verdict ``pass`` takes the entry away.
        is_last
            With this call nothing is missing any more.

        Raises
        ------
        FencedError, ForgottenError
            As :meth:`write`; then a later take-over begins anew.
        """
        async with self._one_call:
            if self._judged_since is None:
                return
            of_users, of_devices = self._judged_since
            call = _restoring(
                [each for each in users if each.who not in of_users],
                [each for each in devices if each.who not in of_devices],
                self._ttl_s * 1000,
            )
            self._restored += 1

            async def write() -> None:
                await self._functions.write(
                    "judge_restore",
                    self._state,
                    self._epoch,
                    self._began,
                    self._restored,
                    int(is_last),
                    self._functions.key("verdict", ""),
                    str(self._partition),
                    *call.tables,
                )

            # Not let go before it is in: a call that was given up might still come, behind a newer verdict.
            await patiently("Redis", write)
            if is_last:
                self.lacks = self._judged_since = None


def _parts(verdicts: Sequence[Verdicts]) -> Iterator[list[Verdicts]]:
    """Turns in order, some thousand rows together; a larger one alone."""
    part: list[Verdicts] = []
    rows = 0
    for turn in verdicts:
        if part and rows + len(turn.rows) > PART_ROWS:
            yield part
            part, rows = [], 0
        part.append(turn)
        rows += len(turn.rows)
    if part:
        yield part


def _restoring(users: Sequence[LastVerdict], devices: Sequence[LastVerdict], ttl_ms: int) -> _Call:
    """What to write of last verdicts; those that would have expired by now are left out."""
    users, devices = ([each for each in some if each.age_ms < ttl_ms] for some in (users, devices))
    clear = ([each.who for each in some if each.verdict.level == LEVELS[PASS]] for some in (users, devices))
    users, devices = (
        [each for each in some if each.verdict.level != LEVELS[PASS]] for some in (users, devices)
    )
    of_users = [each.verdict for each in users]
    scores: list[str] = (
        pa.array([each.score for each in of_users], pa.float64()).cast(pa.string()).to_pylist()
    )
    columns: _Columns = [
        [each.who for each in users],
        [orjson.dumps(each.reasons).decode() for each in of_users],
        scores,
        *([getattr(each, name) for each in of_users] for name in ("level", "event", "event_id")),
        [str(each.ts) for each in of_users],
        *([getattr(each, name) for each in of_users] for name in ("campaign", "config_hash")),
        [str(ttl_ms - each.age_ms) for each in users],
    ]
    texts = [
        _encode_json(
            _DeviceVerdict(
                msgspec.Raw(orjson.dumps(each.verdict.reasons)),
                *(getattr(each.verdict, name) for name in _DEVICE_FIELDS[1:]),
            )
        ).decode()
        for each in devices
    ]
    ttls = [str(ttl_ms - each.age_ms) for each in devices]
    return _Call(0, columns, [[each.who for each in devices], texts, ttls], *clear)


def _calls(verdicts: Sequence[Verdicts], ttl_ms: int) -> Iterator[_Call]:
    """What to write of these turns, in judged order and cut so that no call is too large."""
    level = np.concatenate([turn.level for turn in verdicts])
    turns = np.repeat([turn.turn for turn in verdicts], [len(turn.rows) for turn in verdicts])
    in_time = np.concatenate([turn.late for turn in verdicts]) == 0
    is_user = _last_of_each(np.concatenate([turn.user_keys for turn in verdicts]), in_time)
    is_device = _last_of_each(np.concatenate([turn.device_keys for turn in verdicts]), in_time)
    rows = np.flatnonzero(is_user | is_device)
    turns, is_user, is_device, held = turns[rows], is_user[rows], is_device[rows], level[rows] > PASS
    users, devices, held_sizes = _columns(_only(verdicts, rows[held]), is_user[held], is_device[held])
    sizes = np.full(len(rows), _CLEAR_BYTES)
    sizes[held] = held_sizes
    clear_users = _hex_texts([turn.user for turn in verdicts], rows[is_user & ~held])
    clear_devices = _hex_texts([turn.device for turn in verdicts], rows[is_device & ~held])
    pieces = np.cumsum(sizes) // CALL_BYTES
    cuts = [0, *(np.flatnonzero(pieces[1:] != pieces[:-1]) + 1).tolist(), len(rows)]
    user_ends, device_ends = _counts_before(is_user & held), _counts_before(is_device & held)
    clear_user_ends, clear_device_ends = _counts_before(is_user & ~held), _counts_before(is_device & ~held)
    for columns in (users, devices):
        columns.append([str(ttl_ms)] * len(columns[0]))
    for start, stop in pairwise(cuts):
        yield _Call(
            int(turns[stop]) if stop < len(rows) else verdicts[-1].turn + 1,
            [column[user_ends[start] : user_ends[stop]] for column in users],
            [column[device_ends[start] : device_ends[stop]] for column in devices],
            clear_users[clear_user_ends[start] : clear_user_ends[stop]],
            clear_devices[clear_device_ends[start] : clear_device_ends[stop]],
        )


def _only(verdicts: Sequence[Verdicts], rows: NDArray[np.int64]) -> list[_Held]:
    """Some rows of all turns, numbered through; most rows are of people against whom nothing is held."""
    lasts = np.cumsum([len(turn.rows) for turn in verdicts])
    cuts = [0, *np.searchsorted(rows, lasts).tolist()]
    firsts = (lasts - [len(turn.rows) for turn in verdicts]).tolist()
    return [
        _Held(turn, turn.batch, turn.rows[rows[start:stop] - first], rows[start:stop] - first)
        for turn, first, (start, stop) in zip(verdicts, firsts, pairwise(cuts), strict=True)
    ]


def _columns(
    held: Sequence[_Held], is_user: NDArray[np.bool_], is_device: NDArray[np.bool_]
) -> tuple[_Columns, _Columns, NDArray[np.int64]]:
    """Rows by column as ``judge_write`` takes them.

    Returns
    -------
    Nine columns of the rows that are the last of a user, two of those that are the last of a device, and
    about how many bytes each row becomes.
    """
    columns = _shown(held)
    lists = {name: column.to_pylist() for name, column in columns.items()}
    lists["raw_reasons"] = list(map(msgspec.Raw, lists["reasons"]))
    of_device = zip(*(_picked(lists[name], is_device) for name in _DEVICE_FIELDS), strict=True)
    # Strings, because Redis's msgpack knows no binary.
    texts = [_encode_json(_DeviceVerdict(*row)).decode() for row in of_device]
    devices = [_picked(lists["device"], is_device), texts]
    lists["score"] = columns["score"].cast(pa.string()).to_pylist()
    lists["ts"] = columns["ts"].cast(pa.string()).to_pylist()
    users = [_picked(lists[name], is_user) for name in ("user", *_USER_FIELDS)]
    # Only these two are strings of any length.
    lengths = pc.add(pc.binary_length(columns["campaign"]), pc.binary_length(columns["reasons"]))
    entries = is_user.astype(np.int64) + is_device
    return users, devices, entries * (_ENTRY_BYTES + lengths.to_numpy())


def _shown(held: Sequence[_Held]) -> dict[str, Array]:
    """Of every row what Redis shows of it."""
    event_id, event, campaign = text_columns(held, ("event_id", "event", "campaign"))
    counts = [len(some.rows) for some in held]
    return {
        "score": pa.array(np.concatenate([some.turn.score[some.places] for some in held])),
        "level": level_column([some.turn.level[some.places] for some in held]),
        "reasons": pa.array([text for some in held for text in _reason_texts(some)], pa.string()),
        "event": event,
        "event_id": event_id,
        "ts": pa.array(integer_columns(held)["ts"]),
        "campaign": campaign.fill_null(""),
        "config_hash": pa.array(np.repeat([some.turn.config_hash for some in held], counts)),
        "user": hex_column([some.turn.user[some.places] for some in held]),
        "device": hex_column([some.turn.device[some.places] for some in held]),
    }


def _last_of_each(keys: NDArray[np.uint64], in_time: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows are the last in time of their key; key 0 is none."""
    rows = np.flatnonzero(in_time & (keys != 0))[::-1]
    _, first = np.unique(keys[rows], return_index=True)
    last = np.zeros(len(keys), np.bool_)
    last[rows[first]] = True
    return last


def _counts_before(flags: NDArray[np.bool_]) -> list[int]:
    """How many are set before each place, and in all."""
    counts: list[int] = [0, *np.cumsum(flags).tolist()]
    return counts


def _hex_texts(pseudonyms: Sequence[NDArray[np.uint8]], rows: NDArray[np.int64]) -> list[str]:
    """Some rows of pseudonyms, numbered through, as hex digits."""
    texts: list[str] = hex_column([np.concatenate(pseudonyms)[rows]]).to_pylist()
    return texts


def _picked(values: list[Any], wanted: NDArray[np.bool_]) -> list[Any]:
    """The values that are wanted, in order."""
    return values if wanted.all() else list(compress(values, wanted.tolist()))


def _reason_texts(held: _Held) -> list[str]:
    """The reasons of every row as JSON."""
    turn = held.turn
    starts, ends = turn.reason_offsets[held.places].tolist(), turn.reason_offsets[held.places + 1].tolist()
    return [
        _reasons_json(turn.reason_names, tuple(turn.reason_codes[start:end].tolist()))
        for start, end in zip(starts, ends, strict=True)
    ]


@lru_cache(maxsize=4096)
def _reasons_json(names: tuple[str, ...], codes: tuple[int, ...]) -> str:
    return orjson.dumps([names[code] for code in codes]).decode()

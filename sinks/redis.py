"""What is held against users and devices in Redis, for a back end that asks before it gives.

Of many turns only the last verdict of each user and device is sent, in judged order and in calls of the right size. A
last verdict of level ``pass`` takes the entry away: most people never have one, and so most events cost Redis a look,
not a write. A call moves the position behind the turns that are complete with it. After a kill the turns from there on
come again, perhaps cut otherwise: they end in the same values, and no value ever goes back to an older one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import compress, pairwise
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from redis.asyncio import Redis

from schemas.events import EventBatch
from schemas.verdicts import PASS, Verdicts
from sinks.redis_functions import DEFAULT_NAMESPACE, RedisFunctions
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

    async def take_over(self, *, epoch: int, turn: int = 0) -> int:
        """Become the owner; must come before the first write. Returns the position: turns below it are in.

        Parameters
        ----------
        epoch
            Larger than that of every earlier owner.
        turn
            From here on turns will be written. If Redis stands before it, what lies between can not be made again:
            its users keep an older verdict, or none, until they are judged again.

        Raises
        ------
        FencedError, StateError, UnreachableError
            As :meth:`RedisFunctions.take_over`.
        """
        position = await self._functions.take_over(
            self._state, epoch=epoch, at_least=turn, key_fingerprint=self._key_fingerprint
        )
        if position < turn:
            log.warning(
                "Redis lacks verdicts of partition %d, turns %d to %d; users get theirs when judged again",
                self._partition,
                position,
                turn - 1,
            )
        self._epoch, self._position = epoch, max(position, turn)
        return self._position

    async def position(self) -> int:
        """Ask Redis for the position."""
        return await self._functions.position(self._state)

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
        for part in _parts(turns):
            await self._write_part(part)
        return self._position

    async def _write_part(self, turns: Sequence[Verdicts]) -> None:
        for call in _calls(turns):
            position = await self._functions.write(
                "judge_write",
                self._state,
                self._epoch,
                self._position,
                call.next,
                self._functions.key("verdict", ""),
                self._ttl_s * 1000,
                str(self._partition),
                _encode(call.users),
                _encode(call.devices),
                _encode([call.clear_users]),
                _encode([call.clear_devices]),
            )
            self._position = max(self._position, position)


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


def _calls(verdicts: Sequence[Verdicts]) -> Iterator[_Call]:
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

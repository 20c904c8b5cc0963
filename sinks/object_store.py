"""Tables and state in a bucket of an S3-compatible store.

An object appears whole, and what a call wrote is durable and seen by everybody when the store answers: both are S3's
own promise. Two more things are asked of it: to create an object only if there is none of that name
(``If-None-Match: *``), which lets one of two writers win, and to replace one only if it is still that which was read
(``If-Match``). An object can not be renamed: a committed file is copied to its place by the store, then removed from
``_staging/``.
"""

from __future__ import annotations

import io
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from schemas.errors import ConfigError, RefusedError
from sinks.faults import fault_point
from sinks.lease import Lease
from sinks.store import LOG_FOLDER, File, Fill, UncertainError, side_by_side

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore import GetOptions
    from obstore.store import ClientConfig

log = logging.getLogger(__name__)

SCHEME = "s3"
_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._=/-]*))?")
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ALLOW_HTTP_VARIABLE = "AWS_ALLOW_HTTP"

_TIMEOUT_S, _CONNECT_TIMEOUT_S = 30, 5
_RETRIES, _RETRY_S = 2, 20
"""Within one call; who called tries again for as long as it takes."""
_IN_MEMORY_BYTES = 16 * 1024 * 1024
"""Larger files are read piece by piece, and written in parts."""
_PARTS_AT_ONCE = 2
"""Each must arrive within the timeout: so a line of 1 MB/s will do."""
_REPLACE_ATTEMPTS = 8
_PROBE = f"{LOG_FOLDER}/conditional-writes"
_NO_TAG = '"00000000000000000000000000000000"'

_WITHOUT_CONDITIONS = (
    "has no conditional writes (If-None-Match, If-Match), without which two writers could double rows"
)

_Mode: TypeAlias = Any
"""A condition, as :func:`obstore.put` takes it."""


class _Standing(NamedTuple):
    """The version that stands at a name, and the condition that replaces exactly that one."""

    version: int | None
    mode: _Mode


class ObjectStore:
    """A :class:`sinks.store.Store` below a prefix of a bucket.

    Credentials, region and endpoint are the environment's (``AWS_...``), never part of the URI. Every failure is an
    OSError.

    Parameters
    ----------
    uri
        ``s3://bucket`` or ``s3://bucket/prefix``.
    flag
        By which it was given, for the message.
    environment
        Of the process.

    Raises
    ------
    ConfigError
        The URI is none of a bucket, or the endpoint is reached without TLS.
    """

    largest_bytes = 128 << 20
    """See :attr:`sinks.store.Store.largest_bytes`; a file is made in memory, which takes some twice its size."""

    def __init__(self, uri: str, *, flag: str = "--out", environment: Mapping[str, str] = os.environ) -> None:
        bucket, prefix = _place(uri, flag)
        self._name = f"{SCHEME}://{bucket}{'/' if prefix else ''}{prefix}"
        self._bucket = bucket
        client: ClientConfig = {
            "timeout": timedelta(seconds=_TIMEOUT_S),
            "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
        }
        if _without_tls(environment):
            client["allow_http"] = True
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            conditional_put="etag",
            client_options=client,
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
        )
        self._standing: dict[str, _Standing] = {}

    def __str__(self) -> str:
        """The URI."""
        return self._name

    def check(self, *, writing: bool) -> None:
        """See :meth:`sinks.store.Store.check`."""
        try:
            self.folders(LOG_FOLDER)
            if not writing:
                return
            self.create(_PROBE, b"woolwatch", by_way_of="")
            kept = all(self._keeps(_PROBE, mode) for mode in ("create", {"e_tag": _NO_TAG}))
        except OSError as error:
            if reason := _why_refused(str(error), self._bucket):
                raise RefusedError(f"the store of {self} {reason}") from error
            raise
        if not kept:
            raise RefusedError(f"the store of {self} {_WITHOUT_CONDITIONS}")

    def _keeps(self, name: str, mode: _Mode) -> bool:
        """Whether an object is kept from a write whose condition does not hold."""
        try:
            self._put(name, b"woolwatch", mode=mode)
        except (AlreadyExistsError, PreconditionError):
            return True
        return False

    def read(self, name: str, *, durable: bool = False) -> bytes | None:
        """See :meth:`sinks.store.Store.read`; what is there is durable."""
        del durable
        try:
            with _as_os_errors():
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def open(self, name: str) -> File:
        """See :meth:`sinks.store.Store.open`."""
        with _as_os_errors():
            found = obstore.get(self._store, name)
            if found.meta["size"] <= _IN_MEMORY_BYTES:
                return pa.BufferReader(pa.py_buffer(found.bytes()))
            return pa.PythonFile(_Ranges(self._store, name, found.meta["size"]), mode="r")

    def fetch(self, name: str) -> BinaryIO:
        """See :meth:`sinks.store.Store.fetch`; a copy without a name, fetched in pieces of one version."""
        file = tempfile.TemporaryFile(prefix="woolwatch-")  # noqa: SIM115 (the caller closes it)
        try:
            with _as_os_errors():
                meta = obstore.head(self._store, name)
                for first in range(0, meta["size"], _IN_MEMORY_BYTES):
                    piece = (first, min(first + _IN_MEMORY_BYTES, meta["size"]))
                    options: GetOptions = {"range": piece, "if_match": meta["e_tag"]}
                    file.write(obstore.get(self._store, name, options=options).bytes())
            file.flush()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def names(self, folder: str) -> list[str]:
        """See :meth:`sinks.store.Store.names`."""
        with _as_os_errors():
            return sorted(found["path"] for batch in obstore.list(self._store, folder) for found in batch)

    def folders(self, folder: str) -> list[str]:
        """See :meth:`sinks.store.Store.folders`."""
        with _as_os_errors():
            return sorted(obstore.list_with_delimiter(self._store, folder)["common_prefixes"])

    def sizes(self, folder: str) -> dict[str, int]:
        """See :meth:`sinks.store.Store.sizes`."""
        with _as_os_errors():
            found = obstore.list_with_delimiter(self._store, folder)["objects"]
        return {
            each["path"].rpartition("/")[2]: each["size"] for each in sorted(found, key=itemgetter("path"))
        }

    def create(self, name: str, content: bytes, *, by_way_of: str) -> bool:
        """See :meth:`sinks.store.Store.create`."""
        del by_way_of
        try:
            self._put(name, content, mode="create")
        except AlreadyExistsError:
            # Perhaps by ourselves: the answer to the first try may have been lost.
            return self.read(name) == content
        return True

    def put(self, name: str, parts: Iterable[bytes]) -> None:
        """See :meth:`sinks.store.Store.put`; it appears with its last part."""
        with _as_os_errors():
            obstore.put(
                self._store,
                name,
                iter(parts),
                chunk_size=_IN_MEMORY_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )

    def write(self, files: Sequence[tuple[str, Fill]]) -> None:
        """See :meth:`sinks.store.Store.write`."""

        def write(file: tuple[str, Fill]) -> None:
            content = _filled(file[1])
            fault_point("parquet.staging")
            with _as_os_errors():
                obstore.put(
                    self._store,
                    file[0],
                    content,
                    chunk_size=_IN_MEMORY_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                )

        side_by_side(write, files)

    def publish(self, folder: str, moves: Sequence[tuple[str, str]]) -> None:
        """See :meth:`sinks.store.Store.publish`."""
        staged = self.names(folder)
        if not staged:
            return
        side_by_side(self._copy, moves)
        fault_point("parquet.renamed")
        self._remove_staged(staged)

    def replace(
        self, name: str, fill: Fill, *, version: int, version_of: Callable[[File], int | None]
    ) -> bool:
        """See :meth:`sinks.store.Store.replace`."""
        content = _filled(fill)
        for _ in range(_REPLACE_ATTEMPTS):
            standing = self._standing.pop(name) if name in self._standing else self._look_at(name, version_of)
            if standing.version is not None and standing.version > version:
                return False
            fault_point("metrics.staged")
            try:
                tag = self._put(name, content, mode=standing.mode)
            except (AlreadyExistsError, PreconditionError):
                continue  # somebody else was faster: look again
            self._standing[name] = _Standing(version, {"e_tag": tag})
            fault_point("metrics.renamed")
            return True
        raise OSError(f"{self}/{name} is replaced by others again and again")

    def remove(self, names: Iterable[str]) -> None:
        """See :meth:`sinks.store.Store.remove`."""
        if found := list(names):
            with _as_os_errors():
                obstore.delete(self._store, found)

    def remove_folder(self, folder: str) -> None:
        """See :meth:`sinks.store.Store.remove_folder`."""
        try:
            self._remove_staged(self.names(folder))
        except OSError as error:
            log.debug("%s/%s is left for later: %s", self, folder, error)

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """See :meth:`sinks.store.Store.alone`."""
        lease = Lease(self._store, f"{LOG_FOLDER}/{name}.lease")
        with _as_os_errors():
            is_alone = lease.take()
        try:
            yield is_alone
        finally:
            lease.release()

    def _remove_staged(self, names: Iterable[str]) -> None:
        try:
            self.remove(names)
        except OSError as error:
            log.debug("files in %s are left for later: %s", self, error)

    def _copy(self, move: tuple[str, str]) -> None:
        """Bring a committed file to its place; another process may be doing the same."""
        source, target = move
        with _as_os_errors():
            try:
                obstore.copy(self._store, source, target)
            except FileNotFoundError:
                try:
                    obstore.head(self._store, target)
                except FileNotFoundError:
                    log.error(
                        "a committed file is gone: neither staged nor at %s/%s; its rows are lost",
                        self,
                        target,
                    )
        fault_point("parquet.renaming")

    def _look_at(self, name: str, version_of: Callable[[File], int | None]) -> _Standing:
        try:
            with _as_os_errors():
                found = obstore.get(self._store, name)
                content = pa.BufferReader(pa.py_buffer(found.bytes()))
        except FileNotFoundError:
            return _Standing(None, "create")
        return _Standing(version_of(content), {"e_tag": found.meta["e_tag"]})

    def _put(self, name: str, content: bytes | memoryview, *, mode: _Mode) -> str | None:
        """Put an object under a condition; returns its tag.

        Raises
        ------
        AlreadyExistsError, PreconditionError
            The condition does not hold.
        UncertainError
            Nobody knows what became of it.
        OSError
            It was refused.
        """
        try:
            return obstore.put(self._store, name, content, mode=mode, use_multipart=False)["e_tag"]
        except (AlreadyExistsError, PreconditionError):
            raise
        except (BaseError, FileNotFoundError) as error:
            said = _short(error)
            raise (OSError if _why_refused(said, self._bucket) else UncertainError)(said) from None


class _Ranges(io.RawIOBase):
    """A large object, of which only those ranges are fetched that are read."""

    def __init__(self, store: S3Store, name: str, size: int) -> None:
        self._store, self._name, self._size = store, name, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, into: WriteableBuffer) -> int:
        view = memoryview(into).cast("B")
        length = min(len(view), self._size - self._at)
        if length <= 0:
            return 0
        with _as_os_errors():
            view[:length] = obstore.get_range(self._store, self._name, start=self._at, length=length)
        self._at += length
        return length


def _place(uri: str, flag: str) -> tuple[str, str]:
    found = _PLACE.fullmatch(uri)
    parts = [part for part in (found[2] or "").split("/") if part] if found else []
    if found is None or {".", ".."} & set(parts):
        # What was given is not shown: it may hold a secret.
        raise ConfigError(
            file=flag,
            path="$",
            found="an s3:// URI that is none of a bucket",
            expected="s3://bucket/prefix, of letters, digits and ._=-; credentials and endpoint by AWS_... variables",
        )
    return found[1], "/".join(parts)


def _without_tls(environment: Mapping[str, str]) -> bool:
    """Whether the endpoint is spoken to in the clear, on this host or by permission.

    Raises
    ------
    ConfigError
        It is neither.
    """
    endpoint = next((environment[name] for name in _ENDPOINT_VARIABLES if environment.get(name)), "https://")
    parsed = urlsplit(endpoint)
    if parsed.scheme != "http":
        return False
    if not _is_loopback(parsed.hostname or "") and environment.get(_ALLOW_HTTP_VARIABLE, "").lower() not in (
        "1",
        "true",
    ):
        raise ConfigError(
            file="AWS_ENDPOINT_URL",
            path="$",
            found="http:// to another host",
            expected=f"https://, or {_ALLOW_HTTP_VARIABLE}=true where the network may be trusted with every row",
        )
    return True


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _filled(fill: Fill) -> memoryview:
    sink = pa.BufferOutputStream()
    fill(sink)
    return memoryview(sink.getvalue()).cast("B")  # pyarrow says that its bytes have a sign


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """What the library raises as an OSError, so that it is waited out like a full disk."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(_short(error)) from None
    except BaseError as error:
        raise OSError(_short(error)) from None


def _short(error: Exception) -> str:
    """The first line of an error, and in it of the store's answer the code alone: the rest may tell of the request."""
    line, _, answer = str(error).partition("\n")[0].partition("<?xml")
    code = re.search(r"<Code>(\w{1,60})</Code>", answer)
    return f"{line[:300].rstrip(' :')}{f' ({code[1]})' if code else ''}"


def _why_refused(said: str, bucket: str) -> str | None:
    """What the store refused us for, to stand behind its name; None where another try may succeed."""
    if "NoSuchBucket" in said:
        return f"has no bucket {bucket}"
    if "InvalidAccessKeyId" in said or "SignatureDoesNotMatch" in said:
        return "does not accept the access key or its secret (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
    if "501 Not Implemented" in said:
        return _WITHOUT_CONDITIONS
    if "403 Forbidden" in said or "401 Unauthorized" in said:
        return (
            "does not let us write there: it wants other credentials (AWS_...), or a policy that allows them"
        )
    return None

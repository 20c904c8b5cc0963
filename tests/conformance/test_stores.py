"""What every store of tables and state promises, each by the same tests, on a disk and on an S3-compatible server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from sinks.local_store import LocalStore
from sinks.object_store import ObjectStore
from sinks.store import File, Fill, Store

pytestmark = pytest.mark.integration

WRITERS = 6


@pytest.fixture(params=["disk", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Open one place, as each process does for itself."""
    if request.param == "disk":
        return lambda: LocalStore(tmp_path / "tables")
    uri: str = request.getfixturevalue("s3_uri")
    return lambda: ObjectStore(uri)


def fill(content: bytes) -> Fill:
    def write(file: File) -> None:
        file.write(content)

    return write


def content(store: Store, name: str) -> bytes:
    with store.open(name) as file:
        found: bytes = file.read()
    return found


def version_in(file: File) -> int | None:
    found = file.read()
    return int(found) if found.isdigit() else None


def staged(store: Store, folder: str, *contents: bytes) -> list[tuple[str, str]]:
    """Stage files; the moves that publish them."""
    names = [f"_staging/{folder}/{i}.staged" for i in range(len(contents))]
    store.write([(name, fill(content)) for name, content in zip(names, contents, strict=True)])
    return [(name, f"verdicts/date=2026-01-3{i}/{folder}.parquet") for i, name in enumerate(names)]


def test_it_lets_us_in_also_a_second_time(make: Callable[[], Store]) -> None:
    make().check(writing=False)
    make().check(writing=True)
    make().check(writing=True)


def test_nothing_is_there_at_first(make: Callable[[], Store]) -> None:
    store = make()
    assert store.read("_log/p0/1.json") is None
    assert store.read("_log/p0/1.json", durable=True) is None
    assert (store.names("verdicts"), store.folders("_staging/p0")) == ([], [])
    with pytest.raises(FileNotFoundError):
        store.open("verdicts/a.parquet")
    store.publish("_staging/p0/a", [("_staging/p0/a/0.staged", "verdicts/a.parquet")])
    store.remove(["verdicts/a.parquet"])
    store.remove_folder("_staging/p0/a")


def test_of_many_who_create_one_name_one_wins(make: Callable[[], Store]) -> None:
    stores, together = [make() for _ in range(WRITERS)], Barrier(WRITERS)

    def create(name: str, writer: int) -> bool:
        together.wait()
        return stores[writer].create(name, b"%d" % writer, by_way_of=f"_staging/{writer}/entry")

    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(20):
            name = f"_log/p0/{number:020d}.json"
            won = list(pool.map(partial(create, name), range(WRITERS)))
            assert sum(won) == 1
            assert make().read(name, durable=True) == b"%d" % won.index(True)
    assert len(make().names("_log")) == 20


def test_what_is_published_stands_in_its_table_and_no_more_in_staging(make: Callable[[], Store]) -> None:
    store = make()
    moves = staged(store, "p0-a", b"first", b"second")
    kept = staged(store, "p0-b", b"third")
    assert store.folders("_staging") == ["_staging/p0-a", "_staging/p0-b"]
    assert store.names("verdicts") == []

    store.publish("_staging/p0-a", moves)
    store.publish("_staging/p0-a", moves)

    assert store.names("verdicts") == [
        "verdicts/date=2026-01-30/p0-a.parquet",
        "verdicts/date=2026-01-31/p0-a.parquet",
    ]
    assert [content(make(), name) for _, name in moves] == [b"first", b"second"]
    assert store.folders("verdicts") == ["verdicts/date=2026-01-30", "verdicts/date=2026-01-31"]
    assert store.names("_staging") == [kept[0][0]]
    store.remove_folder("_staging/p0-b")
    assert store.folders("_staging") == []
    store.remove([moves[0][1]])
    assert store.names("verdicts") == [moves[1][1]]


def test_sizes_are_of_the_files_in_the_folder_itself(make: Callable[[], Store]) -> None:
    store = make()
    assert store.sizes("verdicts/date=2026-01-30") == {}
    store.publish("_staging/p0-b", staged(store, "p0-b", b"four", b""))
    store.publish("_staging/p0-a", staged(store, "p0-a", b"longer", b"one"))
    assert store.sizes("verdicts/date=2026-01-30") == {"p0-a.parquet": 6, "p0-b.parquet": 4}
    assert store.sizes("verdicts/date=2026-01-31") == {"p0-a.parquet": 3, "p0-b.parquet": 0}
    assert store.sizes("verdicts/date=2026-01-3") == store.sizes("verdicts") == {}


def test_one_at_a_time_is_alone(make: Callable[[], Store]) -> None:
    with make().alone("upkeep") as first:
        with make().alone("upkeep") as second, make().alone("other") as other:
            assert (first, second, other) == (True, False, True)
        with make().alone("upkeep") as second:
            assert not second, "who was refused has not let others in"
    with make().alone("upkeep") as third:
        assert third


def test_publishing_goes_on_where_another_one_died(
    make: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    moves = staged(store, "p0-a", b"first", b"second")
    spare = [("_staging/p0-a/2.staged", "verdicts/date=2026-01-30/spare.parquet")]
    store.write([(spare[0][0], fill(b"keeps the folder"))])
    store.publish("_staging/p0-a", moves[:1])
    assert store.names("_staging") == [], "the folder goes with the files that nobody named"
    staged(store, "p0-a", b"first", b"second")
    store.remove(["_staging/p0-a/0.staged"])

    make().publish("_staging/p0-a", moves)

    assert [content(store, name) for _, name in moves] == [b"first", b"second"]
    assert caplog.text == ""


def test_several_publish_at_once(make: Callable[[], Store], caplog: pytest.LogCaptureFixture) -> None:
    stores, together = [make() for _ in range(WRITERS)], Barrier(WRITERS)

    def publish(folder: str, moves: list[tuple[str, str]], store: Store) -> None:
        together.wait()
        store.publish(folder, moves)

    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(5):
            moves = staged(stores[0], f"p0-{number}", b"first", b"second")
            list(pool.map(partial(publish, f"_staging/p0-{number}", moves), stores))
            assert [content(stores[0], name) for _, name in moves] == [b"first", b"second"]
    assert caplog.text == ""


def test_a_committed_file_that_is_gone_is_an_error_in_the_log(
    make: Callable[[], Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    moves = staged(store, "p0-a", b"first", b"second")
    store.remove([moves[0][0]])
    store.publish("_staging/p0-a", moves)
    assert "its rows are lost" in caplog.text
    assert content(store, moves[1][1]) == b"second"


def test_a_later_version_is_never_replaced(make: Callable[[], Store]) -> None:
    first, second, name = make(), make(), "metrics/dau/part-0.parquet"
    assert first.replace(name, fill(b"5"), version=5, version_of=version_in)
    assert second.replace(name, fill(b"7"), version=7, version_of=version_in)
    assert not first.replace(name, fill(b"6"), version=6, version_of=version_in), "it knew of 5 alone"
    assert not first.replace(name, fill(b"6"), version=6, version_of=version_in)
    assert content(make(), name) == b"7"
    assert first.replace(name, fill(b"07"), version=7, version_of=version_in), "the same, counted anew"
    assert second.replace(name, fill(b"8"), version=8, version_of=version_in)
    assert content(make(), name) == b"8"
    assert first.names("metrics") == [name]
    assert first.names("_staging") == []


def test_what_says_nothing_of_its_version_is_replaced(make: Callable[[], Store]) -> None:
    store, name = make(), "metrics/dau/part-0.parquet"
    store.replace(name, fill(b"by hand"), version=9, version_of=version_in)
    assert make().replace(name, fill(b"1"), version=1, version_of=version_in)
    assert content(store, name) == b"1"


def test_a_large_file_is_read_where_one_looks(make: Callable[[], Store]) -> None:
    store, size = make(), 17 * 1024 * 1024
    large = bytes(range(256)) * (size // 256)
    ((name, target),) = staged(store, "p0-a", large)
    store.publish("_staging/p0-a", [(name, target)])
    with store.open(target) as file:
        assert file.size() == size
        file.seek(size - 3)
        assert file.read() == b"\xfd\xfe\xff"
        file.seek(256 * 1000)
        assert file.read(2) == b"\x00\x01"


def test_a_file_is_put_whole_and_fetched_as_it_was_then(make: Callable[[], Store]) -> None:
    store = make()
    with pytest.raises(FileNotFoundError):
        store.fetch("checkpoints/judge-0000/1.state")
    parts = [bytes([number]) * (1 << 20) for number in range(36)]  # more than is written or read at once
    store.put("checkpoints/judge-0000/1.state", iter(parts))
    with make().fetch("checkpoints/judge-0000/1.state") as file:
        store.put("checkpoints/judge-0000/1.state", [b"short"])
        mapped = np.memmap(file, np.uint8, "r")
    store.remove(["checkpoints/judge-0000/1.state"])
    assert mapped.tobytes() == b"".join(parts)
    assert store.names("checkpoints") == []


def test_what_fails_in_the_middle_changes_nothing(make: Callable[[], Store]) -> None:
    def torn() -> Iterator[bytes]:
        yield b"x" * (20 << 20)
        raise OSError("the disk is full")

    store = make()
    store.put("checkpoints/judge-0000/1.state", [b"whole"])
    with pytest.raises(OSError, match="full"):
        store.put("checkpoints/judge-0000/1.state", torn())
    with store.fetch("checkpoints/judge-0000/1.state") as file:
        assert file.read() == b"whole"
    assert store.names("checkpoints") == ["checkpoints/judge-0000/1.state"]
    assert store.names("_staging") == []


def test_an_empty_file_is_a_file(make: Callable[[], Store]) -> None:
    store = make()
    store.put("configs/a", [])
    with store.fetch("configs/a") as file:
        assert file.read() == b""

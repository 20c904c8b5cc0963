"""The demo as people run it: to its end, and ended at any moment, without a trace."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.command import WOOLWATCH
from tests.recounts import CHARGED
from tests.service_process import LOOPBACK
from tests.services import REPOSITORY
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

EVENTS, SECONDS = 6_000, 4
PATIENCE_S = 150.0
STAMPED = ("requirements.lock", "pyproject.toml")
_MARK = "DEMO_OF_THIS_TEST"
_draw = random.Random(4)
_AFTER_START_S = [0.05, 0.15, 0.3, 0.6]
"""Python itself, our imports, and the first steps; ``make demo`` goes through its setup then."""
_AFTER_FIRST_WORD_S = [
    round(_draw.uniform(0.0, 4.0), 1),
    *(pytest.param(round(_draw.uniform(0.0, 20.0), 1), marks=pytest.mark.thorough) for _ in range(5)),
]


class RunningDemo:
    """A demo in a folder of its own, marked so that every process below it is found again."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        terminal: bool = False,
        command: Sequence[str] = (WOOLWATCH, "demo"),
    ) -> None:
        self.folder, self.temporary = folder, folder / "t"
        self.temporary.mkdir(parents=True)
        self._mark = uuid.uuid4().hex
        if command[0] == WOOLWATCH:
            arguments = ("--events", str(EVENTS), "--seconds", str(SECONDS), *arguments)
        environment = {
            **os.environ,
            _MARK: self._mark,
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(REPOSITORY),
            "TERM": "xterm-256color",
        }
        self.terminal, ours = pty.openpty() if terminal else (-1, -1)
        with (folder / "output").open("wb") as output:
            out = ours if terminal else output
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=folder,
                env=environment,
                stdin=ours if terminal else subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        if terminal:
            os.close(ours)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def press_ctrl_c(self) -> None:
        """As a terminal does it: the signal goes to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def wait_for_output(self, words: str = "") -> None:
        """Until it says this, or its first word, which it does before it starts anything."""

        def spoke() -> bool:
            assert self.process.poll() is None
            said = self.output()
            return bool(said) and words in said

        wait_until(spoke, lambda: f"{words!r} was never said:\n{self.output()}")

    def read_until(self, wanted: bytes) -> bytes:
        """What it draws on the terminal, up to some words."""
        seen = b""
        while wanted not in seen:
            assert select.select([self.terminal], [], [], PATIENCE_S)[0], seen.decode()
            seen += os.read(self.terminal, 65_536)
        return seen

    def processes(self) -> list[int]:
        """All that live and have our mark, the demo included; Redis writes its title over its environment."""
        mark, folder = f"{_MARK}={self._mark}".encode(), os.fsencode(self.temporary)
        return [pid for pid in _pids() if mark in _read(pid, "environ") or folder in _read(pid, "cmdline")]

    def broker_port(self) -> int | None:
        """Where the embedded broker listens, once the worker was told."""
        for pid in self.processes():
            words = _read(pid, "cmdline").split(b"\0")
            if b"--brokers" in words:
                return int(words[words.index(b"--brokers") + 1].rpartition(b":")[2])
        return None

    def wait_for_broker(self) -> int:

        def listens() -> bool:
            assert self.process.poll() is None, self.output()
            return self.broker_port() is not None

        wait_until(listens, self.output)
        port = self.broker_port()
        assert port is not None
        return port

    def wait_until_gone(self) -> None:
        wait_until(lambda: not self.processes(), lambda: f"still there: {self.processes()}")


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:  # it ended meanwhile, or is somebody else's
        return b""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short name: the path of a Unix socket is short, or the demo takes another temporary folder."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunningDemo:
    """A demo without a terminal that came to its end."""
    demo = RunningDemo(tmp_path_factory.mktemp("d"), "--json", "outcome.json")
    assert demo.wait() == 0, demo.output()
    return demo


@pytest.fixture(scope="module")
def outcome(finished: RunningDemo) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((finished.folder / "outcome.json").read_text())
    return found


@pytest.fixture(scope="module")
def tables(finished: RunningDemo) -> Iterator[duckdb.DuckDBPyConnection]:
    """What the worker wrote, joined with the truth, for a recount that shares nothing with the demo's own."""
    out = finished.folder / "woolwatch-demo"
    with duckdb.connect() as connection:
        connection.execute(f"""
            create view judged as
            select *, level in ('review', 'block') as flagged
            from '{out}/verdicts/**/*.parquet' join '{out}/truth.parquet' using (event_id);
            create view people as
            select user_id, any_value(truth_kind) as kind, any_value(truth_crowd) as crowd, bool_or(flagged) as flagged
            from judged group by user_id;
            create view funnel as from '{out}/metrics/funnel/*.parquet';
            create view dau as from '{out}/metrics/dau/*.parquet';
        """)
        yield connection


def test_it_ends_with_the_tables_and_nothing_else(finished: RunningDemo, outcome: dict[str, Any]) -> None:
    assert outcome["events"] == {
        "consumed": EVENTS, "verdicts": EVENTS, "late": 0, "duplicates": 0, "rejected": 0
    }  # fmt: skip
    assert not finished.processes()
    assert not list(finished.temporary.iterdir())
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        "outcome.json", "output", "t", "woolwatch-demo"
    ]  # fmt: skip
    assert "\x1b" not in finished.output()


def test_who_was_caught_is_what_duckdb_finds(
    outcome: dict[str, Any], tables: duckdb.DuckDBPyConnection
) -> None:
    for shown, column, which in (
        ("kinds", "kind", "not null"),
        ("crowds", "coalesce(crowd, 'none')", "null"),
    ):
        rows = tables.sql(
            f"select {column}, count(*), count_if(flagged) from people where kind is {which} group by 1 order by 1"
        ).fetchall()
        assert [(row["name"], row["users"], row["flagged"]) for row in outcome[shown]] == rows
        share = "recall" if shown == "kinds" else "share"
        assert [row[share] for row in outcome[shown]] == [flagged / users for _, users, flagged in rows]
    assert len(outcome["kinds"]) == 6
    precision, recall = tables.sql(
        "select count_if(flagged and kind is not null) / count_if(flagged), "
        "count_if(flagged and kind is not null) / count_if(kind is not null) from people"
    ).fetchall()[0]
    assert (outcome["precision"], outcome["recall"]) == pytest.approx((precision, recall))


def test_precision_by_kind_is_what_duckdb_finds(
    outcome: dict[str, Any], tables: duckdb.DuckDBPyConnection
) -> None:
    rows = tables.sql(CHARGED.format(judged="judged")).fetchall()
    kinds = outcome["kinds"]
    assert [(row["name"], row["charged"]) for row in kinds] == [
        (name, pytest.approx(charged)) for name, charged in rows
    ]
    for row in kinds:
        assert row["precision"] == pytest.approx(row["flagged"] / (row["flagged"] + row["charged"]))
    held_back = sum(crowd["flagged"] for crowd in outcome["crowds"])
    assert sum(row["charged"] for row in kinds) == pytest.approx(held_back)


def test_reasons_and_money_are_what_duckdb_finds(
    outcome: dict[str, Any], tables: duckdb.DuckDBPyConnection
) -> None:
    reasons = tables.sql(
        "select reason, count(distinct user_id), count(distinct user_id) filter (label = 1) from "
        "(select unnest(reasons) as reason, user_id, label from judged where flagged) "
        "group by 1 order by 2 desc, 1"
    ).fetchall()
    assert [(row["name"], row["users"], row["planted"]) for row in outcome["reasons"]] == reasons
    money = tables.sql(
        "select coalesce(sum(cost_minor) filter (label = 1), 0), "
        "coalesce(sum(cost_minor) filter (label = 1 and flagged), 0), "
        "coalesce(sum(cost_minor) filter (label = 0 and flagged), 0) from judged"
    ).fetchall()[0]
    names = ("planted_cost_minor", "prevented_cost_minor", "refused_cost_minor")
    assert tuple(outcome[name] for name in names) == money


def test_funnel_and_daily_users_are_what_duckdb_finds(
    outcome: dict[str, Any], tables: duckdb.DuckDBPyConnection
) -> None:
    steps = tables.sql(
        "select step_name, users_gross, users_suspect, users_clean from funnel "
        "where funnel = 'conversion' and \"window\" = 'all' and dim = 'all' order by step"
    ).fetchall()
    assert [tuple(row.values()) for row in outcome["funnel"]] == steps
    (clickers,) = tables.sql("select count(distinct user_id) from judged where event = 'click'").fetchall()[0]
    assert outcome["funnel"][0]["gross"] == clickers
    dates = tables.sql(
        "select strftime(timezone('Asia/Shanghai', ts), '%Y-%m-%d'), count(distinct user_id) from judged "
        "group by 1 order by 1"
    ).fetchall()
    assert [(row["name"], row["gross"]) for row in outcome["daily_users"]] == dates


def test_the_query_that_it_shows_can_be_typed(finished: RunningDemo) -> None:
    command = ["sh", "-c", finished.output().splitlines()[-1]]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=True)
    assert "truth_kind" in done.stdout


def expect_no_trace(demo: RunningDemo) -> None:
    assert not demo.processes()
    assert not list(demo.temporary.iterdir())
    assert not list(demo.folder.glob("woolwatch-demo*/_staging"))
    assert "Traceback" not in demo.output(), demo.output()


@pytest.mark.parametrize("seconds", _AFTER_START_S)
def test_ctrl_c_right_after_the_start_ends_it(folder: Path, seconds: float) -> None:
    """With one plain line; unless Python itself was still loading, which is nobody's to change."""
    demo = RunningDemo(folder / "first")
    while True:
        time.sleep(seconds)
        demo.press_ctrl_c()
        if demo.wait() != -signal.SIGINT:
            break
        seconds *= 2
        demo = RunningDemo(folder / str(seconds))
    assert demo.wait() == 130
    assert demo.output().splitlines()[-1] == "ended by SIGINT"
    expect_no_trace(demo)


@pytest.mark.parametrize("seconds", _AFTER_START_S[1:])
def test_ctrl_c_ends_make_as_well(folder: Path, seconds: float) -> None:
    """In a folder that make finds set up: in its shell, its setup, or the demo."""
    made = folder / "made"
    (made / ".venv").mkdir(parents=True)
    for name in ("Makefile", "scripts", "requirements.lock", "pyproject.toml"):
        (made / name).symlink_to(REPOSITORY / name)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (made / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    digests = [f"{sha256((made / name).read_bytes()).hexdigest()}  {name}\n" for name in STAMPED]
    (made / ".venv" / "woolwatch.sha256").write_text("".join(digests))
    demo = RunningDemo(folder / "run", command=["make", "-C", str(made), "demo"])
    time.sleep(seconds)
    demo.press_ctrl_c()
    assert demo.wait() in (-signal.SIGINT, 2, 130)
    assert not list(made.glob("woolwatch-demo*"))
    expect_no_trace(demo)


@pytest.mark.parametrize("seconds", _AFTER_FIRST_WORD_S)
def test_ctrl_c_leaves_no_trace(folder: Path, seconds: float) -> None:
    demo = RunningDemo(folder)
    demo.wait_for_output()
    try:
        demo.process.wait(seconds)
    except subprocess.TimeoutExpired:
        port = demo.broker_port()
        demo.press_ctrl_c()
        assert demo.wait() == 130, demo.output()
        assert port is None or not _listens(port)
    expect_no_trace(demo)


@pytest.mark.thorough
def test_ctrl_c_during_the_last_page_leaves_the_tables_alone(folder: Path) -> None:
    demo = RunningDemo(folder)
    demo.wait_for_output("What was planted")
    demo.press_ctrl_c()
    assert demo.wait() in (0, 130)  # it may have ended meanwhile
    assert list(folder.glob("woolwatch-demo/verdicts/*/*.parquet"))
    expect_no_trace(demo)


def test_on_a_terminal_it_draws_and_ctrl_c_gives_it_back(folder: Path) -> None:
    demo = RunningDemo(folder, terminal=True)
    seen = demo.read_until("漏斗".encode())
    demo.press_ctrl_c()
    seen += demo.read_until(b"ended by SIGINT")
    assert demo.wait() == 130
    os.close(demo.terminal)
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")  # the cursor is back
    assert not demo.processes()
    assert not list(demo.temporary.iterdir())


def test_killed_hard_it_takes_everything_with_it(folder: Path) -> None:
    demo = RunningDemo(folder)
    port = demo.wait_for_broker()
    assert len(demo.processes()) >= 4  # itself, broker, Redis, worker
    demo.process.kill()
    assert demo.wait() == -signal.SIGKILL
    demo.wait_until_gone()
    assert not _listens(port)


def test_tables_of_another_run_are_left_alone(folder: Path) -> None:
    (folder / "taken").mkdir()
    demo = RunningDemo(folder, "--out", "taken")
    assert demo.wait() == 2
    assert "exists already" in demo.output()

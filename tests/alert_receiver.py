"""A web server for tests that keeps what it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from schemas.alerts import Alert, alert_id


@dataclass
class Receiver:
    """What came, and what is answered."""

    port: int
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, keys: set[str], patience_s: float) -> None:
        """Wait until exactly these idempotency keys have come."""
        deadline = time.monotonic() + patience_s
        while (got := {headers["Idempotency-Key"] for headers, _ in self.got}) != keys:
            assert time.monotonic() < deadline, (len(got), len(keys), got - keys)
            self.came.clear()
            self.came.wait(0.5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=hidden"


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A server on loopback, on any free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            held.got.append((dict(self.headers), body))
            self.send_response(held.status)
            for name, value in held.headers.items():
                self.send_header(name, value)
            self.end_headers()
            held.came.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield held
        server.shutdown()
        thread.join()


def made_alert(number: int = 0, *, state: str = "open", severity: str = "review") -> Alert:
    """An alert like others."""
    name = alert_id("wool_party", "r", campaign="spring", dim="all", dim_value=None, incident=(number,))
    return Alert(
        id=name,
        kind="wool_party",
        name="r",
        state=state,  # type: ignore[arg-type]  # a literal, by name
        severity=severity,  # type: ignore[arg-type]  # as above
        campaign="spring",
        since_ms=1_760_000_000_000 + number,
        ts_ms=1_760_000_000_000 + number * 3_600_000,
        title_zh="羊毛党",
        title_en="a ring",
        text_zh="十二个账号",
        text_en="12 accounts",
        evidence={"users": 12},
        config_hash="c" * 32,
    )

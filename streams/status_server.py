"""``/metrics``, ``/healthz`` and ``/readyz`` of a worker over HTTP; off unless asked for, on loopback unless told."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from schemas.errors import ConfigError
from streams.settings import http_address
from streams.vitals import Vitals

log = logging.getLogger(__name__)

PORTS_TRIED = 100
"""Workers on one host with the same flags: a port that is taken is the neighbour's, and the next one is tried."""
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serving(http: str, state: Path | None, vitals: Vitals) -> AsyncIterator[str]:
    """Serve while the block runs; gives the address as ``host:port``.

    The address also stands in ``<state>/http/<host>-<pid>.json`` where the state is a folder, in the form that
    Prometheus' ``file_sd_configs`` reads, so that a fixed port is not needed to be found.

    Raises
    ------
    ConfigError
        The address can not be listened on.
    """
    runner = web.AppRunner(_app(vitals), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        address = await _listen(runner, http)
        target = None if state is None else _publish(state / "http", address)
        try:
            log.info("metrics, /healthz and /readyz are at http://%s", address)
            yield address
        finally:
            if target is not None:
                target.unlink(missing_ok=True)
    finally:
        await runner.cleanup()


def _app(vitals: Vitals) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=vitals.metrics().encode(), headers={"Content-Type": _METRICS_TYPE})

    async def healthz(_: web.Request) -> web.Response:
        return _answer(vitals.unwell(), vitals.hints())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(vitals.unready(), vitals.hints())

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


def _answer(reasons: list[str], hints: list[str]) -> web.Response:
    lines = [*(reasons or ["ok"]), *hints]
    return web.Response(status=503 if reasons else 200, text="".join(f"{line}\n" for line in lines))


async def _listen(runner: web.AppRunner, http: str) -> str:
    host, first = http_address(http)
    for port in range(first, min(first + PORTS_TRIED, 65_536)) if first else [0]:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await site.stop()
            if error.errno == errno.EADDRINUSE:
                continue
            raise _refused(http, error.strerror or "an address that is not ours") from error
        bound = runner.addresses[0][1]
        return f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
    raise _refused(http, f"{PORTS_TRIED} ports from there on, all taken")


def _refused(http: str, found: str) -> ConfigError:
    return ConfigError(file="--http", path="$", found=f"{http}: {found}", expected="an address to listen on")


def _publish(folder: Path, address: str) -> Path:
    """Write down where we are, and take away what dead workers of this host left."""
    folder.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    for left in folder.glob(f"{host}-*.json"):
        pid = left.stem.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            left.unlink(missing_ok=True)
    target = folder / f"{host}-{os.getpid()}.json"
    staged = target.with_suffix(".staged")
    staged.write_text(json.dumps([{"targets": [address], "labels": {"job": "woolwatch"}}]))
    staged.replace(target)
    return target
